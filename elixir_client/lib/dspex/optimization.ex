defmodule DSPex.Optimization do
  @moduledoc """
  What `DSPex.optimize/4` gives.

    * `:program` - the new program, a `DSPex.Program`; the one that was optimized stays as it is.
    * `:base_program` - the id of that one.
    * `:score`, `:base_score` - of the new and of the old one, `nil` where nothing was scored.
    * `:comparison` - of both on the whole valset, a map with string keys: the scores by example, and
      the intervals in which their means and their difference lie; `nil` where one was not scored.
    * `:changes` - what is different, in lines for a person: instructions as a diff.
    * `:trials` - what was tried, a list of maps with string keys, and `:best_trial` of them.
    * `:variables` - of a search over variables: the values that were chosen, all trials, and the
      front of those that no other beats; else `nil`.
    * `:metric_calls`, `:metric_errors` - how often a metric was asked, and how it failed.
    * `:stopped` - why it ended early: `"cancelled"`, `"timeout"` or `"budget"`; else `nil`.
    * `:checkpoint` - how many answers came from it and went there, where there is one.
    * `:state` - the new program's state, as `DSPex.dump/2` gives it.
    * `:usage`, `:cost_usd`, `:duration_ms` - what it took.
  """

  import DSPex.Arguments

  alias DSPex.{Adapter, Arguments, Deadline, Error, Execution, Metric, Options, Program, Programs}
  alias DSPex.{Progress, Signature, Usage}

  @type t :: %__MODULE__{
          program: Program.t(),
          base_program: String.t(),
          score: number() | nil,
          base_score: number() | nil,
          comparison: map() | nil,
          changes: [String.t()],
          trials: [map()],
          best_trial: non_neg_integer() | nil,
          variables: map() | nil,
          metric_calls: non_neg_integer(),
          metric_errors: [Error.t()],
          stopped: String.t() | nil,
          checkpoint: map() | nil,
          state: map(),
          usage: map(),
          cost_usd: float() | nil,
          duration_ms: number()
        }

  @enforce_keys [:program, :base_program, :state]
  defstruct [
    :program,
    :base_program,
    :score,
    :base_score,
    :comparison,
    :best_trial,
    :variables,
    :stopped,
    :checkpoint,
    :state,
    :cost_usd,
    changes: [],
    trials: [],
    metric_calls: 0,
    metric_errors: [],
    usage: Usage.none(),
    duration_ms: 0
  ]

  # Neither needs a package beside DSPy, as the other strategies for variables do.
  @search_variables {:variables, %{strategy: "random"}}
  @search_demonstrations {:bootstrap_few_shot_random_search, %{}}

  # What the bridge may take, after a deadline, to gather the best program so far, and a moment for that
  # to come: an answer that nobody waits for any more is a program lost.
  @gathering_ms 2_050

  @schema [
            metric:
              {{:is, &Metric.option/1},
               "see `DSPex.Metric`; without it, that the outputs are those of the example."},
            optimizer:
              {{:is, &__MODULE__.optimizer/1},
               "its name, or `{name, parameters}`: `:labeled_few_shot`, `:bootstrap_few_shot`, " <>
                 "`:bootstrap_few_shot_random_search`, `:bootstrap_few_shot_optuna`, `:knn_few_shot`, " <>
                 "`:copro`, `:mipro_v2`, `:simba`, `:gepa`, `:infer_rules`, `:ensemble` or " <>
                 "`:variables`. Without it `:variables` at random where the program has any, else " <>
                 "`:bootstrap_few_shot_random_search`."},
            valset: {:list, "examples to choose by; the trainset where there are none."},
            save_as: {:name, "the id of the new program; one is made where there is none."},
            seed: {{:integer, 0, :infinity}, "the same seed and answers give the same program."},
            checkpoint:
              {:string,
               "the name of a file in the bridge's `--state-dir`: begun again with the same, it goes " <>
                 "on where it was."},
            on_stop:
              {:name,
               "`:discard`, or `:best`: one that is cancelled, late or out of budget gives the best " <>
                 "program so far. A late one gives it within 2 seconds of its `timeout:`."},
            include: {:list, "`[:candidates]`: they come with the progress."},
            on_progress:
              {{:is, &Arguments.listener/1},
               "a function of a `DSPex.Progress`, called in this process; where it answers `:stop`, " <>
                 "the optimization is cancelled."}
          ] ++
            Keyword.take(Execution.lm_schema(), [:limits]) ++
            Execution.meta_schema() ++
            [
              timeout:
                {:timeout, "milliseconds until the work is cancelled, or `:infinity`.", :infinity}
            ]

  @doc false
  @spec schema() :: Options.schema()
  def schema, do: @schema

  @doc false
  def optimizer({name, params}) when is_atom(name) or is_binary(name) do
    if is_map(params) or Keyword.keyword?(params),
      do: {:ok, {name, Map.new(params)}},
      else: {:error, "the parameters of an optimizer are a keyword list or a map"}
  end

  def optimizer(name) when (is_atom(name) and name not in [nil, true, false]) or is_binary(name),
    do: {:ok, {name, %{}}}

  def optimizer(_other), do: {:error, "expected an optimizer's name, or {name, parameters}"}

  @doc false
  @spec run(atom(), term(), term(), keyword()) :: {:ok, t()} | {:error, Error.t()}
  def run(server, program, trainset, options) do
    with {:ok, options} <- check(options, @schema),
         {own, options} =
           Keyword.split(options, [:timeout, :on_progress, :metric, :optimizer, :valset]),
         {:ok, id, signature, timeout} <- Execution.program(server, program, own[:timeout]),
         {:ok, base, timeout} <- Deadline.step(timeout, &base(server, id, signature, &1)),
         {:ok, trainset} <- examples(trainset, base.signature, "trainset"),
         {:ok, valset} <- examples(own[:valset] || [], base.signature, "valset"),
         metric = own[:metric] || Metric.default(base.signature),
         {:ok, metric, functions} <- Metric.to_wire(metric, signature) do
      {optimizer, optimizer_params} = own[:optimizer] || base.optimizer

      params =
        options
        |> Map.new()
        |> Map.put(:program, id)
        |> Map.put(:metric, metric)
        |> Map.put(:optimizer, %{name: optimizer, params: optimizer_params})
        |> Map.put(:trainset, trainset)
        |> Map.put_new_lazy(:save_as, &make_id/0)

      params = if valset == [], do: params, else: Map.put(params, :valset, valset)
      tools = Adapter.tools(server, id)

      # The bridge knows the new program by its state alone until it is told again.
      entry = fn _body -> {:derived, params.save_as, base.signature, tools} end

      with {:ok, answer} <-
             Adapter.request(server, "optimize", params, timeout,
               metrics: functions,
               grace: grace(params),
               listener: Progress.listener(own[:on_progress]),
               entry: entry
             ),
           do: optimization(answer, base)
    end
  end

  defp grace(%{on_stop: :best}), do: @gathering_ms
  defp grace(%{on_stop: "best"}), do: @gathering_ms
  defp grace(_ends_at_once), do: nil

  # Asked for before the work, so that nothing can go wrong after it.
  defp base(server, id, signature, timeout) do
    with {:ok, about} <- Programs.describe(server, id, timeout),
         {:ok, signature} <- if(signature, do: {:ok, signature}, else: about_signature(about)) do
      optimizer =
        if about["variables"] in [nil, %{}], do: @search_demonstrations, else: @search_variables

      {:ok,
       %{
         signature: signature,
         optimizer: optimizer,
         schemas: {Map.get(about, "input_schema", %{}), Map.get(about, "output_schema", %{})}
       }}
    end
  end

  defp about_signature(%{"signature" => signature}), do: Signature.fetch(signature)
  defp about_signature(about), do: unexpected("describe", about)

  defp optimization(%{"program" => id, "state" => %{"module" => module} = state} = answer, base) do
    {input_schema, output_schema} = base.schemas

    {:ok,
     %__MODULE__{
       program: %Program{
         id: id,
         module: module,
         signature: base.signature,
         revision: 1,
         input_schema: input_schema,
         output_schema: output_schema
       },
       base_program: answer["base_program"],
       score: answer["score"],
       base_score: answer["base_score"],
       comparison: answer["comparison"],
       changes: Map.get(answer, "changes", []),
       trials: Map.get(answer, "trials", []),
       best_trial: answer["best_trial"],
       variables: answer["variables"],
       metric_calls: Map.get(answer, "metric_calls", 0),
       metric_errors: for(error <- Map.get(answer, "metric_errors", []), do: error(error)),
       stopped: answer["stopped"],
       checkpoint: answer["checkpoint"],
       state: state,
       usage: Usage.from_wire(answer["usage"]),
       cost_usd: answer["cost_usd"],
       duration_ms: Map.get(answer, "duration_ms", 0)
     }}
  end

  defp optimization(answer, _base), do: unexpected("optimize", answer)

  defp error(error) do
    case Error.from_wire(error) do
      {:ok, error} ->
        error

      :error ->
        {:error, error} = unexpected("optimize", error)
        error
    end
  end
end
