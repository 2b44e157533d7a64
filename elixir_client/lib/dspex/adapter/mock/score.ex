defmodule DSPex.Adapter.Mock.Score do
  @moduledoc false
  # What a metric says of one prediction: the application's function, `exact_match`, or a judge.

  alias DSPex.Adapter.Mock.Run
  alias DSPex.{Error, Signature, Telemetry}
  alias DSPex.Metric.Agreement

  @spec of(map(), map(), map(), map(), map()) ::
          {:ok, number(), String.t() | nil} | {:error, Error.t()}
  def of(%{"callback" => name}, example, outputs, _program, request) do
    case request.metrics do
      %{^name => metric} -> called(name, metric, example, outputs, request)
      %{} -> {:error, Error.new(:metric_error, "the request has no metric #{inspect(name)}")}
    end
  end

  def of(%{"name" => "exact_match"} = metric, example, outputs, program, _request) do
    field = metric["field"] || only(program.signature.outputs)

    case example["outputs"] do
      %{^field => expected} ->
        {score, feedback} = Agreement.compare(%{field => expected}, outputs)
        {:ok, score, feedback}

      _without ->
        {:error, Error.new(:metric_error, "the example has no output #{inspect(field)}")}
    end
  end

  def of(%{"name" => name}, _example, _outputs, _program, _request) do
    text = "a mock has no metric #{name}: give it a function, :exact_match or a judge"
    {:error, Error.new(:unavailable, text)}
  end

  def of(%{"judge" => judge, "field" => field}, example, outputs, _program, request) do
    with {:ok, signature} <- Signature.fetch(judge["signature"]),
         program = %{
           id: "(judge)",
           signature: signature,
           made_of: judge,
           lineage: %{},
           revision: 1
         },
         inputs = %{"example" => example, "prediction" => outputs},
         {:ok, %{"outputs" => said}} <- Run.execute(program, inputs, %{}, request) do
      number(said[field], said["feedback"] || said["reasoning"])
    end
  end

  defp only([field]), do: to_string(field.name)
  defp only(_several), do: nil

  defp called(name, metric, example, outputs, request) do
    about = %{server: request.instance, kind: :metric, name: name, program: nil, request: 0}

    scored =
      Telemetry.callback(about, fn ->
        with {:ok, score, feedback} <- from_function(metric, example, outputs),
             do: {:ok, {score, feedback}}
      end)

    with {:ok, {score, feedback}} <- scored, do: {:ok, score, feedback}
  end

  defp from_function(metric, example, outputs) do
    case metric.(example, outputs, nil) do
      %{score: score} = scored -> number(score, Map.get(scored, :feedback))
      score -> number(score, nil)
    end
  rescue
    error ->
      cause = %{"code" => "metric_error", "message" => Exception.message(error), "data" => %{}}
      text = "the metric failed: #{Exception.message(error)}"
      {:error, Error.new(:metric_error, text, data: %{"cause" => cause})}
  end

  defp number(true, feedback), do: {:ok, 1.0, feedback}
  defp number(false, feedback), do: {:ok, 0.0, feedback}
  defp number(score, feedback) when is_number(score), do: {:ok, score * 1.0, feedback}

  defp number(other, _feedback) do
    text =
      "a score is a number or a boolean, not #{inspect(other, limit: 5, printable_limit: 80)}"

    {:error, Error.new(:metric_error, text)}
  end
end
