defmodule DSPex.Integration.ServerComplianceTest do
  # What a server cannot do, its adapter's documentation says, and a test below.
  use DSPex.Test.AdapterCompliance,
    without: [:configure, :files, :functions],
    tags: [integration: true, capture_log: true, timeout: 120_000]

  alias DSPex.Test.{Bridge, Peer, Serve, Waiting}

  defmodule Sorter do
    @moduledoc "Sort a word."
    use DSPex.Program, server: DSPex.Integration.ServerComplianceTest.Instance

    defschema InputSchema do
      field(:word, :string, required: true)
    end

    defschema OutputSchema do
      field(:kind, {:one_of, [:fruit, :tool]})
    end
  end

  # What every request has to show.
  @token "0123456789abcdef"

  defp backend(url), do: {DSPex.Adapter.Server, url: url, token: @token}

  setup_all do
    name = __MODULE__.Instance
    file = Path.join(System.tmp_dir!(), "dspex-token-#{System.unique_integer([:positive])}")
    File.write!(file, @token)
    on_exit(fn -> File.rm!(file) end)
    # An LM of a server is one that it was started with.
    {_listener, silent} = Bridge.silent_lm()
    lms = Path.join(System.tmp_dir!(), "dspex-lms-#{System.unique_integer([:positive])}.toml")

    File.write!(lms, [
      "[silent]\n" | for({key, value} <- silent, do: "#{key} = #{inspect(value)}\n")
    ])

    on_exit(fn -> File.rm!(lms) end)
    url = Serve.start(["--token-file", file, "--lms", lms])
    start_supervised!({DSPex, name: name, backend: backend(url)})
    {:ok, name: name, url: url}
  end

  setup %{name: name} do
    {:ok, programs} = DSPex.list(name)
    for %{"program" => id} <- programs, do: Peer.eventually(fn -> gone?(name, id) end)

    %{hang: fn -> [lm: "silent"] end}
  end

  # An execution of the test before may be under way still, although its caller has been answered.
  defp gone?(name, id) do
    case DSPex.delete(name, id) do
      :ok -> true
      {:error, %Error{code: :wrong_state}} -> false
    end
  end

  # Another instance over the same server: another node, or the same one after a restart.
  defp another(url) do
    name = Module.concat(__MODULE__, "Another#{System.unique_integer([:positive])}")
    start_supervised!({DSPex, name: name, backend: backend(url)}, id: name)
    name
  end

  test "a program outlives the instance that made it, which finds it as it was", context do
    DSPex.create!(context.name, Sort, program: "kept", demos: AdapterCompliance.examples())
    another = another(context.url)

    assert {:ok, prediction} = DSPex.execute(another, "kept", %{"word" => "an apple"})
    assert prediction["kind"] in ["fruit", "tool"]

    # Said again, it is the same revision, and from then on its types are known here too.
    options = [program: "kept", demos: AdapterCompliance.examples(), replace: true]
    assert {:ok, %Program{revision: 1} = program} = DSPex.create(another, Sort, options)
    assert {:ok, prediction} = DSPex.execute(another, program, %{word: "an apple"})
    assert prediction[:kind] in [:fruit, :tool]

    options = Keyword.put(options, :instructions, "Sort it.")
    assert {:ok, %Program{revision: 2}} = DSPex.create(another, Sort, options)
  end

  test "a program that is a module is made when it is first needed" do
    assert {:ok, prediction} = Sorter.predict(%{word: "an apple"})
    assert prediction[:kind] in [:fruit, :tool]
    assert {:ok, prediction} = DSPex.execute(Sorter, %{word: "a hammer"})
    assert prediction.program == inspect(Sorter)
  end

  test "what a server cannot do for its client is refused, and says why", %{name: name} do
    program = sorter(name)
    examples = AdapterCompliance.examples()
    tool = DSPex.Tool.new(:look, "Look.", [], fn _arguments -> "here" end)

    for {answer, code, word} <- [
          {DSPex.create(name, "q -> a", module: :react, tools: [tool]), :invalid_params, "tools"},
          {DSPex.call(name, "q -> a", %{q: "?"}, module: :react, tools: [tool]), :invalid_params,
           "tools"},
          {DSPex.evaluate(name, program, examples), :unavailable, "metric"},
          {DSPex.optimize(name, program, examples, metric: {:exact_match, :kind}, checkpoint: "c"),
           :unavailable, "job"},
          {DSPex.batch(name, program, [%{word: "a"}], limits: [max_calls: 1]), :invalid_params,
           "limits"},
          {DSPex.execute(name, program, %{word: "a"}, lm: [model: "openai/own"]), :invalid_params,
           "--lms"},
          {DSPex.stats(name), :unavailable, "GraphQL"},
          {DSPex.save(name, program, "a.json"), :unavailable, "dump"},
          {DSPex.configure(name, lms: [main: "demo/knn"]), :unavailable, "--lms"}
        ] do
      assert {:error, %Error{code: ^code, message: message, retryable: false}} = answer
      assert message =~ word
    end

    assert DSPex.workers(name) == {:ok, []}
    assert DSPex.restart(name) == :ok
  end

  test "a call that is left is cancelled at the server, and its row says so", context do
    DSPex.ML.put_url(context.url)
    assert {:error, %Error{code: :unauthorized}} = DSPex.ML.Program.get("sorter")
    DSPex.ML.put_url(context.url, token: @token)
    sorter(context.name)
    {:ok, begun} = DSPex.async(context.name, "sorter", %{word: "?"}, context.hang.())
    running = until(fn -> rows(:running) end)
    assert DSPex.cancel(begun) == :ok
    assert {:error, %Error{code: :cancelled}} = DSPex.await(begun)
    assert running -- until(fn -> rows(:cancelled) end) == []
  end

  defp rows(state) do
    {:ok, page} = DSPex.ML.Execution.list(state: state)
    for execution <- page.entries, do: execution.id
  end

  # Until there are any.
  defp until(list) do
    Waiting.until("an execution of that state", 30_000, fn ->
      found = list.()
      if found != [], do: found
    end)
  end
end
