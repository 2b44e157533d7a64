defmodule DSPex.ML.Job do
  @moduledoc false
  # Waiting for a job. It is asked for again and again: a job outlives its server, which a stream of news
  # from there would not.

  alias DSPex.Error

  @pause_ms 200

  # While a server is replaced nobody answers, or it has no database yet.
  @passing [:connection_lost, :database_unavailable, :shutting_down]

  @final [:completed, :failed, :cancelled]

  @type job :: %{:state => atom(), :error => Error.t() | nil, optional(atom()) => term()}

  @doc """
  The job when it has completed, else the error with which it ended. `seen` is called with each state of
  it that is read.
  """
  @spec await((() -> {:ok, job()} | {:error, Error.t()}), timeout(), (job() -> any())) ::
          {:ok, job()} | {:error, Error.t()}
  def await(get, timeout, seen) do
    ends = if timeout == :infinity, do: :infinity, else: now() + timeout
    again(get, ends, timeout, seen)
  end

  defp again(get, ends, timeout, seen) do
    case get.() do
      {:ok, job} ->
        seen.(job)
        if job.state in @final, do: outcome(job), else: wait(get, ends, timeout, seen)

      {:error, %Error{code: code} = error} when code in @passing ->
        if over?(ends), do: {:error, error}, else: wait(get, ends, timeout, seen)

      {:error, error} ->
        {:error, error}
    end
  end

  defp wait(get, ends, timeout, seen) do
    if over?(ends) do
      text = "the job has not ended within #{timeout} ms; it goes on, and may be awaited again"
      {:error, Error.new(:timeout, text)}
    else
      receive do
      after
        @pause_ms -> again(get, ends, timeout, seen)
      end
    end
  end

  defp outcome(%{state: :completed} = job), do: {:ok, job}
  defp outcome(%{state: :failed, error: %Error{} = error}), do: {:error, error}
  defp outcome(_cancelled), do: {:error, Error.new(:cancelled, "the job was cancelled")}

  defp over?(:infinity), do: false
  defp over?(ends), do: now() >= ends

  defp now, do: System.monotonic_time(:millisecond)
end
