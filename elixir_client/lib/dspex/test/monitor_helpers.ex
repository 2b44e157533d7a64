defmodule DSPex.Test.MonitorHelpers do
  @moduledoc """
  For tests of how an instance is. Everything waits at most `:timeout` milliseconds (10,000 unless you
  say otherwise) and then fails with what it waited for.
  """

  alias DSPex.Test.Waiting

  @doc """
  Waits until every worker of an instance is `status` (see `DSPex.workers/1`), or the one that
  `:worker` says; gives them.
  """
  @spec wait_for_health_status(atom(), DSPex.Pool.status(), keyword()) :: [map()]
  def wait_for_health_status(instance, status, options \\ []) do
    timeout = Keyword.get(options, :timeout, Waiting.default_timeout())

    Waiting.until("#{inspect(instance)} to be #{status}", timeout, fn ->
      with {:ok, [_one | _more] = workers} <- DSPex.workers(instance) do
        workers = Enum.filter(workers, &(options[:worker] in [nil, &1.worker]))
        if Enum.all?(workers, &(&1.status == status)), do: workers
      else
        _none -> nil
      end
    end)
  end

  @doc "Waits until an instance has that many calls under way, all workers together."
  @spec wait_for_in_flight(atom(), non_neg_integer(), keyword()) :: :ok
  def wait_for_in_flight(instance, count, options \\ []) do
    timeout = Keyword.get(options, :timeout, Waiting.default_timeout())

    Waiting.until("#{inspect(instance)} to have #{count} calls", timeout, fn ->
      with {:ok, workers} <- DSPex.workers(instance),
           do: Enum.sum(Enum.map(workers, & &1.in_flight)) == count
    end)

    :ok
  end
end
