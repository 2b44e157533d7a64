defmodule DSPex.Integration.BridgeTest do
  # The whole way: this client, the port, the real bridge, DSPy, and an LM that needs no key.
  use ExUnit.Case, async: true

  alias DSPex.{Error, Prediction, Program}
  alias DSPex.Test.{Bridge, Peer, Terms}

  @moduletag :integration
  @moduletag :capture_log
  # DSPy's import takes seconds on a busy machine.
  @moduletag timeout: 120_000

  defmodule Everything do
    @moduledoc "Read a note."
    use DSPex.Signature

    input :note, :string, description: "a note"
    input :attachment, {:optional, :binary}, default: nil
    input :written, :date
    input :tags, {:list, :string}

    output :kind, {:one_of, [:task, :idea, "other"]}
    output :score, :float, min: 0, max: 1
    output :count, :integer
    output :done, :boolean
    output :due, :date
    output :words, {:list, :string}
    output :sizes, {:dict, :string, :integer}
    output :price, :decimal
    output :owner, {:optional, :string}
  end

  # The embedded LM answers with its nearest demonstrations, and of one with that one.
  @demo %{
    inputs: %{note: "Buy milk tomorrow", attachment: "x", written: ~D[2024-02-28], tags: ["home"]},
    outputs: %{
      kind: :task,
      score: 0.75,
      count: 2,
      done: false,
      due: ~D[2024-02-29],
      words: ["milk", "tomorrow"],
      sizes: %{"milk" => 4},
      price: "1.25",
      owner: nil
    }
  }
  @inputs %{note: "Buy bread", written: ~D[2024-03-01], tags: []}

  setup_all do
    %{name: Bridge.start(lms: [knn: "demo/knn"], default_lm: :knn)}
  end

  test "runs a typed program through DSPy with every adapter and module", %{name: name} do
    for adapter <- [:chat, :json, :xml], module <- [:predict, :chain_of_thought] do
      assert {:ok, %Program{} = program} =
               DSPex.create(name, Everything, module: module, adapter: adapter, demos: [@demo])

      assert {:ok, %Prediction{} = prediction} = DSPex.execute(name, program, @inputs)

      {extra, outputs} = Map.split(prediction.outputs, [:reasoning])
      assert is_map_key(extra, :reasoning) == (module == :chain_of_thought)

      assert outputs == %{
               kind: :task,
               score: 0.75,
               count: 2,
               done: false,
               due: ~D[2024-02-29],
               words: ["milk", "tomorrow"],
               sizes: %{"milk" => 4},
               price: %DSPex.Decimal{text: "1.25"},
               owner: nil
             }

      assert prediction.lm == "knn"
      assert prediction.program == program.id
      assert prediction.usage.total_tokens > 0
      assert prediction.duration_ms > 0
    end
  end

  test "echoes every value as it was, through both codecs", %{name: name} do
    Terms.seed()

    for _ <- 1..200 do
      payload = Terms.random()
      assert DSPex.ping(name, payload: payload) === {:ok, payload}
    end
  end

  test "answers many callers at once, each with its own", %{name: name} do
    results =
      1..500
      |> Task.async_stream(&{&1, DSPex.ping(name, payload: &1)},
        max_concurrency: 100,
        timeout: :infinity
      )
      |> Enum.map(fn {:ok, result} -> result end)

    for {n, result} <- results, do: assert(result == {:ok, n})
  end

  test "takes and gives frames of megabytes", %{name: name} do
    payload = String.duplicate("äbc", 2_000_000)
    assert DSPex.ping(name, payload: payload) == {:ok, payload}
  end

  test "refuses a frame over its limit here, and goes on", %{name: name} do
    assert {:error, %Error{code: :frame_too_large}} =
             DSPex.ping(name, payload: String.duplicate("x", 17_000_000))

    assert DSPex.ping(name, payload: 1) == {:ok, 1}
  end

  test "says what does not fit, every value of it", %{name: name} do
    {:ok, program} = DSPex.create(name, Everything)

    assert {:error, %Error{code: :input_validation} = error} =
             DSPex.execute(name, program, %{note: 5, tags: ["a", nil], nots: "x"})

    message = Exception.message(error)
    assert message =~ "input_validation: 4 values do not fit the signature"
    assert message =~ "- note: expected str, got 5"
    assert message =~ "- written: expected date, got nothing"
    assert message =~ "- tags.1: expected str, got null"
    assert message =~ "- nots: "
  end

  test "says what is wrong with a signature, an id or a parameter", %{name: name} do
    assert {:error, %Error{code: :not_found, data: %{"kind" => "program"}}} =
             DSPex.execute(name, "no such", %{})

    assert {:error, %Error{code: :not_found}} = DSPex.delete(name, "no such")
    assert {:error, %Error{code: :not_found}} = DSPex.describe(name, "no such")
    assert {:error, %Error{code: :not_found}} = DSPex.create(name, "a -> b", lm: "no such")

    assert {:ok, _} = DSPex.create(name, "a -> b", program: "twice")

    assert {:error, %Error{code: :already_exists}} =
             DSPex.create(name, "a -> b", program: "twice")

    assert {:ok, %Program{revision: 2}} =
             DSPex.create(name, "a -> b", program: "twice", replace: true)

    assert {:error, %Error{code: :invalid_params, message: message}} =
             DSPex.create(name, "a -> b", module: :predct)

    assert message =~ "predict"

    # The constraint suits no string, which only the bridge knows.
    signature = %{inputs: [%{name: :a, constraints: %{unique: true}}], outputs: [%{name: :b}]}
    assert {:error, %Error{code: :signature_error}} = DSPex.create(name, signature)
  end

  test "lists, describes, dumps, loads and deletes", %{name: name} do
    {:ok, program} = DSPex.create(name, Everything, program: "all/one", demos: [@demo])

    assert {:ok, [%{"program" => "all/one", "revision" => 1}]} = DSPex.list(name, prefix: "all/")

    assert {:ok, %{"demos" => [_]}} = DSPex.describe(name, program)
    assert {:ok, state} = DSPex.dump(name, program)
    assert {:ok, copy} = DSPex.load(name, state, program: "all/two")

    assert {:ok, prediction} = DSPex.execute(name, copy, @inputs)

    assert prediction["kind"] == "task"
    assert prediction["due"] == ~D[2024-02-29]
    assert :ok = DSPex.delete(name, program)
    assert :ok = DSPex.delete(name, copy)
    assert DSPex.list(name, prefix: "all/") == {:ok, []}
  end

  test "ends work at its deadline, and when its caller dies", %{name: name} do
    {_listener, lm} = Bridge.silent_lm()
    {:ok, program} = DSPex.create(name, "question -> answer")

    assert {:error, %Error{code: :timeout}} =
             DSPex.execute(name, program, %{question: "?"}, lm: lm, timeout: 200)

    # Another LM: whether the first was reached before the deadline is a matter of chance.
    {listener, lm} = Bridge.silent_lm()
    test = self()

    caller =
      spawn(fn ->
        send(test, :calling)
        DSPex.execute(name, program, %{question: "?"}, lm: lm, timeout: :infinity)
      end)

    assert_receive :calling
    assert {:ok, _asked} = :gen_tcp.accept(listener, 30_000)
    Process.exit(caller, :kill)

    assert Peer.eventually(fn ->
             {:ok, stats} = DSPex.stats(name)
             # This request itself is not counted as work.
             stats["in_flight"] <= 1
           end)
  end

  test "tells an LM that cannot be reached, and no key", %{name: name} do
    lm = [
      model: "openai/none",
      api_base: "http://127.0.0.1:9/v1",
      api_key: "sk-never-shown-123",
      num_retries: 0
    ]

    {:ok, program} = DSPex.create(name, "question -> answer")

    assert {:error, %Error{code: :lm_error, data: %{"kind" => "connection"}} = error} =
             DSPex.execute(name, program, %{question: "?"}, lm: lm)

    refute inspect(error) =~ "sk-never-shown"
    assert {:ok, configuration} = DSPex.configure(name, lms: [unreachable: lm])
    refute inspect(configuration) =~ "sk-never-shown"
  end
end
