defmodule DSPex.Integration.FallbacksTest do
  # LMs that stand in for others, and limits, with the real bridge.
  use ExUnit.Case, async: true

  import ExUnit.CaptureLog

  alias DSPex.{Error, Prediction}
  alias DSPex.Test.{Bridge, Folder}

  @moduletag :integration
  @moduletag :capture_log
  # DSPy's import takes seconds on a busy machine.
  @moduletag timeout: 120_000

  # Nothing listens there.
  @unreachable [
    model: "openai/none",
    api_base: "http://127.0.0.1:9/v1",
    api_key: "sk-local",
    num_retries: 0
  ]

  test "an LM that cannot be reached is stood in for, in the configuration and in one call" do
    name =
      Bridge.start(
        lms: [
          knn: "demo/knn",
          main: @unreachable ++ [fallbacks: [:second, :knn]],
          second: @unreachable,
          third: @unreachable ++ [fallbacks: ["second"]]
        ],
        default_lm: :main
      )

    assert {:ok, %Prediction{lm: "knn"} = prediction} =
             DSPex.call(name, "question -> answer", question: "Why?")

    assert prediction["answer"] != nil

    {:ok, program} = DSPex.create(name, "question -> answer")

    assert {:ok, %Prediction{lm: "knn"}} =
             DSPex.execute(name, program, %{question: "Why?"},
               lm: @unreachable ++ [fallbacks: [:knn]]
             )

    assert {:error, %Error{code: :lm_error, data: data}} =
             DSPex.execute(name, program, %{question: "Why?"}, lm: :third)

    assert %{"kind" => "connection", "tried" => [%{"lm" => "third", "kind" => "connection"}]} =
             data
  end

  test "an LM's budget and that of the whole Python are held, raised, and begin anew with another one" do
    name = Bridge.start(lms: [main: [model: "demo/knn", limits: [max_calls: 1]]])
    call = fn -> DSPex.call(name, "question -> answer", question: "Why?") end
    assert {:ok, _prediction} = call.()

    assert {:error, %Error{code: :budget_exceeded, retryable: false, data: data}} = call.()

    spent = %{"limit" => "max_calls", "allowed" => 1, "spent" => 1}

    assert Map.drop(data, ["usage", "cost_usd"]) ==
             Map.merge(spent, %{"scope" => "lm", "name" => "main"})

    # What is spent stays spent, also of a limit that was not there.
    assert {:ok,
            %{"limits" => %{"max_calls" => 1}, "lms" => %{"main" => %{"model" => "demo/knn"}}}} =
             DSPex.configure(name, lms: [main: "demo/knn"], limits: [max_calls: 1])

    assert {:error, %Error{code: :budget_exceeded, data: data}} = call.()
    assert Map.drop(data, ["usage", "cost_usd"]) == Map.put(spent, "scope", "bridge")

    assert {:ok, %{"limits" => %{"max_calls" => 2}}} =
             DSPex.configure(name, limits: %{max_calls: 2})

    assert {:ok, _prediction} = call.()
    assert {:error, %Error{code: :budget_exceeded}} = call.()

    # The next Python has the limits, and an account of its own.
    :ok = DSPex.restart(name)
    for _call <- 1..2, do: assert({:ok, _prediction} = call.())
    assert {:error, %Error{code: :budget_exceeded, data: %{"allowed" => 2}}} = call.()
  end

  test "a fallback that is nowhere and one that leads back are refused, and told" do
    name = Bridge.start(lms: [main: [model: "demo/knn", fallbacks: [:second]]])
    assert {:error, %Error{code: :start_failed} = error} = DSPex.ping(name)
    assert error.message =~ ~s(lms.main.fallbacks: there is no LM 'second')

    assert {:error, %Error{code: :start_failed} = error} =
             DSPex.configure(name, lms: [second: [model: "demo/knn", fallbacks: [:main]]])

    assert error.message =~ "they lead back to where they began"
    assert {:ok, _configuration} = DSPex.configure(name, lms: [second: "demo/knn"])
    assert {:ok, %Prediction{lm: "main"}} = DSPex.call(name, "q -> a", [q: "?"], lm: :main)
  end

  test "after a restart from the file an LM works without the fallback whose key no file holds" do
    path = Path.join(Folder.make(System.tmp_dir!()), "journal")
    options = [lms: [knn: "demo/knn"], default_lm: :knn, journal: {:file, path}]
    name = Bridge.start([name: Module.concat(__MODULE__, "Journal")] ++ options)

    {:ok, _configuration} =
      DSPex.configure(name,
        lms: [keyed: @unreachable, main: [model: "demo/knn", fallbacks: [:keyed, :knn]]],
        limits: [max_calls: 1]
      )

    {:ok, program} = DSPex.create(name, "question -> answer", lm: :main)
    :ok = ExUnit.Callbacks.stop_supervised(name)

    log =
      capture_log(fn ->
        Bridge.start([name: name] ++ options)

        assert {:ok, %Prediction{lm: "main"}} =
                 DSPex.execute(name, program.id, %{question: "Why?"})
      end)

    assert log =~ "the LMs keyed were configured with something secret"
    assert log =~ "the LM main of the journal is without its fallbacks keyed"

    assert {:error, %Error{code: :budget_exceeded}} =
             DSPex.execute(name, program.id, %{question: "Why?"})

    assert {:ok, %{"lms" => %{"main" => %{"fallbacks" => ["knn"]}}}} =
             DSPex.configure(name, adapter: :json)
  end
end
