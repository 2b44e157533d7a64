defmodule DSPex.Integration.ToolsTest do
  # Elixir functions called by DSPy's ReAct in the real bridge, and real streams.
  use ExUnit.Case, async: true

  alias DSPex.{Chunk, Error, Prediction, Tool}
  alias DSPex.Test.{Bridge, Folder, LM}

  @moduletag :integration
  @moduletag :capture_log
  # DSPy's import takes seconds on a busy machine.
  @moduletag timeout: 120_000

  @patience_ms 60_000

  # An LM that calls this tool in every step, and answers with a text.
  defp agent(tool, args) do
    lm =
      LM.start(
        next_thought: "use it",
        next_tool_name: tool.name,
        next_tool_args: args,
        reasoning: "it was used",
        answer: "done"
      )

    name = Bridge.start(lms: [main: lm])

    {:ok, program} =
      DSPex.create(name, "question -> answer",
        module: :react,
        options: [max_iters: 1],
        tools: [tool]
      )

    {name, program}
  end

  defp ask(name, program, options \\ []),
    do: DSPex.execute(name, program, %{question: "?"}, options)

  test "a tool's result is what the program observes" do
    tool =
      Tool.new(
        :due,
        "When it is due.",
        [days: :integer, since: {:date, default: ~D[2024-02-28]}],
        fn
          %{days: days, since: %Date{} = since} -> Date.add(since, days)
        end
      )

    {name, program} = agent(tool, ~s({"days": 1}))
    assert {:ok, %Prediction{} = prediction} = ask(name, program)
    assert prediction["answer"] == "done"
    assert %{"observation_0" => "2024-02-29", "tool_name_0" => "due"} = prediction["trajectory"]
  end

  test "a tool that raises is observed as its message, and the program goes on" do
    tool = Tool.new(:save, "Saves.", [], fn _args -> raise "the disk is full" end)
    {name, program} = agent(tool, "{}")
    assert {:ok, prediction} = ask(name, program)
    assert %{"observation_0" => observation} = prediction["trajectory"]
    assert observation =~ "the disk is full"
    refute observation =~ "tools_test.exs"
    assert prediction["answer"] == "done"
  end

  test "a tool runs another program of the same instance, and survives another Python" do
    tool =
      Tool.new(:look, "Looks it up.", [], fn _args, context ->
        DSPex.execute!(context.server, "lookup", %{word: "?"})["meaning"]
      end)

    {name, program} = agent(tool, "{}")
    {:ok, _} = DSPex.configure(name, lms: [knn: "demo/knn"], default_lm: :main)
    demos = [%{inputs: %{word: "?"}, outputs: %{meaning: "from within"}}]

    {:ok, _} = DSPex.create(name, "word -> meaning", program: "lookup", lm: :knn, demos: demos)

    observed = fn ->
      assert {:ok, prediction} = ask(name, program, timeout: @patience_ms)
      prediction["trajectory"]["observation_0"]
    end

    assert observed.() == "from within"
    System.cmd("kill", ["-KILL", "#{Bridge.os_pid(name)}"])
    # The first call may find that Python gone, which is an answer too.
    assert {:ok, _programs} = eventually_listed(name)
    assert observed.() == "from within"
  end

  defmodule Clock do
    use DSPex.Program,
      module: :react,
      options: [max_iters: 1],
      server: DSPex.Integration.ToolsTest.Journal,
      tools: [Tool.new(:hour, "The hour.", [], fn _args -> "noon" end)]

    defschema InputSchema do
      field(:question, :string, required: true)
    end

    defschema OutputSchema do
      field(:answer, :string)
    end
  end

  test "after a restart from the file tools are called, or said to be missing" do
    lm =
      LM.start(
        next_thought: "use it",
        next_tool_name: "hour",
        next_tool_args: "{}",
        reasoning: "it was used",
        answer: "done"
      )

    path = Path.join(Folder.make(), "journal")
    options = [name: __MODULE__.Journal, lms: [main: lm], journal: {:file, path}]
    name = Bridge.start(options)

    observed = fn program ->
      with {:ok, prediction} <- ask(name, program), do: prediction["trajectory"]["observation_0"]
    end

    assert observed.(Clock) == "noon"
    # What an optimizer gives is such a state, with demonstrations.
    {:ok, state} = DSPex.dump(name, Clock)
    {name_of_step, step} = Enum.find(state["predictors"], fn {name, _step} -> name =~ "react" end)
    inputs = %{"question" => "?", "trajectory" => ""}
    outputs = %{"next_thought" => "use it", "next_tool_name" => "hour", "next_tool_args" => %{}}
    demos = [%{"inputs" => inputs, "outputs" => outputs}]
    state = put_in(state, ["predictors", name_of_step], Map.put(step, "demos", demos))
    {:ok, _program} = DSPex.load(name, state, program: Clock, replace: true)
    midnight = Tool.new(:hour, "The hour.", [], fn _args -> "midnight" end)
    {:ok, _program} = DSPex.load(name, state, program: "made", tools: [midnight])
    {:ok, before} = DSPex.dump(name, "made")

    :ok = ExUnit.Callbacks.stop_supervised(name)
    Bridge.start(options)
    assert observed.(Clock) == "noon"
    {:ok, restored} = DSPex.dump(name, Clock)
    assert restored["predictors"] == before["predictors"]

    assert {:error, %Error{code: :not_found, message: message}} = observed.("made")
    assert message =~ "give them with DSPex.put_tools/3"
    :ok = DSPex.put_tools(name, "made", [midnight])
    assert observed.("made") == "midnight"
    assert {:ok, ^before} = DSPex.dump(name, "made")
  end

  defp eventually_listed(name) do
    with {:error, %Error{code: :connection_lost}} <- DSPex.list(name), do: DSPex.list(name)
  end

  test "a tool is killed when the deadline of its execution passes" do
    test = self()

    tool =
      Tool.new(:wait, "Waits.", [], fn _args ->
        send(test, {:waiting, self()})

        receive do
          :never -> nil
        end
      end)

    {name, program} = agent(tool, "{}")
    # DSPy is imported by then, or the deadline would be over before the tool is called.
    assert {:ok, _} = DSPex.list(name)
    task = Task.async(fn -> ask(name, program, timeout: 5000) end)
    assert_receive {:waiting, pid}, @patience_ms
    monitor = Process.monitor(pid)
    assert {:error, %Error{code: :timeout}} = Task.await(task, @patience_ms)
    assert_receive {:DOWN, ^monitor, :process, ^pid, _killed}, @patience_ms
  end

  test "the chunks of a stream are the text of the outputs, whatever the window" do
    name = Bridge.start(lms: [knn: "demo/knn"])
    text = Enum.map_join(1..400, " ", &"word#{&1}")
    demos = [%{inputs: %{question: "?"}, outputs: %{answer: text, mood: "fine"}}]
    {:ok, program} = DSPex.create(name, "question -> answer, mood", demos: demos)

    for window <- [1, 2, 1000] do
      elements = name |> DSPex.stream(program, %{question: "?"}, window: window) |> Enum.to_list()
      assert {:ok, %Prediction{} = prediction} = List.last(elements)
      chunks = for %Chunk{} = chunk <- elements, do: chunk

      for field <- ["answer", "mood"] do
        mine = Enum.filter(chunks, &(&1.field == field))
        assert Enum.map_join(mine, & &1.text) == prediction[field]
        assert List.last(mine).done
      end
    end

    assert [%Chunk{}] = name |> DSPex.stream(program, %{question: "?"}) |> Enum.take(1)
    assert [%Prediction{}] = name |> DSPex.stream!(program, %{question: "?"}) |> Enum.take(-1)
  end
end
