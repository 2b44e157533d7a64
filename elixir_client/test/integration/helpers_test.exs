defmodule DSPex.Integration.HelpersTest do
  # The helpers that applications get for their own tests.
  use ExUnit.Case, async: true

  import DSPex.Test.{BridgeHelpers, MonitorHelpers, SupervisionHelpers}

  @moduletag :integration
  @moduletag :capture_log

  test "wait for what they say" do
    instance = start_instance(command: DSPex.Test.Bridge.command(), pool_size: 2)
    worker = wait_for_bridge_ready(instance, worker: 2, timeout: 30_000)
    assert wait_for_python_response(instance, timeout: 30_000) >= 0
    assert [_one, _two] = wait_for_health_status(instance, :ready, timeout: 30_000)
    :ok = kill_python(instance, 2)
    assert %{worker: 2} = after_it = wait_for_process_restart(instance, worker, timeout: 30_000)
    assert after_it.os_pid != worker.os_pid
    :ok = wait_for_in_flight(instance, 0)

    Process.exit(after_it.pid, :kill)
    assert wait_for_exit(after_it.pid) in [:killed, :noproc]
    assert wait_for_process_restart(instance, after_it, timeout: 30_000).pid != after_it.pid
  end

  test "fail with what they waited for" do
    assert_raise ExUnit.AssertionError, ~r/waited 10 ms for worker 1 of NoSuch to be ready/, fn ->
      wait_for_bridge_ready(NoSuch, timeout: 10)
    end

    assert_raise ExUnit.AssertionError, ~r/waited 10 ms for #PID<.*> to end/, fn ->
      wait_for_exit(self(), timeout: 10)
    end
  end
end
