defmodule DSPex.Integration.OptimizeTest do
  # batch, evaluate and optimize through the real bridge, with metrics in Elixir.
  use ExUnit.Case, async: true

  alias DSPex.{Batch, Evaluation, Optimization, Progress}
  alias DSPex.Test.{Bridge, Folder, Peer}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 180_000

  defmodule Sorter do
    @moduledoc "Sort a word."
    use DSPex.Program, server: DSPex.Integration.OptimizeTest.Instance

    defschema InputSchema do
      field(:word, :string, required: true)
    end

    defschema OutputSchema do
      field(:kind, {:one_of, [:fruit, :tool]})
    end
  end

  @trainset for {word, kind} <- [{"a red apple", :fruit}, {"a steel hammer", :tool}],
                do: %{inputs: %{word: word}, outputs: %{kind: kind}}

  setup_all do
    folder = Folder.make()
    command = Bridge.command() ++ ["--state-dir", folder]

    name =
      Bridge.start(
        name: __MODULE__.Instance,
        command: command,
        # The other one is not asked, but optimizers are told of all, and its family is a special one.
        lms: [knn: "demo/knn", other: [model: "openai/gpt-5-mini", api_key: "sk-local"]],
        default_lm: :knn
      )

    %{name: name}
  end

  test "a module's program is run on many, scored and optimized; what comes of it survives Python",
       %{name: name} do
    assert {:ok, %Batch{results: [ok: _, ok: _], cost_usd: +0.0}} =
             DSPex.batch(Sorter, [%{word: "apple"}, [word: "hammer"]])

    metric = fn example, prediction -> prediction.kind == example.outputs.kind end
    assert {:ok, %Evaluation{} = before} = DSPex.evaluate(Sorter, @trainset, metric: metric)
    test = self()

    assert {:ok, %Optimization{} = optimization} =
             DSPex.optimize(Sorter, @trainset,
               optimizer: {:labeled_few_shot, k: 2},
               metric: metric,
               on_progress: &send(test, &1)
             )

    assert_received %Progress{}
    id = optimization.program.id
    assert {:ok, after_it} = DSPex.evaluate(name, id, @trainset, metric: {:exact_match, :kind})
    assert after_it.score == 1.0
    assert after_it.score >= before.score

    {:ok, state} = DSPex.dump(name, id)
    assert state == optimization.state
    Peer.kill(%{os_pid: Bridge.os_pid(name)})
    # The call may meet the end of that Python; it is one that may be made again.
    assert {:ok, again} = Peer.eventually(fn -> match_ok(DSPex.dump(name, id)) end)
    assert again["predictors"] == state["predictors"]
    assert {:ok, %{score: 1.0}} = DSPex.evaluate(name, id, @trainset, metric: metric)
  end

  test "a module is optimized in one line, and its better state stands in for it", %{name: name} do
    assert {:ok, %Optimization{} = optimization} = DSPex.optimize(Sorter, @trainset)
    assert optimization.score >= optimization.base_score
    assert [%{"trial" => 0} | _others] = optimization.trials
    assert optimization.comparison["examples"] == 2
    assert optimization.metric_calls > 0
    refute optimization.state["predictors"]["self"]["demos"] == []

    assert {:ok, _program} = DSPex.load(name, optimization.state, program: Sorter, replace: true)

    # The module is not made anew over it, and the names and types are still its own.
    assert {:ok, %{outputs: %{kind: kind}}} = Sorter.predict(%{word: "a steel hammer"})
    assert kind in [:fruit, :tool]
    assert {:ok, state} = DSPex.dump(name, Sorter)
    assert state["predictors"] == optimization.state["predictors"]

    assert {:error, %{code: :invalid_params, message: message}} =
             DSPex.load(name, %{state | "signature" => "other -> kind"}, program: Sorter)

    assert message =~ "the state is of other"
    assert :ok = DSPex.delete(name, Sorter)
  end

  defp match_ok({:ok, _} = ok), do: ok
  defp match_ok({:error, %{retryable: true}}), do: nil

  test "a program is called once, begun and awaited, saved and loaded", %{name: name} do
    demos = @trainset
    options = [demos: demos, lm: :knn]
    assert {:ok, prediction} = DSPex.call(name, Sorter, %{word: "hammer"}, options)
    assert prediction[:kind] == :tool

    {:ok, program} = DSPex.create(name, Sorter, program: "sorter", demos: demos)
    {:ok, begun} = DSPex.async(name, program, %{word: "apple"})
    assert {:ok, %{outputs: %{kind: :fruit}}} = DSPex.await(begun)

    assert {:ok, %{"path" => "a/sorter.json"}} = DSPex.save(name, program, "a/sorter.json")
    assert {:ok, loaded} = DSPex.load(name, "a/sorter.json", program: "copy")
    assert {:ok, prediction} = DSPex.execute(name, loaded, %{"word" => "hammer"})
    assert prediction["kind"] == "tool"
    assert {:error, %{code: :invalid_params}} = DSPex.load(name, "../sorter.json")
  end
end
