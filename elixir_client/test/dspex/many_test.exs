defmodule DSPex.ManyTest do
  # batch, evaluate, optimize, one-shot calls and cancels, against a bridge that the test plays.
  use ExUnit.Case, async: true

  @moduletag :protocol

  import DSPex.Test.Scripted
  import ExUnit.CaptureLog

  alias DSPex.{Batch, Error, Evaluation, Metric, Optimization, Progress, Signature, Tool}
  alias DSPex.Test.Peer

  @moduletag :capture_log

  {:ok, signature} =
    Signature.new({[question: :string, day: {:optional, :date}], [kind: {:one_of, [:a, :b]}]})

  @signature signature

  @answer %{usage: %{total_tokens: 3}, cost_usd: 0.5, duration_ms: 1.5}

  setup do
    {name, peer, listener} = ready()
    {program, _params, peer} = create(name, peer, @signature, program: "p")
    %{name: name, peer: peer, program: program, listener: listener}
  end

  # The test's own process listens, so it asks from here and another plays the bridge.
  defp playing(peer, play, ask) do
    bridge = Task.async(fn -> play.(peer) end)
    answer = ask.()
    {answer, Task.await(bridge, patience_ms())}
  end

  defp item(peer, id, index, outcome),
    do: Peer.message(peer, [2, "item", Map.merge(%{id: id, index: index}, outcome)])

  defp ok(kind), do: %{ok: outputs(%{kind: kind})}

  describe "a batch" do
    test "has its results in the order of the inputs, as they came one by one", context do
      test = self()

      play = fn peer ->
        {id, params, peer} = Peer.request(peer, "batch")
        peer = item(peer, id, 1, ok("b"))
        peer = Peer.message(peer, [2, "progress", %{id: id, step: 1, total: 2}])
        peer = item(peer, id, 0, %{error: %{code: "timeout", message: "late"}})
        Peer.respond(peer, id, Map.put(@answer, :results, []))
        params
      end

      ask = fn ->
        DSPex.batch(
          context.name,
          context.program,
          [%{question: "1", day: ~D[2024-02-29]}, [question: "2"]],
          max_concurrency: 2,
          on_item: fn at, {outcome, _} -> send(test, {:item, at, outcome}) end,
          on_progress: &send(test, &1)
        )
      end

      {{:ok, %Batch{} = batch}, params} = playing(context.peer, play, ask)

      assert [{:error, %Error{code: :timeout}}, {:ok, prediction}] = batch.results
      assert prediction.outputs == %{kind: :b}
      assert {batch.usage.total_tokens, batch.cost_usd, batch.duration_ms} == {3, 0.5, 1.5}
      assert_received {:item, 1, :ok}
      assert_received {:item, 0, :error}
      assert_received %Progress{step: 1, total: 2}

      assert %{"results" => false, "max_concurrency" => 2, "program" => "p"} = params

      assert [%{"question" => "1", "day" => "2024-02-29"}, %{"question" => "2"}] =
               params["inputs"]

      refute is_map_key(params, "timeout_ms")
    end

    test "refuses inputs that do not fit for themselves alone", context do
      play = fn peer ->
        {id, %{"inputs" => [_one]}, peer} = Peer.request(peer, "batch")
        peer |> item(id, 0, ok("a")) |> Peer.respond(id, Map.put(@answer, :results, []))
      end

      ask = fn ->
        DSPex.batch(context.name, context.program, [%{question: 7}, %{question: "2"}])
      end

      {{:ok, batch}, _peer} = playing(context.peer, play, ask)
      assert [{:error, %Error{code: :input_validation}}, {:ok, _prediction}] = batch.results
    end

    test "is cancelled by a listener that answers :stop, and told what became of it", context do
      play = fn peer ->
        {id, _params, peer} = Peer.request(peer, "batch")
        peer = item(peer, id, 0, ok("a"))
        assert {{:notification, "cancel", %{"id" => ^id}}, peer} = Peer.next(peer)
        Peer.fail(peer, id, "cancelled")
      end

      ask = fn ->
        inputs = [%{question: "1"}, %{question: "2"}]
        DSPex.batch(context.name, context.program, inputs, on_item: fn 0, _item -> :stop end)
      end

      assert {{:error, %Error{code: :cancelled}}, _peer} = playing(context.peer, play, ask)
      refute Enum.any?(Process.get_keys(), &match?({Batch, _}, &1))
    end

    test "takes a list of maps and nothing else", context do
      for {inputs, text} <- [{:no, "a list of maps"}, {[1], "inputs[0]: expected a map"}] do
        assert {:error, %Error{code: :invalid_params} = error} =
                 DSPex.batch(context.name, context.program, inputs)

        assert error.message =~ text
      end
    end
  end

  describe "an evaluation" do
    test "calls a metric in Elixir with the names and types of the signature", context do
      test = self()

      metric = fn example, prediction ->
        send(test, {example, prediction})
        {prediction.kind == example.outputs.kind, "well"}
      end

      play = fn peer ->
        {id, params, peer} = Peer.request(peer, "evaluate")
        [example] = params["devset"]
        %{"callback" => metric} = params["metric"]

        about = %{
          request: id,
          metric: metric,
          example: example,
          prediction: %{kind: "a"},
          meta: %{}
        }

        peer = Peer.message(peer, [0, 70, "call_metric", about])
        assert {{:response, 70, {:ok, told}}, peer} = Peer.next(peer)

        results = [
          %{score: 1.0, outputs: %{kind: "a"}, feedback: "well"},
          %{score: 0.0, error: %{code: "lm_error", message: "no"}}
        ]

        Peer.respond(peer, id, Map.merge(@answer, %{score: 0.5, results: results}))
        {example, told}
      end

      ask = fn ->
        example = %{inputs: %{question: "?", day: ~D[2024-02-29]}, outputs: %{kind: :a}}
        DSPex.evaluate(context.name, context.program, [example], metric: metric)
      end

      {{:ok, %Evaluation{} = evaluation}, {example, told}} = playing(context.peer, play, ask)

      assert_received {%{inputs: %{question: "?", day: ~D[2024-02-29]}, outputs: %{kind: :a}},
                       %{kind: :a}}

      assert told == %{"score" => true, "feedback" => "well"}
      assert example["inputs"] == %{"question" => "?", "day" => "2024-02-29"}
      assert evaluation.score == 0.5
      assert [%{score: 1.0, outputs: %{kind: :a}, feedback: "well"}, failed] = evaluation.results
      assert %{score: +0.0, error: %Error{code: :lm_error}} = failed
    end

    @devset [%{inputs: %{question: "?", day: ~D[2024-02-29]}, outputs: %{kind: :a}}]

    test "counts the examples that the metric failed on, and warns where that are all", context do
      failed = fn code ->
        %{score: 0.0, error: %{code: code, message: "oh no", retryable: false, data: %{}}}
      end

      scored = %{score: 1.0, outputs: %{kind: "a"}}

      for {results, options, count, warns?} <- [
            {[failed.("metric_error"), failed.("metric_error")], [], 2, true},
            # Of one that the program itself failed on it was not asked.
            {[failed.("metric_error"), failed.("lm_error")], [], 1, true},
            {[failed.("metric_error"), scored], [], 1, false},
            {[failed.("lm_error")], [], 0, false},
            {[scored], [], 0, false},
            {[], [results: false], nil, false}
          ] do
        log =
          capture_log(fn ->
            task =
              async(fn -> DSPex.evaluate(context.name, context.program, @devset, options) end)

            {id, _params, _peer} = Peer.request(context.peer, "evaluate")
            Peer.respond(context.peer, id, Map.merge(@answer, %{score: 0.0, results: results}))
            assert {:ok, %Evaluation{metric_errors: ^count}} = await(task)
          end)

        text = "the metric failed on all #{count} examples"
        assert {results, log =~ text} == {results, warns?}
        assert log =~ "oh no" == warns?
      end
    end

    test "is refused without examples, of which there is no mean", context do
      assert {:error, %Error{code: :invalid_params, message: message}} =
               DSPex.evaluate(context.name, context.program, [])

      assert message == "devset: expected at least 1 example, got none"
    end

    test "names built-in metrics and judges as the bridge knows them", context do
      for {metric, wire} <- [
            {:exact_match, %{"name" => "exact_match"}},
            {{:f1, :kind}, %{"name" => "f1", "field" => "kind"}},
            {{:numeric_close, "n", absolute_tolerance: 0.5},
             %{
               "name" => "numeric_close",
               "field" => "n",
               "params" => %{"absolute_tolerance" => 0.5}
             }}
          ] do
        task =
          async(fn -> DSPex.evaluate(context.name, context.program, @devset, metric: metric) end)

        {id, params, _peer} = Peer.request(context.peer, "evaluate")
        assert params["metric"] == wire
        Peer.respond(context.peer, id, Map.merge(@answer, %{score: 0.0, results: []}))
        assert {:ok, %Evaluation{results: []}} = await(task)
      end

      judge =
        {:judge, "example: any, prediction: any -> ok: bool", :ok, module: :chain_of_thought}

      task =
        async(fn -> DSPex.evaluate(context.name, context.program, @devset, metric: judge) end)

      {id, params, _peer} = Peer.request(context.peer, "evaluate")

      assert %{"field" => "ok", "judge" => %{"module" => "chain_of_thought", "signature" => %{}}} =
               params["metric"]

      Peer.respond(context.peer, id, Map.merge(@answer, %{score: 0.0, results: []}))
      assert {:ok, _evaluation} = await(task)
    end

    test "is told what a metric may be", context do
      for {metric, text} <- [
            {:exact_mach, "not :exact_mach (did you mean :exact_match?)"},
            {fn -> 1 end, "expected a function of an example and a prediction"}
          ] do
        assert {:error, %Error{code: :invalid_params} = error} =
                 DSPex.evaluate(context.name, context.program, @devset, metric: metric)

        assert error.message =~ text
      end

      assert {:error, %Error{code: :invalid_params, message: "option :metric: needed" <> _}} =
               DSPex.evaluate(context.name, "unknown here", @devset)
    end

    test "compares the outputs where it is given no metric", context do
      task = async(fn -> DSPex.evaluate(context.name, context.program, @devset) end)
      {id, params, _peer} = Peer.request(context.peer, "evaluate")
      assert params["metric"] == %{"name" => "exact_match", "field" => "kind"}
      Peer.respond(context.peer, id, Map.merge(@answer, %{score: 0.0, results: []}))
      assert {:ok, _evaluation} = await(task)
    end

    test "of several outputs gives the share that is the same, and says what is not" do
      {:ok, signature} = DSPex.Signature.new("q -> a, b: int")
      metric = Metric.default(signature)
      example = %{inputs: %{q: "?"}, outputs: %{a: "The Eiffel tower!", b: 2}}
      assert metric.(example, %{a: "eiffel  Tower", b: 2, reasoning: "r"}) == 1.0
      assert metric.(example, %{a: "the eiffel tower", b: 3}) == {0.5, "b: expected 2, got 3"}
      assert {+0.0, _feedback} = metric.(example, %{})

      assert_raise ArgumentError, ~r/no outputs to compare/, fn ->
        metric.(%{example | outputs: %{}}, %{})
      end
    end
  end

  describe "an optimization" do
    defp optimize(context, options) do
      example = %{inputs: %{question: "?"}, outputs: %{kind: :a}}
      DSPex.optimize(context.name, context.program, [example], options)
    end

    defp optimized(peer, id, params, state) do
      answer = %{
        program: params["save_as"],
        base_program: "p",
        score: 0.75,
        base_score: 0.5,
        trials: [],
        stopped: nil,
        state: state
      }

      Peer.respond(peer, id, Map.merge(@answer, answer))
    end

    defp described(peer, variables \\ %{}) do
      {id, %{"program" => program}, peer} = Peer.request(peer, "describe")
      about = %{program: program, module: "predict", revision: 1, variables: variables}
      Peer.respond(peer, id, Map.merge(about, %{input_schema: %{}, output_schema: %{}}))
    end

    test "gives a program that the next Python has, too", context do
      state = %{"format_version" => 1, "signature" => "q -> a", "module" => "predict"}

      play = fn peer ->
        {id, params, peer} = peer |> described() |> Peer.request("optimize")
        told = %{id: id, phase: "compile", step: 1, total: 2, message: "m", best_score: 0.75}
        peer = Peer.message(peer, [2, "progress", told])
        {params, optimized(peer, id, params, state)}
      end

      ask = fn ->
        optimize(context,
          optimizer: {:mipro_v2, auto: :light},
          metric: :exact_match,
          save_as: "better",
          seed: 7,
          on_stop: :best,
          checkpoint: "c",
          limits: [max_calls: 9],
          on_progress: &send(self(), &1)
        )
      end

      {{:ok, %Optimization{} = optimization}, {params, peer}} = playing(context.peer, play, ask)

      assert optimization.program.id == "better"
      assert optimization.program.signature == @signature
      assert {optimization.score, optimization.base_score} == {0.75, 0.5}
      assert optimization.state == state
      assert_received %Progress{phase: "compile", step: 1, best_score: 0.75}

      assert %{
               "optimizer" => %{"name" => "mipro_v2", "params" => %{"auto" => "light"}},
               "metric" => %{"name" => "exact_match"},
               "on_stop" => "best",
               "checkpoint" => "c",
               "seed" => 7,
               "limits" => %{"max_calls" => 9},
               "trainset" => [%{"inputs" => %{"question" => "?"}, "outputs" => %{"kind" => "a"}}]
             } = params

      Peer.kill(peer)
      {_hello, peer} = context.listener |> Peer.accept() |> Peer.handshake()
      task = async(fn -> DSPex.execute(context.name, "better", %{question: "?"}) end)
      {told, id, peer} = restored(peer, "execute")
      assert {"load", %{"program" => "better", "state" => state, "replace" => true}} in told
      Peer.respond(peer, id, outputs(%{kind: "b"}))
      assert {:ok, prediction} = await(task)
      assert prediction[:kind] == :b
    end

    # What the next Python is told, in any order, before this request.
    defp restored(peer, method, told \\ []) do
      case Peer.next(peer) do
        {{:request, id, ^method, _params}, peer} ->
          {told, id, peer}

        {{:request, id, other, params}, peer} ->
          restored(Peer.respond(peer, id, created(params)), method, [{other, params} | told])
      end
    end

    test "chooses what suits the program where it is told nothing", context do
      for {variables, optimizer} <- [
            {%{}, %{"name" => "bootstrap_few_shot_random_search", "params" => %{}}},
            {%{temperature: %{kind: "float"}},
             %{"name" => "variables", "params" => %{"strategy" => "random"}}}
          ] do
        play = fn peer ->
          {id, params, peer} = peer |> described(variables) |> Peer.request("optimize")
          optimized(peer, id, params, %{"module" => "predict"})
          params
        end

        {{:ok, optimization}, params} =
          playing(context.peer, play, fn -> optimize(context, []) end)

        assert params["optimizer"] == optimizer
        assert params["metric"] == %{"name" => "exact_match", "field" => "kind"}
        assert optimization.program.id == params["save_as"]
      end
    end

    test "whose Python is killed says how it would go on where it was", context do
      task = async(fn -> optimize(context, []) end)
      {_id, _params, peer} = context.peer |> described() |> Peer.request("optimize")
      Peer.kill(peer)
      assert {:error, %Error{code: :connection_lost, retryable: false} = error} = await(task)
      assert Exception.message(error) =~ "Give `DSPex.optimize/4` a `checkpoint:`"
      refute Exception.message(error) =~ "retry:"
    end

    test "that fails is in no journal", context do
      task = async(fn -> optimize(context, save_as: "worse") end)
      {id, _params, peer} = context.peer |> described() |> Peer.request("optimize")
      Peer.fail(peer, id, "optimizer_error")
      assert {:error, %Error{code: :optimizer_error}} = await(task)
      assert DSPex.Instance.signature(context.name, "worse") == nil
    end
  end

  describe "a call of a program that is registered nowhere" do
    test "sends it along, with tools that are its own", context do
      tool = Tool.new(:add, "Adds.", [a: :integer], fn %{a: a} -> a + 1 end)

      task =
        async(fn ->
          DSPex.call(context.name, @signature, %{question: "?"},
            module: :react,
            tools: [tool],
            meta: %{who: "me"}
          )
        end)

      {id, params, peer} = Peer.request(context.peer, "execute")

      assert %{"program" => %{"module" => "react", "signature" => %{}}, "meta" => %{}} = params
      refute is_map_key(params["program"], "program")

      call = %{program: "(inline)", request: id, tool: "add", args: %{a: 2}, meta: %{}}
      peer = Peer.message(peer, [0, 0, "call_tool", call])
      assert {{:response, 0, {:ok, 3}}, peer} = Peer.next(peer)
      Peer.respond(peer, id, outputs(%{kind: "b"}))
      assert {:ok, prediction} = await(task)
      assert prediction[:kind] == :b
    end
  end

  describe "an execution that was only begun" do
    test "is awaited where it was begun, in any order", context do
      {:ok, first} = DSPex.async(context.name, "p", %{question: "1"})
      {:ok, second} = DSPex.async(context.name, "p", %{question: "2"})
      {id, %{"inputs" => %{"question" => "1"}}, peer} = Peer.request(context.peer, "execute")
      {other, _params, peer} = Peer.request(peer, "execute")

      peer
      |> Peer.respond(id, outputs(%{kind: "a"}))
      |> Peer.respond(other, outputs(%{kind: "b"}))

      assert {:ok, %{outputs: %{kind: :b}}} = DSPex.await(second)
      assert {:ok, %{outputs: %{kind: :a}}} = DSPex.await(first)
      refute_received _anything

      stranger = Task.async(fn -> catch_error(DSPex.await(first)) end)

      assert Exception.message(Task.await(stranger, patience_ms())) =~
               "only #{inspect(self())}, which began it"
    end

    test "is cancelled from anywhere, and who awaits it is told", context do
      {:ok, begun} = DSPex.async(context.name, "p", %{question: "1"})
      {id, _params, peer} = Peer.request(context.peer, "execute")
      assert :ok = Task.await(Task.async(fn -> DSPex.cancel(begun) end), patience_ms())
      assert {{:notification, "cancel", %{"id" => ^id}}, peer} = Peer.next(peer)
      Peer.fail(peer, id, "cancelled")
      assert {:error, %Error{code: :cancelled}} = DSPex.await(begun)
      assert DSPex.cancel(begun) == :ok
    end

    test "and not sent yet is cancelled without a word to Python" do
      {listener, command} = Peer.listen()
      name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
      start(name: name, command: command)
      peer = Peer.accept(listener)
      {:ok, begun} = DSPex.async(name, "p", %{question: "1"})
      DSPex.cancel(begun)
      assert {:error, %Error{code: :cancelled}} = DSPex.await(begun)
      {_hello, peer} = Peer.handshake(peer)
      task = async(fn -> DSPex.ping(name) end)
      assert {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: nil})
      assert {:ok, nil} = await(task)
    end
  end
end
