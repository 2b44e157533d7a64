defmodule DSPex.Retry do
  @moduledoc false
  # Which worker a call goes to, and whether it goes to another after it has failed.
  #
  # What was never sent can go elsewhere without anybody's leave. What was sent may have been done,
  # and paid for: it is made again only where the caller has asked for that.

  alias DSPex.Connection.Caller
  alias DSPex.{Deadline, Error, Pool}

  # Before a call is made again that Python refused; each time twice as long.
  @first_pause_ms 50
  @max_pause_ms 2000

  # With these a worker says that it has not sent the call.
  @unsent [:start_failed, :overloaded]

  @doc "Chooses a worker, but for these."
  @spec route(Pool.t(), [pid()]) :: {:ok, Pool.choice()} | {:error, Error.t()}
  def route(pool, except) do
    case Pool.choose(pool, except) do
      nil -> {:error, Pool.no_worker()}
      worker -> {:ok, worker}
    end
  rescue
    # The instance has ended, and its table with it.
    ArgumentError -> {:error, Pool.no_worker()}
  end

  @doc "Makes a call, and makes it again `retries` times, all within `timeout`."
  @spec run(Pool.t(), non_neg_integer(), timeout(), (Pool.choice(), timeout() -> Caller.result())) ::
          Caller.result()
  def run(pool, retries, timeout, call) do
    ends = Deadline.from_now(timeout)
    run = %{pool: pool, call: call, ends: ends, pause: @first_pause_ms}
    # As it was said, and not what is left of it in a moment: an error has it in its words.
    attempt(run, timeout, retries, [])
  end

  defp attempt(run, retries, refused_by),
    do: attempt(run, max(1, Deadline.left(run.ends)), retries, refused_by)

  defp attempt(run, timeout, retries, refused_by) do
    with {:ok, {pid, _pool, _number} = worker} <- route(run.pool, refused_by),
         {:error, error} <- run.call.(worker, timeout),
         do: again(run, retries, [pid | refused_by], error)
  end

  defp again(run, retries, refused_by, error) do
    cond do
      Deadline.passed?(run.ends) ->
        {:error, error}

      error.code in @unsent and another?(run.pool, refused_by) ->
        attempt(run, retries, refused_by)

      retries > 0 and error.code == :connection_lost ->
        attempt(run, retries - 1, [])

      retries > 0 and error.retryable ->
        Deadline.pause(run.ends, run.pause)
        attempt(%{run | pause: min(run.pause * 2, @max_pause_ms)}, retries - 1, [])

      true ->
        {:error, error}
    end
  end

  # One that takes calls; a whole pool that is down or full says so at once.
  defp another?(pool, refused_by) do
    pool |> Pool.workers() |> Enum.any?(&(&1.pid not in refused_by and &1.status == :ready))
  rescue
    ArgumentError -> false
  end
end
