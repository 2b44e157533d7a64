defmodule DSPex.ML.Job do
  @moduledoc false
  # Waiting for a job. It is asked for again and again: a job outlives its server, which a stream of news
  # from there would not.

  alias DSPex.{Deadline, Error}

  @pause_ms 200

  # A look that takes longer is given up for another one: who was asked may be no more.
  @look_ms 10_000

  # While a server is replaced nobody answers, or it has no database yet.
  @passing [:connection_lost, :database_unavailable, :shutting_down]

  @final [:completed, :failed, :cancelled]

  @type job :: %{:state => atom(), :error => Error.t() | nil, optional(atom()) => term()}

  @doc """
  The job when it has completed, else the error with which it ended. `look` reads it within a timeout,
  and `seen` is called with each state of it that is read.
  """
  @spec await((timeout() -> {:ok, job()} | {:error, Error.t()}), timeout(), (job() -> any())) ::
          {:ok, job()} | {:error, Error.t()}
  def await(look, timeout, seen), do: again(look, Deadline.from_now(timeout), timeout, seen)

  defp again(look, ends, timeout, seen) do
    case look.(max(1, Deadline.left(ends, @look_ms))) do
      {:ok, job} ->
        seen.(job)

        if job.state in @final,
          do: outcome(job),
          else: wait(look, ends, timeout, seen, not_ended(timeout))

      {:error, %Error{code: :timeout}} ->
        wait(look, ends, timeout, seen, not_ended(timeout))

      {:error, %Error{code: code} = error} when code in @passing ->
        wait(look, ends, timeout, seen, error)

      {:error, error} ->
        {:error, error}
    end
  end

  defp wait(look, ends, timeout, seen, last) do
    Deadline.pause(ends, @pause_ms)
    if Deadline.passed?(ends), do: {:error, last}, else: again(look, ends, timeout, seen)
  end

  defp not_ended(timeout) do
    text = "the job is not known to have ended within #{timeout} ms; it goes on at the server, "
    Error.new(:timeout, text <> "and may be awaited again")
  end

  defp outcome(%{state: :completed} = job), do: {:ok, job}
  defp outcome(%{state: :failed, error: %Error{} = error}), do: {:error, error}
  defp outcome(_cancelled), do: {:error, Error.new(:cancelled, "the job was cancelled")}
end
