defmodule DSPex.Test.SupervisionHelpers do
  @moduledoc """
  For tests of what an application does while DSPex's processes come and go. Everything waits for an
  event or a state, at most `:timeout` milliseconds (10,000 unless you say otherwise), and then fails
  with what it waited for; nothing sleeps.

      test "a crash of Python is not noticed" do
        instance = start_instance(lms: [main: "demo/knn"])
        [worker] = workers(instance)
        kill_python(instance)
        wait_for_process_restart(instance, worker)
      end
  """

  alias DSPex.Test.{BridgeHelpers, Waiting}

  @doc """
  Starts an instance of a name of its own under the test's supervisor, with these options; gives the
  name. Its processes end with the test.
  """
  @spec start_instance(keyword()) :: atom()
  def start_instance(options \\ []) do
    options = Keyword.put_new_lazy(options, :name, &unique_name/0)
    ExUnit.Callbacks.start_supervised!({DSPex, options})
    Keyword.fetch!(options, :name)
  end

  defp unique_name, do: Module.concat(DSPex.Test, "I#{System.unique_integer([:positive])}")

  @doc "The workers of an instance; see `DSPex.workers/1`."
  @spec workers(atom()) :: [map()]
  def workers(instance) do
    case DSPex.workers(instance) do
      {:ok, workers} -> workers
      {:error, error} -> raise error
    end
  end

  @doc "Kills the Python of a worker (the first unless you say which) as the system would."
  @spec kill_python(atom(), pos_integer()) :: :ok
  def kill_python(instance, worker \\ 1), do: signal_python(instance, "KILL", worker)

  @doc "Sends the Python of a worker a signal, such as `\"STOP\"` or `\"SEGV\"`."
  @spec signal_python(atom(), String.t(), pos_integer()) :: :ok
  def signal_python(instance, signal, worker \\ 1) do
    %{os_pid: os_pid} = BridgeHelpers.wait_for_bridge_ready(instance, worker: worker)
    {_output, 0} = System.cmd("sh", ["-c", ~S(kill -"$1" "$2"), "sh", signal, "#{os_pid}"])
    :ok
  end

  @doc """
  Waits until what `before` was is another and ready: a worker as `workers/1` gave it, whose Python (or
  process) has been replaced, or a pid that a supervisor has under the id `:id` of `:supervisor`.
  """
  @spec wait_for_process_restart(atom(), map(), keyword()) :: map()
  def wait_for_process_restart(instance, before, options \\ []) do
    timeout = Keyword.get(options, :timeout, Waiting.default_timeout())

    Waiting.until("worker #{before.worker} of #{inspect(instance)} to be another", timeout, fn ->
      Enum.find(workers(instance), fn now ->
        now.worker == before.worker and now.status == :ready and is_integer(now.os_pid) and
          {now.pid, now.os_pid} != {before.pid, before.os_pid}
      end)
    end)
  end

  @doc "Waits until a process has ended; gives the reason."
  @spec wait_for_exit(pid(), keyword()) :: term()
  def wait_for_exit(pid, options \\ []) do
    timeout = Keyword.get(options, :timeout, Waiting.default_timeout())
    ref = Process.monitor(pid)

    receive do
      {:DOWN, ^ref, :process, ^pid, reason} -> reason
    after
      timeout ->
        Process.demonitor(ref, [:flush])
        Waiting.late("#{inspect(pid)} to end", timeout)
    end
  end
end
