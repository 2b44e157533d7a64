defmodule DSPex.Adapter.Mock.Optimizer do
  @moduledoc false
  # What a mock does for `optimize`: the first examples of the trainset become demonstrations, whatever
  # optimizer is asked for, and both programs are scored.

  alias DSPex.Adapter.Mock.Run

  @demonstrations 4

  @spec run(map(), map(), map()) :: {:ok, map(), map()} | {:error, DSPex.Error.t()}
  def run(program, params, request) do
    began = System.monotonic_time(:millisecond)
    valset = params["valset"] || params["trainset"]
    demos = Enum.take(params["trainset"], @demonstrations)
    # Notifications of the evaluations are no progress of this request's.
    quiet = %{request | listens?: false}
    scoring = %{"devset" => valset, "metric" => params["metric"]}

    tell(request, 0, "start", "#{length(params["trainset"])} examples", {nil, nil})

    with {:ok, base} <- Run.evaluate(program, scoring, quiet),
         :ok <-
           tell(request, 0, "baseline", "the program as it is", {base["score"], base["score"]}),
         better = put_in(program.made_of["demos"], demos),
         {:ok, scored} <- Run.evaluate(better, scoring, quiet) do
      best = max(base["score"], scored["score"])

      tell(
        request,
        1,
        "evaluate",
        "with #{length(demos)} demonstrations",
        {scored["score"], best}
      )

      lineage = %{
        "base_program" => program.id,
        "base_revision" => program.revision,
        "optimizer" => params["optimizer"]["name"],
        "seed" => Map.get(params, "seed", 0),
        "score" => scored["score"],
        "base_score" => base["score"]
      }

      {:ok, %{better | id: params["save_as"], lineage: lineage, revision: 1},
       result(program, base, scored, demos, began)}
    end
  end

  defp tell(request, step, phase, message, {score, best}) do
    Run.notify(request, "progress", %{
      "step" => step,
      "total" => 1,
      "phase" => phase,
      "message" => message,
      "score" => score,
      "best_score" => best
    })
  end

  defp result(program, base, scored, demos, began) do
    examples = length(base["results"])

    usage = Map.merge(base["usage"], scored["usage"], fn _key, one, other -> one + other end)

    %{
      "base_program" => program.id,
      "score" => scored["score"],
      "base_score" => base["score"],
      "comparison" => nil,
      "changes" => [
        "self: #{length(program.made_of["demos"])} -> #{length(demos)} demonstrations"
      ],
      "trials" => [
        %{"trial" => 0, "score" => base["score"], "examples" => examples},
        %{"trial" => 1, "score" => scored["score"], "examples" => examples}
      ],
      "best_trial" => 1,
      "metric_calls" => 2 * examples,
      "metric_errors" => [],
      "variables" => nil,
      "stopped" => nil,
      "checkpoint" => nil,
      "usage" => usage,
      "cost_usd" => 0.0,
      "duration_ms" => (System.monotonic_time(:millisecond) - began) * 1.0
    }
  end
end
