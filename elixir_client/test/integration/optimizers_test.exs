defmodule DSPex.Integration.OptimizersTest do
  # The optimizers that work by demonstrations and the search over variables, from Elixir to their end:
  # each raises the score on examples that it has not seen. Offline, with the embedded LM.
  use ExUnit.Case, async: true

  alias DSPex.Optimization
  alias DSPex.Test.{Bridge, SupportMessages}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 180_000

  @seed 7

  # Few enough that all of it takes seconds, and enough that a gain is none of a single example.
  @train 60
  @val 24
  @held_out 60

  # What a better program gains on the held-out examples at least. All of them gain about twice that
  # and more: the seed is fixed, and the LM answers the same to the same.
  @least_gain 0.1

  defmodule Desk do
    @moduledoc "Which department does the message go to?"
    use DSPex.Program, server: DSPex.Integration.OptimizersTest.Instance

    defschema InputSchema do
      field(:message, :string, required: true)
    end

    defschema OutputSchema do
      field(:department, {:one_of, [:billing, :accounts, :engineering, :integrations, :sales]})
    end
  end

  defmodule VariedDesk do
    @moduledoc "Which department does the message go to?"
    use DSPex.Program, server: DSPex.Integration.OptimizersTest.Instance

    defschema InputSchema do
      field(:message, :string, required: true)
      field(:temperature, :probability, default: 0.7, variable: true)

      field(:examples, :integer,
        default: 0,
        variable: [applies_to: "demos.k", low: 0, high: 30]
      )
    end

    defschema OutputSchema do
      field(:department, {:one_of, [:billing, :accounts, :engineering, :integrations, :sales]})
    end
  end

  setup_all do
    name =
      Bridge.start(
        name: __MODULE__.Instance,
        lms: [knn: "demo/knn"],
        embedders: [words: "demo/tfidf"]
      )

    %{
      name: name,
      train: SupportMessages.examples(:train, @train),
      val: SupportMessages.examples(:val, @val),
      held_out: SupportMessages.examples(:test, @held_out)
    }
  end

  for {optimizer, params} <- [
        labeled_few_shot: [k: 24],
        bootstrap_few_shot: [max_bootstrapped_demos: 8, max_labeled_demos: 24],
        bootstrap_few_shot_random_search: [max_labeled_demos: 24, num_candidate_programs: 1],
        bootstrap_few_shot_optuna: [max_labeled_demos: 24, num_candidate_programs: 3],
        knn_few_shot: [k: 5, embedder: "words"],
        # What the embedded LM writes where it is asked for instructions means nothing: the gain is
        # that of the demonstrations.
        mipro_v2: [max_labeled_demos: 16, num_candidates: 3, num_trials: 3, minibatch: false]
      ] do
    test "#{optimizer} raises the score on examples that it has not seen", context do
      %{name: name, train: train, val: val, held_out: held_out} = context

      assert {:ok, %Optimization{} = optimization} =
               DSPex.optimize(name, Desk, train,
                 valset: val,
                 metric: {:exact_match, :department},
                 optimizer: {unquote(optimizer), unquote(params)},
                 seed: @seed
               )

      assert optimization.stopped == nil
      assert optimization.metric_errors == []
      assert optimization.score > optimization.base_score
      assert optimization.comparison["examples"] == @val
      assert optimization.state["lineage"]["optimizer"]["name"] == "#{unquote(optimizer)}"
      assert Enum.any?(optimization.changes, &(&1 =~ ~r/: 0 -> \d+ demonstrations/))
      # Only that one writes instructions.
      written? = Enum.any?(optimization.changes, &String.starts_with?(&1, "+"))
      assert written? == (unquote(optimizer) == :mipro_v2)
      assert_gain(name, Desk, optimization.program, held_out)
    end
  end

  test "in one line, the variables of a program are searched, and what is found is better",
       context do
    %{name: name, train: train, held_out: held_out} = context

    assert {:ok, %Optimization{} = optimization} =
             DSPex.optimize(VariedDesk, Enum.take(train, 40))

    assert %{"values" => %{"examples" => examples, "temperature" => _}, "trials" => trials} =
             optimization.variables

    assert length(trials) == 20

    assert optimization.variables["values"] in Enum.map(
             optimization.variables["pareto"],
             & &1["values"]
           )

    assert length(optimization.state["predictors"]["self"]["demos"]) == examples
    assert_gain(name, VariedDesk, optimization.program, held_out)
  end

  test "the examples of the three splits have no message in common", context do
    %{train: train, val: val, held_out: held_out} = context
    messages = Enum.map(train ++ val ++ held_out, & &1.inputs.message)
    assert length(Enum.uniq(messages)) == @train + @val + @held_out
  end

  defp assert_gain(name, before, better, held_out) do
    before = score(name, before, held_out)
    assert score(name, better, held_out) >= before + @least_gain
  end

  defp score(name, program, examples) do
    assert {:ok, evaluation} =
             DSPex.evaluate(name, program, examples, metric: {:exact_match, :department})

    refute Enum.any?(evaluation.results, &is_map_key(&1, :error))
    evaluation.score
  end
end
