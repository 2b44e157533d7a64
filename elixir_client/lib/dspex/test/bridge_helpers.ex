defmodule DSPex.Test.BridgeHelpers do
  @moduledoc """
  For tests that talk to a real Python: waiting until it is there and answers. Everything waits at most
  `:timeout` milliseconds (10,000 unless you say otherwise) and then fails with what it waited for.
  """

  alias DSPex.Test.Waiting

  @doc "Waits until a worker (`:worker`, the first unless you say which) takes calls; gives it."
  @spec wait_for_bridge_ready(atom(), keyword()) :: map()
  def wait_for_bridge_ready(instance, options \\ []) do
    number = Keyword.get(options, :worker, 1)
    timeout = Keyword.get(options, :timeout, Waiting.default_timeout())

    Waiting.until("worker #{number} of #{inspect(instance)} to be ready", timeout, fn ->
      with {:ok, workers} <- DSPex.workers(instance) do
        Enum.find(workers, &(&1.worker == number and &1.status == :ready and &1.os_pid != nil))
      else
        {:error, _not_started} -> nil
      end
    end)
  end

  @doc "Waits until Python itself answers a ping; gives the milliseconds that the answer took."
  @spec wait_for_python_response(atom(), keyword()) :: non_neg_integer()
  def wait_for_python_response(instance, options \\ []) do
    timeout = Keyword.get(options, :timeout, Waiting.default_timeout())
    payload = System.unique_integer()

    Waiting.until("Python of #{inspect(instance)} to answer", timeout, fn ->
      started = System.monotonic_time(:millisecond)

      case DSPex.ping(instance, payload: payload, timeout: timeout) do
        {:ok, ^payload} -> {:ok, System.monotonic_time(:millisecond) - started}
        {:error, _error} -> nil
      end
    end)
    |> elem(1)
  end
end
