defmodule DSPex.Evaluation do
  @moduledoc """
  What `DSPex.evaluate/4` gives.

    * `:score` - the mean of all examples' scores, where one that failed counts 0.
    * `:results` - in the order of the examples: `%{score: s, outputs: outputs, feedback: text}` with a
      feedback that may be `nil`, or `%{score: 0, error: error}`.
    * `:metric_errors` - on how many examples the metric failed, each of which counts 0: their `error`
      has the code `:metric_error`. Where nothing was scored for that, a warning in the log says so.
      `nil` without results.
    * `:usage`, `:cost_usd` - of all LM calls, those of a judge too.
    * `:duration_ms` - how long the bridge took.
  """

  import DSPex.Arguments

  require Logger

  alias DSPex.{Adapter, Arguments, Error, Execution, Metric, Options, Progress, Usage}

  @type t :: %__MODULE__{
          score: float(),
          results: [map()],
          metric_errors: non_neg_integer() | nil,
          usage: map(),
          cost_usd: float() | nil,
          duration_ms: number()
        }

  @enforce_keys [:score, :results]
  defstruct [:score, :results, :metric_errors, :cost_usd, usage: Usage.none(), duration_ms: 0]

  @schema [
            metric:
              {{:is, &Metric.option/1},
               "see `DSPex.Metric`; without it, that the outputs are those of the example."}
          ] ++
            Execution.lm_schema() ++
            [
              max_concurrency:
                {{:integer, 1, 4096}, "how many run at one time; 16 where it is not given."},
              results: {:boolean, "whether the results of the examples are wanted.", true},
              on_progress:
                {{:is, &Arguments.listener/1},
                 "a function of a `DSPex.Progress`, called in this process; where it answers " <>
                   "`:stop`, the evaluation is cancelled."}
            ] ++
            Execution.meta_schema() ++
            [
              timeout:
                {:timeout, "milliseconds until the work is cancelled, or `:infinity`.", :infinity}
            ]

  @doc false
  @spec schema() :: Options.schema()
  def schema, do: @schema

  @doc false
  @spec run(atom(), term(), term(), keyword()) :: {:ok, t()} | {:error, Error.t()}
  def run(server, program, devset, options) do
    with {:ok, options} <- check(options, @schema),
         {own, options} = Keyword.split(options, [:timeout, :on_progress, :metric]),
         {:ok, id, signature, timeout} <- Execution.program(server, program, own[:timeout]),
         {:ok, metric} <- metric(own[:metric], signature),
         {:ok, devset} <- examples(devset, signature, "devset"),
         :ok <- not_empty(devset),
         {:ok, metric, functions} <- Metric.to_wire(metric, signature),
         params = Map.merge(Map.new(options), %{program: id, devset: devset, metric: metric}),
         {:ok, answer} <-
           Adapter.request(server, "evaluate", DSPex.Config.reveal(params), timeout,
             metrics: functions,
             listener: Progress.listener(own[:on_progress])
           ),
         do: evaluation(answer, signature, options[:results])
  end

  # Of no examples there is no mean, and 0 would be taken for a bad program.
  defp not_empty([]), do: invalid("devset: expected at least 1 example, got none")
  defp not_empty(_some), do: :ok

  defp metric(nil, nil),
    do: invalid("option :metric: needed, because this client does not know the program's outputs")

  defp metric(metric, signature), do: {:ok, metric || Metric.default(signature)}

  defp evaluation(%{"score" => score, "results" => results} = answer, signature, results?)
       when is_number(score) and is_list(results) do
    results = Enum.map(results, &result(&1, signature))
    metric_errors = for %{error: %Error{code: :metric_error} = error} <- results, do: error
    if Enum.all?(results, &is_map_key(&1, :error)), do: warn(metric_errors)

    {:ok,
     %__MODULE__{
       score: score,
       results: results,
       metric_errors: if(results?, do: length(metric_errors)),
       usage: Usage.from_wire(answer["usage"]),
       cost_usd: answer["cost_usd"],
       duration_ms: Map.get(answer, "duration_ms", 0)
     }}
  end

  defp evaluation(answer, _signature, _results?), do: unexpected("evaluate", answer)

  # A score of 0 looks like a program that is always wrong.
  defp warn([]), do: :ok

  defp warn([%Error{message: first} | _others] = metric_errors) do
    Logger.warning(
      "DSPex: the metric failed on all #{length(metric_errors)} examples that it was to score, and " <>
        "the score of 0 says nothing of the program; the first: #{first}"
    )
  end

  defp result(%{"score" => score, "outputs" => outputs} = result, signature)
       when is_map(outputs) do
    case Execution.load_outputs(signature, outputs) do
      {:ok, outputs} -> %{score: score, outputs: outputs, feedback: result["feedback"]}
      {:error, error} -> %{score: score, error: error}
    end
  end

  defp result(%{"score" => score, "error" => error} = result, _signature) do
    case Error.from_wire(error) do
      {:ok, error} -> %{score: score, error: error}
      :error -> failed(result)
    end
  end

  defp result(other, _signature), do: failed(other)

  defp failed(result) do
    {:error, error} = unexpected("evaluate", result)
    %{score: 0, error: error}
  end
end
