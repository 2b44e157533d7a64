defmodule DSPex.ProgramTest do
  use ExUnit.Case, async: true

  @moduletag :protocol

  import DSPex.Test.Scripted

  alias DSPex.{Error, Prediction, Program, Signature}
  alias DSPex.Test.Peer

  defmodule QABot do
    @moduledoc "Answer in one sentence."
    use DSPex.Program, module: :chain_of_thought, config: [top_p: 0.5]

    defschema InputSchema do
      field(:question, :string, required: true)
      field(:context, :string)
      field(:temperature, :probability, default: 0.7, variable: true)
    end

    defschema OutputSchema do
      field(:answer, :string)
      field(:mood, {:one_of, [:good, :bad]}, required: false)
    end
  end

  defmodule Shouting do
    use DSPex.Program, program: "shouting", server: DSPex.ProgramTest.Nowhere

    defschema InputSchema do
      field(:question, :string, required: true)
    end

    defschema OutputSchema do
      field(:answer, :string)
    end

    @impl true
    def predict(inputs) do
      with {:error, error} <- super(inputs), do: {:error, String.upcase(error.message)}
    end
  end

  defmodule Styled do
    use DSPex.Signature
    input(:question, :string)
    input(:temperature, :float, default: 0.5, variable: [low: 0, high: 2])
    output(:answer, :string)
  end

  test "a module says what its program is made of" do
    assert %{
             server: DSPex,
             program: "DSPex.ProgramTest.QABot",
             options: [module: :chain_of_thought, config: config],
             variables: variables
           } = QABot.__program__()

    assert config == %{"temperature" => 0.7, "top_p" => 0.5}

    assert variables == %{
             "temperature" => %{
               "kind" => "float",
               "low" => 0,
               "high" => 1,
               "default" => 0.7,
               "applies_to" => "config.temperature"
             }
           }
  end

  test "a module is a signature, whose variables are not in the prompt" do
    assert to_string(QABot.__signature__()) ==
             "question: str, context: str | None, temperature: probability -> " <>
               ~s(answer: str, mood: Literal["good", "bad"] | None)

    wire = Signature.to_wire(QABot.__signature__())
    assert Enum.map(wire["inputs"], & &1["name"]) == ["question", "context"]
    assert wire["instructions"] == "Answer in one sentence."

    assert QABot.validate_inputs(%{question: "?"}) ==
             {:ok, %{question: "?", context: nil, temperature: 0.7}}

    assert {:ok, %QABot.InputSchema{question: "?", context: nil, temperature: 0.7}} =
             QABot.InputSchema.new(question: "?")
  end

  describe "with an instance" do
    setup do
      {name, peer, _listener} = ready()
      %{name: name, peer: peer}
    end

    test "it is made when it is first needed, and once", %{name: name, peer: peer} do
      task = async(fn -> DSPex.execute(name, QABot, %{question: "?", temperature: 1}) end)
      {id, params, peer} = Peer.request(peer, "create")

      assert %{
               "program" => "DSPex.ProgramTest.QABot",
               "module" => "chain_of_thought",
               "config" => %{"temperature" => 0.7, "top_p" => 0.5},
               "replace" => true
             } = params

      peer = Peer.respond(peer, id, created(params))
      {id, params, peer} = Peer.request(peer, "execute")
      assert params["program"] == "DSPex.ProgramTest.QABot"
      assert params["inputs"] == %{"question" => "?"}
      assert params["config"] == %{"temperature" => 1}
      peer = Peer.respond(peer, id, outputs(%{answer: "!", mood: "good"}))
      assert {:ok, %Prediction{} = prediction} = await(task)
      assert prediction[:answer] == "!"
      assert prediction[:mood] == :good

      input = %QABot.InputSchema{question: "again"}
      task = async(fn -> DSPex.execute(name, QABot, input, config: %{temperature: 0}) end)
      {id, params, peer} = Peer.request(peer, "execute")
      assert params["inputs"] == %{"question" => "again", "context" => nil}
      # What the call says goes before what an input does.
      assert params["config"] == %{"temperature" => 0}
      Peer.respond(peer, id, outputs(%{answer: "!", mood: nil}))
      assert {:ok, _prediction} = await(task)
    end

    test "a state that was loaded while it is first made stays in its place", context do
      %{name: name, peer: peer} = context
      first = async(fn -> DSPex.execute(name, QABot, %{question: "?"}) end)
      {make, made, peer} = Peer.request(peer, "create")
      state = %{"signature" => Signature.to_wire(QABot.__signature__())}
      load = async(fn -> DSPex.load(name, state, program: QABot, replace: true) end)
      {id, params, peer} = Peer.request(peer, "load")
      peer = Peer.respond(peer, id, created(params))
      assert {:ok, _program} = await(load)
      peer = Peer.respond(peer, make, created(made))
      # That Python has what is not wanted any more.
      {id, again, peer} = Peer.request(peer, "load")
      assert again["state"] == state
      peer = Peer.respond(peer, id, created(again))
      {id, _params, peer} = Peer.request(peer, "execute")
      Peer.respond(peer, id, outputs(%{answer: "!", mood: nil}))
      assert {:ok, %Prediction{}} = await(first)
    end

    test "inputs that do not fit are refused with every reason, and nothing is sent", context do
      %{name: name, peer: peer} = context
      {program, _params, peer} = create(name, peer, QABot, [])

      assert {:error, %Error{code: :input_validation} = error} =
               DSPex.execute(name, program, %{context: 5, temperature: 2, qestion: "?"})

      assert Enum.map(error.data["errors"], &{&1["path"], &1["type"]}) == [
               {["question"], "missing"},
               {["context"], "type"},
               {["temperature"], "max"},
               {["qestion"], "unexpected"}
             ]

      assert %{
               "message" => ~s{there is no input of this name (did you mean "question"?)},
               "expected" => "no input of this name",
               "got" => ~s("?")
             } = List.last(error.data["errors"])

      # The next message is the next call's.
      task = async(fn -> DSPex.ping(name, payload: 1) end)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: 1})
      assert await(task) == {:ok, 1}
    end

    test "a signature's variables go along, those of the call before them", %{
      name: name,
      peer: peer
    } do
      variable = %{kind: "text", applies_to: "instructions", choices: ["a", "b"]}
      {_program, params, peer} = create(name, peer, Styled, variables: [tone: variable])
      assert Map.keys(params["variables"]) == ["temperature", "tone"]
      {_program, params, _peer} = create(name, peer, "q -> a", program: "plain")
      refute is_map_key(params, "variables")
    end

    test "the options of a call go before those of the module", %{name: name, peer: peer} do
      {_program, params, _peer} =
        create(name, peer, QABot, module: :predict, config: [temperature: 0], program: "other")

      assert %{"program" => "other", "module" => "predict"} = params
      assert params["config"] == %{"temperature" => 0, "top_p" => 0.5}
    end
  end

  test "predict/1 runs in the module's own instance, and may be overridden" do
    assert {:error, message} = Shouting.predict(%{question: "?"})
    assert message =~ "NO DSPEX INSTANCE NAMED DSPEX.PROGRAMTEST.NOWHERE IS RUNNING"

    assert {:error, %Error{code: :not_started}} = DSPex.execute(Shouting, %{question: "?"})

    assert {:error, %Error{code: :not_started}} =
             DSPex.execute(Shouting, %{question: "?"}, timeout: 50)

    assert {:error, %Error{code: :invalid_params} = error} = DSPex.execute(String, %{})
    assert error.message =~ "a module that uses DSPex.Program, not String"
    assert Program.definition(String) == nil
  end

  defp compile_error(options, body) do
    code = "defmodule DSPex.ProgramTest.Wrong do\n  use DSPex.Program#{options}\n#{body}\nend"
    error = assert_raise CompileError, fn -> Code.compile_string(code, "wrong.ex") end
    Exception.message(error)
  end

  test "what is wrong is a compile error at its line" do
    inputs = "defschema InputSchema do\nfield :q, :string\nend\n"
    outputs = "defschema OutputSchema do\nfield :a, :string\nend\n"

    for {options, body, message} <- [
          {"", inputs, "wrong.ex:1: a program has an output: defschema OutputSchema do"},
          {"", outputs, "wrong.ex:1: a program has an input: defschema InputSchema do"},
          {", modul: :predict", inputs <> outputs,
           "wrong.ex:2: unknown option :modul (did you mean :module?); the options are :server,"},
          {"", "defschema Inputs do\nend",
           "wrong.ex:3: a program has an InputSchema and an OutputSchema, no Inputs"},
          {"", "defschema InputSchema do\nfield :q, :strng\nend",
           "wrong.ex:4: input :q: unknown type :strng (did you mean :string?)"},
          {"", "defschema InputSchema do\nfield :q, :string, requird: true\nend",
           "wrong.ex:4: input :q: unknown option :requird (did you mean :required?); " <>
             "the options are :required, :description, :default, :min, :max,"},
          {"", "defschema InputSchema do\nfield :q, :string, required: 1\nend",
           "wrong.ex:4: input :q: option :required: expected true or false"},
          {"", "defschema InputSchema do\nfield :q, :string, required: true, default: \"\"\nend",
           "wrong.ex:4: input :q: an input with a default is never required"},
          {"", inputs <> "defschema OutputSchema do\nfield :t, :float, variable: true\nend",
           "wrong.ex:7: output :t: a variable has a default"},
          {"", "defschema InputSchema do\nfield :t, :float, default: 0.5, variable: true\nend",
           "wrong.ex:4: input :t: a variable number has :min and :max"},
          {"",
           inputs <>
             "defschema OutputSchema do\nfield :t, :probability, default: 0.5, variable: true\nend",
           "wrong.ex:7: output :t: an output cannot be a variable"},
          {"",
           "defschema InputSchema do\nfield :t, :probability, default: 0.5, variable: true\nend\n" <>
             outputs, "wrong.ex:1: a signature has at least one input that is no variable"}
        ] do
      assert {body, compile_error(options, body) |> String.slice(0, String.length(message))} ==
               {body, message}
    end
  end

  describe "with a timeout" do
    @timeout 5_000

    # What a call asks of the bridge, made for the first time with a program that is a module.
    @calls %{
      "execute" => &__MODULE__.execute/1,
      "execute of a stream" => &__MODULE__.stream/1,
      "execute of a task" => &__MODULE__.async_execute/1,
      "batch" => &__MODULE__.batch/1,
      "evaluate" => &__MODULE__.evaluate/1,
      "optimize" => &__MODULE__.optimize/1
    }

    for {what, call} <- @calls do
      test "the first #{what} of a module has one for all that it asks of the bridge" do
        {name, peer, _listener} = ready()
        call = unquote(Macro.escape(call))
        task = async(fn -> call.({name, @timeout}) end)
        {id, params, peer} = Peer.request(peer, "create")
        assert params["timeout_ms"] == @timeout
        took = 20
        # So long it takes to be made.
        assert Peer.silent?(peer, took)
        peer = Peer.respond(peer, id, created(params))
        at_most = @timeout - took

        {at_most, peer} =
          if unquote(what) == "optimize",
            do: described(peer, at_most, took),
            else: {at_most, peer}

        {{:request, id, _method, params}, peer} = Peer.next(peer)
        assert params["timeout_ms"] in 1..at_most
        Peer.fail(peer, id, "lm_error")
        assert {:error, %Error{code: :lm_error}} = await(task)
      end

      test "the first #{what} of a module is late where that is not made in time" do
        {name, peer, _listener} = ready()
        call = unquote(Macro.escape(call))
        began = System.monotonic_time(:millisecond)
        task = async(fn -> call.({name, 100}) end)
        {id, _params, peer} = Peer.request(peer, "create")
        assert {:error, %Error{code: :timeout} = error} = await(task)
        assert error.message == "no answer within 100 ms"
        # Not the minute that making one by itself has.
        assert System.monotonic_time(:millisecond) - began < 30_000
        assert {{:notification, "cancel", %{"id" => ^id}}, _peer} = Peer.next(peer)
      end
    end

    defp described(peer, at_most, took) do
      {id, params, peer} = Peer.request(peer, "describe")
      assert params["timeout_ms"] in 1..at_most
      assert Peer.silent?(peer, took)
      {params["timeout_ms"] - took, Peer.respond(peer, id, %{variables: %{}})}
    end

    for {on_stop, is_awaited?} <- [{:best, true}, {"best", true}, {:discard, false}] do
      test "the best so far is awaited after it, on_stop: #{inspect(on_stop)}: #{is_awaited?}" do
        {name, peer, _listener} = ready()
        {program, _params, peer} = create(name, peer, QABot, [])
        options = [on_stop: unquote(on_stop)] ++ rated(200)
        task = async(fn -> DSPex.optimize(name, program, examples(), options) end)
        {id, _params, peer} = Peer.request(peer, "describe")
        peer = Peer.respond(peer, id, %{variables: %{}})
        {id, params, peer} = Peer.request(peer, "optimize")
        # The deadline is not the bridge's to shorten.
        assert params["timeout_ms"] in 1..200

        if unquote(is_awaited?) do
          # Behind the deadline by more than a moment.
          assert Peer.silent?(peer, 600)
          Peer.respond(peer, id, optimized(params))
          assert {:ok, %{stopped: "timeout"}} = await(task)
        else
          assert {:error, %Error{code: :timeout}} = await(task)
          assert {{:notification, "cancel", %{"id" => ^id}}, _peer} = Peer.next(peer)
        end
      end
    end

    defp optimized(params) do
      %{
        program: params["save_as"],
        base_program: params["program"],
        state: %{module: "chain_of_thought"},
        score: 0.5,
        stopped: "timeout"
      }
    end

    test "a file is loaded, and asked what was in it, within one" do
      {name, peer, _listener} = ready()
      task = async(fn -> DSPex.load(name, "a.json", timeout: @timeout) end)
      {id, params, peer} = Peer.request(peer, "load")
      assert params["timeout_ms"] == @timeout
      assert Peer.silent?(peer, 20)
      peer = Peer.respond(peer, id, created(params))
      {id, params, peer} = Peer.request(peer, "dump")
      assert params["timeout_ms"] in 1..(@timeout - 20)
      Peer.fail(peer, id, "timeout")
      assert {:error, %Error{code: :timeout}} = await(task)
    end
  end

  @doc false
  def execute({name, timeout}), do: DSPex.execute(name, QABot, inputs(), timeout: timeout)

  @doc false
  def stream({name, timeout}) do
    [answer] = name |> DSPex.stream(QABot, inputs(), timeout: timeout) |> Enum.to_list()
    answer
  end

  @doc false
  def async_execute({name, timeout}) do
    with {:ok, task} <- DSPex.async(name, QABot, inputs(), timeout: timeout),
         do: DSPex.await(task)
  end

  @doc false
  def batch({name, timeout}), do: DSPex.batch(name, QABot, [inputs()], timeout: timeout)

  @doc false
  def evaluate({name, timeout}), do: DSPex.evaluate(name, QABot, examples(), rated(timeout))

  @doc false
  def optimize({name, timeout}), do: DSPex.optimize(name, QABot, examples(), rated(timeout))

  defp rated(timeout), do: [metric: {:exact_match, :answer}, timeout: timeout]
  defp inputs, do: %{question: "?"}
  defp examples, do: [%{inputs: inputs(), outputs: %{answer: "!"}}]
end
