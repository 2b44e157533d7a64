defmodule DSPex.ForkServerTest do
  # Who asks for forked Pythons, and what becomes of it: the test is the fork server, and what it
  # forks.
  use ExUnit.Case, async: true

  alias DSPex.Connection.ForkServer
  alias DSPex.Error
  alias DSPex.Test.{Folder, Peer, Scripted}

  @moduletag :protocol
  @moduletag :capture_log

  @patience_ms Scripted.patience_ms()

  # Whatever is said behind them, these take no more arguments.
  defp sh(script), do: {System.find_executable("sh"), ["-c", script]}

  defp listen do
    {listener, command} = Peer.listen()
    {listener, sh("exec " <> Enum.join(command, " "))}
  end

  defp start(command, options \\ []) do
    tasks = start_supervised!(Task.Supervisor)
    heartbeats = [heartbeat_interval: :infinity, heartbeat_timeout: 50, busy_timeout: 60_000]
    own = [name: __MODULE__, command: command, tasks: tasks, start_timeout: @patience_ms]
    options = own |> Keyword.merge(heartbeats) |> Keyword.merge(options)
    # More of them run at one time.
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    start_supervised!({ForkServer, Keyword.put(options, :name, name)})
    name
  end

  defp answer_fork(peer, os_pid) do
    {id, params, peer} = Peer.request(peer, "fork")
    assert params == %{}
    Peer.respond(peer, id, %{pid: os_pid, path: "/there/#{os_pid}"})
  end

  defp asked(os_pid) do
    assert_receive {:forked, answer}, @patience_ms
    assert answer == {:ok, %{os_pid: os_pid, path: "/there/#{os_pid}"}}
  end

  defp failed do
    assert_receive {:forked, {:error, cause, why}}, @patience_ms
    {cause, why}
  end

  test "one server forks for all who ask" do
    {listener, command} = listen()
    server = start(command)
    for _ <- 1..3, do: ForkServer.fork(server)
    peer = Peer.accept(listener)
    peer = Enum.reduce(11..13, peer, &answer_fork(&2, &1))
    for os_pid <- 11..13, do: asked(os_pid)
    ForkServer.fork(server)
    answer_fork(peer, 14)
    asked(14)
    assert Peer.no_more?(listener, 0)
  end

  test "what was asked of a server that died is asked again of the next" do
    {listener, command} = listen()
    server = start(command)
    ForkServer.fork(server)
    peer = listener |> Peer.accept() |> answer_fork(11)
    asked(11)
    ForkServer.fork(server)
    {_id, _params, peer} = Peer.request(peer, "fork")
    Peer.kill(peer)
    listener |> Peer.accept() |> answer_fork(12)
    asked(12)
  end

  test "a server that dies before it has forked anything is not started for ever" do
    {listener, command} = listen()
    server = start(command)
    ForkServer.fork(server)
    listener |> Peer.accept() |> Peer.kill()
    assert {:passing, why} = failed()
    assert why =~ "what was to fork it ended: killed by signal 9"
    assert Peer.no_more?(listener, 0)
    # Whoever asks again may.
    ForkServer.fork(server)
    listener |> Peer.accept() |> answer_fork(11)
    asked(11)
  end

  test "a server that cannot start says why" do
    server = start(sh("echo 'No module named dspex_bridge' >&2; exit 3"))
    for _ <- 1..2, do: ForkServer.fork(server)

    for _ <- 1..2 do
      assert {_cause, why} = failed()
      # Its status, or that it does not read, is what is known first.
      assert why =~ ~r/^what was to fork it ended: .*: No module named dspex_bridge/
    end
  end

  test "a server that is stopped is killed, and what it was asked is asked of the next" do
    {listener, command} = listen()
    server = start(command, heartbeat_interval: 20)
    ForkServer.fork(server)
    peer = listener |> Peer.accept() |> answer_fork(11)
    asked(11)
    # Killed while it stands still, it would stay so.
    on_exit(fn -> System.cmd("kill", ["-CONT", "#{peer.os_pid}"], stderr_to_stdout: true) end)
    Peer.signal(peer, "STOP")
    ForkServer.fork(server)
    listener |> Peer.accept() |> answer_fork(12)
    asked(12)
    Peer.wait_gone(peer)
  end

  test "a server that is not ready in time is given up, and that is said" do
    server = start(sh("exec sleep 1000"), start_timeout: 50)
    ForkServer.fork(server)
    assert {:passing, why} = failed()
    assert why =~ "it was not ready within 50 ms"
    assert :sys.get_state(server).servers == %{}
  end

  test "a server that writes something else is killed, and that is said" do
    {listener, command} = listen()
    server = start(command)
    ForkServer.fork(server)
    peer = listener |> Peer.accept() |> Peer.raw("Traceback (most recent call last):\n")
    assert {:lasting, why} = failed()
    assert why =~ "something else than the bridge wrote to its stdout"
    Peer.wait_gone(peer)
  end

  test "what a server refuses is told with its reason" do
    {listener, command} = listen()
    server = start(command)
    ForkServer.fork(server)
    peer = Peer.accept(listener)
    {id, _params, peer} = Peer.request(peer, "fork")
    Peer.fail(peer, id, "internal_error", %{message: "it has 2 threads"})
    assert {:lasting, "it could not be forked: internal_error: it has 2 threads"} = failed()

    for strange <- ["hello", %{pid: 1, path: "/there"}, %{pid: "11", path: "/there"}] do
      ForkServer.fork(server)
      {id, _params, _peer} = Peer.request(peer, "fork")
      Peer.respond(peer, id, strange)
      assert {:lasting, "what was to fork it answered something else"} = failed()
    end
  end

  test "a new server is taken where that is asked for, and the old one goes with the last of its own" do
    {listener, command} = listen()
    server = start(command)
    assert ForkServer.renew(server) == :ok
    for _ <- 1..2, do: ForkServer.fork(server)
    old = listener |> Peer.accept() |> answer_fork(11) |> answer_fork(12)
    for os_pid <- 11..12, do: asked(os_pid)
    assert ForkServer.renew(server) == :ok
    ForkServer.fork(server)
    new = listener |> Peer.accept() |> answer_fork(13)
    asked(13)

    Peer.message(old, [2, "exited", %{pid: 11, status: 0}])
    assert Peer.silent?(old, 50)
    Peer.message(old, [2, "exited", %{pid: 12, status: -9}])
    Peer.wait_gone(old)
    assert Peer.silent?(new, 0)
    # And one that has nothing left goes at once.
    Peer.message(new, [2, "exited", %{pid: 13, status: 0}])
    assert Peer.silent?(new, 50)
    assert ForkServer.renew(server) == :ok
    Peer.wait_gone(new)
  end

  test "one that forks no more and stands still is ended where nothing needs it" do
    {listener, command} = listen()
    server = start(command)
    ForkServer.fork(server)
    old = listener |> Peer.accept() |> answer_fork(11)
    asked(11)
    ForkServer.fork(server)
    {_id, _params, old} = Peer.request(old, "fork")
    assert ForkServer.renew(server) == :ok
    ForkServer.fork(server)
    new = listener |> Peer.accept() |> answer_fork(12)
    asked(12)
    assert ForkServer.close_old(server) == :ok
    Peer.wait_gone(old)
    # What was asked of it is asked of the new one.
    answer_fork(new, 13)
    asked(13)
  end

  test "a server that was ready and does not fork in time is killed, and another one is asked" do
    {listener, command} = listen()
    server = start(command, start_timeout: 3_000)
    ForkServer.fork(server)
    silent = listener |> Peer.accept() |> answer_fork(11)
    asked(11)
    ForkServer.fork(server)
    Peer.wait_gone(silent)
    listener |> Peer.accept() |> answer_fork(12)
    asked(12)
  end

  test "there may be nobody to take a new one" do
    assert ForkServer.renew(DSPex.NoSuchForkServer) == :ok
  end

  # --- what is forked: the test at the other end of a socket ---

  # An instance with a worker, and the test's ends of its fork server and of its Python.
  defp instance(options \\ []) do
    {listener, {executable, args}} = listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    options = [name: name, command: [executable | args], fork: true] ++ options
    Scripted.start(options)
    server = Peer.accept(listener)
    {server, peer} = forked(server)
    {_hello, peer} = Peer.handshake(peer)
    {name, server, peer}
  end

  defp forked(server, os_pid \\ 1_000_000_000) do
    path = Path.join(Folder.make(), "socket")
    options = [:binary, ifaddr: {:local, path}, active: false, recbuf: 65_536]
    {:ok, listener} = :gen_tcp.listen(0, options)
    {id, _params, server} = Peer.request(server, "fork")
    # Above all that the system gives: nobody is killed by it.
    Peer.respond(server, id, %{pid: os_pid, path: path})
    assert {:ok, socket} = :gen_tcp.accept(listener, @patience_ms)
    {server, %Peer{socket: socket, os_pid: os_pid}}
  end

  test "a worker calls what was forked for it, and what is forked when that has ended" do
    {name, server, peer} = instance()
    call = Scripted.async(fn -> DSPex.ping(name) end)
    {id, _params, peer} = Peer.request(peer, "ping")
    Peer.respond(peer, id, %{payload: 1})
    assert Scripted.await(call) == {:ok, 1}
    assert {:ok, [%{os_pid: 1_000_000_000, status: :ready}]} = DSPex.workers(name)

    lost = Scripted.async(fn -> DSPex.ping(name) end)
    {_id, _params, peer} = Peer.request(peer, "ping")
    :gen_tcp.close(peer.socket)
    {_server, next} = forked(server, 1_000_000_001)
    assert {:error, %Error{code: :connection_lost}} = Scripted.await(lost)
    {_hello, next} = Peer.handshake(next)
    call = Scripted.async(fn -> DSPex.ping(name) end)
    {id, _params, _peer} = Peer.request(next, "ping")
    Peer.respond(next, id, %{payload: 2})
    assert Scripted.await(call) == {:ok, 2}
    assert {:ok, [%{os_pid: 1_000_000_001}]} = DSPex.workers(name)
  end

  test "answers come one after the other, however many, and a byte at a time" do
    {name, _server, peer} = instance()

    Enum.reduce(1..100, peer, fn n, peer ->
      call = Scripted.async(fn -> DSPex.ping(name, payload: n) end)
      {id, %{"payload" => ^n}, peer} = Peer.request(peer, "ping")
      {:ok, bytes} = DSPex.Protocol.Codec.encode([1, id, nil, %{payload: n}])
      for <<(byte <- <<byte_size(bytes)::32, bytes::binary>>)>>, do: Peer.raw(peer, <<byte>>)
      assert Scripted.await(call) == {:ok, n}
      peer
    end)
  end

  test "a Python that does not read holds up nobody, and loses nothing" do
    {name, _server, peer} = instance(max_queued_bytes: 4_000_000)
    payload = %DSPex.Binary{data: :binary.copy(<<7>>, 1_000_000)}

    calls = for _ <- 1..8, do: Scripted.async(fn -> DSPex.ping(name, payload: payload) end)
    # The first is in the socket's own queue, and others wait; those beyond are refused at once.
    refused = refused(calls, [])
    assert refused != []
    {:ok, [%{status: :ready}]} = DSPex.workers(name)

    # Some may come only now: each has one answer, whichever.
    reads = Task.async(fn -> answer_pings(peer, payload) end)

    for call <- calls -- refused do
      case Scripted.await(call) do
        {:error, error} -> assert error.code == :overloaded
        answer -> assert answer == {:ok, 1}
      end
    end

    Task.shutdown(reads, :brutal_kill)
  end

  defp answer_pings(peer, payload) do
    {id, %{"payload" => ^payload}, peer} = Peer.request(peer, "ping")
    peer |> Peer.respond(id, %{payload: 1}) |> answer_pings(payload)
  end

  # Those whose answer is there already, once there is one.
  defp refused(calls, []) do
    found =
      for {call, {:ok, {{:error, %Error{code: :overloaded}}, _messages}}} <-
            Task.yield_many(calls, 50),
          do: call

    refused(calls, found)
  end

  defp refused(_calls, found), do: found

  test "an instance whose fork server cannot start tells its callers why, and starts all the same" do
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    {executable, args} = sh("echo 'No module named dspex_bridge' >&2; exit 3")
    Scripted.start(name: name, command: [executable | args], fork: true, pool_size: 2)
    assert {:error, %Error{code: :start_failed} = error} = DSPex.ping(name)
    assert error.message =~ "No module named dspex_bridge"
  end
end
