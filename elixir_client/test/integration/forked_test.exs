defmodule DSPex.Integration.ForkedTest do
  # Workers whose Pythons are forked from one.
  use ExUnit.Case, async: true

  import DSPex.Test.{BridgeHelpers, MonitorHelpers, SupervisionHelpers}

  alias DSPex.Test.{Bridge, Peer}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 120_000

  @bound_ms 60_000

  setup do
    name = Bridge.start(fork: true, pool_size: 3, lms: [knn: "demo/knn"], default_lm: :knn)
    wait_for_health_status(name, :ready, timeout: @bound_ms)
    {:ok, program} = DSPex.create(name, "question -> answer", program: "kept")
    %{name: name, program: program}
  end

  defp os_pids(name), do: Enum.map(workers(name), & &1.os_pid)

  defp stat(os_pid),
    do: "/proc/#{os_pid}/stat" |> File.read!() |> String.split(") ") |> List.last()

  defp server(name) do
    [server] = name |> os_pids() |> Enum.map(&parent/1) |> Enum.uniq()
    server
  end

  defp parent(os_pid), do: os_pid |> stat() |> String.split() |> Enum.at(1) |> String.to_integer()

  defp signal(os_pid, signal), do: {_output, 0} = System.cmd("kill", ["-#{signal}", "#{os_pid}"])

  defp gone?(os_pid), do: Peer.eventually(fn -> not Bridge.alive?(os_pid) end)

  # Whatever a worker was doing when it was asked.
  defp executes(name) do
    for _ <- 1..6 do
      assert {:ok, %{outputs: %{"answer" => _text}}} =
               DSPex.execute(name, "kept", %{question: "Where is it?"}, retry: 3)
    end
  end

  test "each is a process of its own, and all are of one", %{name: name} do
    executes(name)
    assert name |> os_pids() |> Enum.uniq() |> length() == 3
    assert server(name) not in os_pids(name)
    wait_for_python_response(name, timeout: @bound_ms)
  end

  test "one that is killed is forked again, with every program, and the others go on", context do
    %{name: name} = context
    [first | others] = os_pids(name)
    server = server(name)
    signal(first, "KILL")
    Peer.eventually(fn -> match?([new | ^others] when new not in [nil, first], os_pids(name)) end)
    wait_for_health_status(name, :ready, timeout: @bound_ms)
    executes(name)
    assert server(name) == server
    assert gone?(first)
  end

  test "one that is stopped is noticed and forked again", %{name: name} do
    [first | others] = os_pids(name)
    signal(first, "STOP")
    Peer.eventually(fn -> match?([new | ^others] when new not in [nil, first], os_pids(name)) end)
    wait_for_health_status(name, :ready, timeout: @bound_ms)
    executes(name)
    assert gone?(first)
  end

  test "when what forked them is killed all end, and are back with every program", context do
    %{name: name} = context
    before = os_pids(name)
    server = server(name)
    signal(server, "KILL")
    for os_pid <- [server | before], do: assert(gone?(os_pid))
    Peer.eventually(fn -> Enum.all?(os_pids(name), &(&1 not in [nil | before])) end)
    wait_for_health_status(name, :ready, timeout: @bound_ms)
    executes(name)
    assert server(name) != server
  end

  test "where what forked them stands still, it is replaced when the next is wanted", context do
    %{name: name} = context
    before = [first | _others] = os_pids(name)
    server = server(name)
    signal(server, "STOP")
    # Nobody is the worse for it until then.
    executes(name)
    signal(first, "KILL")
    Peer.eventually(fn -> Enum.all?(os_pids(name), &(&1 not in [nil | before])) end)
    wait_for_health_status(name, :ready, timeout: @bound_ms)
    executes(name)
    for os_pid <- [server | before], do: assert(gone?(os_pid))
  end

  test "a restart forks them from a new one, loses no call, and ends the old one", context do
    %{name: name} = context
    before = os_pids(name)
    server = server(name)

    load =
      Task.async_stream(
        1..100,
        fn _n -> DSPex.execute(name, "kept", %{question: "What?"}, timeout: @bound_ms) end,
        max_concurrency: 6,
        timeout: @bound_ms
      )

    restart = Task.async(fn -> DSPex.restart(name) end)
    for {:ok, answer} <- load, do: assert({:ok, %{outputs: %{"answer" => _text}}} = answer)
    assert Task.await(restart, @bound_ms) == :ok

    for os_pid <- [server | before], do: assert(gone?(os_pid))
    assert server(name) != server
  end

  test "what is large goes both ways", %{name: name} do
    payload = %DSPex.Binary{data: :crypto.strong_rand_bytes(8_000_000)}
    calls = for _ <- 1..3, do: Task.async(fn -> DSPex.ping(name, payload: payload) end)
    for call <- calls, do: assert(Task.await(call, @bound_ms) == {:ok, payload})
  end

  test "nothing of an instance is left when it is stopped", %{name: name} do
    everything = [server(name) | os_pids(name)]
    :ok = stop_supervised(name)
    for os_pid <- everything, do: assert(gone?(os_pid))
  end
end
