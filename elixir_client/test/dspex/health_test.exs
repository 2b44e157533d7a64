defmodule DSPex.HealthTest do
  # A worker that is busy is left alone, one that is stuck is not.
  use ExUnit.Case, async: true

  @moduletag :protocol

  import ExUnit.CaptureLog

  alias DSPex.Connection.{Diagnosis, Failure, Health, Proc}
  alias DSPex.Error
  alias DSPex.Test.Peer

  import DSPex.Test.Scripted, only: [async: 1, await: 1, ready: 2, state: 1]

  @moduletag :capture_log

  @options %{interval: 500, timeout: 1500, busy_timeout: 30_000}

  describe "Health" do
    test "asks for a sign of life after an interval of silence, and not before" do
      health = Health.new(@options, nil, 0)
      assert {:ok, health} = Health.look(health, 499)
      assert {:ask, health} = Health.look(health, 500)
      assert {:suspect, health} = Health.look(health, 1000)
      assert {:ok, health} = health |> Health.heard(1001) |> Health.look(1500)
      assert {:ask, _health} = Health.look(health, 1501)
    end

    test "gives a process that it cannot see the time of a busy one" do
      {:ask, health} = Health.look(Health.new(@options, nil, 0), 500)
      assert {:suspect, health} = Health.look(health, 30_499)
      assert {:stuck, why} = Health.look(health, 30_500)
      assert why =~ "has not answered a ping for 30000 ms"
    end

    test "sees a process that computes, and gives it long" do
      loop =
        spawned(["-c", "import sys; sys.stdout.write('x'); sys.stdout.flush()\nwhile 1: pass"])

      {:ask, health} = Health.look(Health.new(@options, loop, 0), 500)
      health = Enum.reduce(1..10, health, &suspect(&2, 500 + &1 * 2000))
      assert {:stuck, _why} = Health.look(health, 31_000)
    end

    test "sees a process that sleeps and is silent, and gives it little" do
      sleeper = spawned(["-c", "import sys; sys.stdout.write('x'); sys.stdout.flush(); input()"])
      Peer.eventually(fn -> match?({:sleeps, _cpu}, Proc.sample(sleeper)) end)
      {:ask, health} = Health.look(Health.new(@options, sleeper, 0), 500)
      health = health |> suspect(1000) |> suspect(2000)
      assert {:stuck, why} = Health.look(health, 2500)
      assert why == "it has not answered a ping for 2000 ms and does nothing"
    end

    test "sees a process that is stopped at the second look" do
      stopped = spawned(["-c", "import sys; sys.stdout.write('x'); sys.stdout.flush(); input()"])
      {_output, 0} = System.cmd("kill", ["-STOP", "#{stopped}"])
      Peer.eventually(fn -> match?({:stopped, _cpu}, Proc.sample(stopped)) end)
      {:ask, health} = Health.look(Health.new(@options, stopped, 0), 500)
      assert {:stuck, why} = Health.look(health, 1000)
      assert why =~ "its process is stopped"
      {_output, 0} = System.cmd("kill", ["-KILL", "#{stopped}"])
    end

    test "reads the state of a process whose name looks like one" do
      assert {:unknown, nil} = Proc.sample(0)
      assert {state, ticks} = :os.getpid() |> List.to_integer() |> Proc.sample()
      assert state in [:runs, :sleeps] and is_integer(ticks)
    end
  end

  # A Python that has begun to run its program; ended with the test.
  defp spawned(args) do
    port = Port.open({:spawn_executable, Peer.python()}, [:binary, args: args])
    assert_receive {^port, {:data, "x"}}, 10_000
    {:os_pid, os_pid} = Port.info(port, :os_pid)
    on_exit(fn -> System.cmd("kill", ["-KILL", "#{os_pid}"], stderr_to_stdout: true) end)
    os_pid
  end

  defp suspect(health, now) do
    assert {:suspect, health} = Health.look(health, now)
    health
  end

  test "a stopped Python is killed, its calls are answered, and another is started" do
    {name, peer, listener} = ready([heartbeat_interval: 50], %{})
    # Where nobody else does it, it would stand still for ever.
    on_exit(fn -> System.cmd("kill", ["-KILL", "#{peer.os_pid}"], stderr_to_stdout: true) end)
    call = async(fn -> DSPex.execute(name, "p", %{}) end)
    {_id, _params, peer} = Peer.request(peer, "execute")

    log =
      capture_log(fn ->
        Peer.signal(peer, "STOP")
        assert {:error, %Error{code: :connection_lost, message: message}} = await(call)
        assert message =~ "it was stuck and has been killed"
        assert message =~ "its process is stopped"
        Peer.wait_gone(peer)
        Peer.accept(listener)
      end)

    assert log =~ "it was stuck and has been killed"
  end

  test "one that answers its heartbeats is kept, however long a call takes" do
    {name, peer, _listener} = ready([heartbeat_interval: 20, heartbeat_timeout: 20_000], %{})
    call = async(fn -> DSPex.execute(name, "p", %{}) end)
    {id, _params, peer} = Peer.request(peer, "execute")

    peer =
      Enum.reduce(1..10, peer, fn _n, peer ->
        {id, peer} = heartbeat(peer)
        Peer.respond(peer, id, %{payload: "heartbeat"})
      end)

    Peer.respond(peer, id, %{outputs: %{a: 1}, program: "p"})
    assert {:ok, _prediction} = await(call)
  end

  test "a machine that has no more processes, descriptors or memory may have some later" do
    for reason <- [:eagain, :emfile, :enfile, :enomem, :system_limit],
        do: assert(Failure.cause(%ErlangError{original: reason}) == :passing)

    assert Failure.cause(%SystemLimitError{}) == :passing
    assert Failure.cause("OSError: [Errno 24] Too many open files") == :passing

    for reason <- [:enoent, :eacces],
        do: assert(Failure.cause(%ErlangError{original: reason}) == :lasting)

    assert Failure.cause("ImportError: cannot import name 'x'") == :lasting
  end

  # Without the answer that `Peer.next/1` gives by itself.
  defp heartbeat(%{events: [{:frame, frame} | events]} = peer) do
    assert {:ok, {:request, id, "ping", %{"payload" => "heartbeat"}}} =
             DSPex.Protocol.Message.parse(frame)

    {id, %{peer | events: events}}
  end

  defp heartbeat(%{events: []} = peer) do
    assert {:ok, bytes} = :gen_tcp.recv(peer.socket, 0, 10_000)
    {events, decoder} = DSPex.Protocol.Framing.feed(peer.decoder, bytes)
    heartbeat(%{peer | events: events, decoder: decoder})
  end

  describe "a Python that cannot start" do
    defp start(command) do
      name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
      start_supervised!({DSPex, name: name, command: command})
      name
    end

    test "for a package that is missing says which, and what to do" do
      name = start([Peer.python(), "-c", "import no_such_package"])
      assert {:error, %Error{code: :start_failed, retryable: false} = error} = DSPex.ping(name)

      assert error.message =~
               "exit status 1: ModuleNotFoundError: No module named 'no_such_package'"

      assert error.message =~ "mix dspex.install"
    end

    test "because its environment is gone says so" do
      folder = DSPex.Test.Folder.make()
      python = Path.join(folder, "python")
      File.ln_s!(Peer.python(), python)
      name = start([python, "-c", "import os; os.remove(#{inspect(python)}); exit(3)"])
      Peer.eventually(fn -> match?({:ok, [%{status: :down}]}, DSPex.workers(name)) end)

      Peer.eventually(fn ->
        case DSPex.ping(name) do
          {:error, %Error{code: :start_failed, retryable: false, message: message}} ->
            message =~ "cannot be run" and message =~ "mix dspex.install"

          _other ->
            false
        end
      end)
    end

    test "says why also where its end was first seen by who wrote to it" do
      tried = Path.join(DSPex.Test.Folder.make(), "tried")

      name =
        start([
          Peer.python(),
          "-c",
          "import os, sys\n" <>
            "if os.path.exists(sys.argv[1]): import no_such_package\n" <>
            "open(sys.argv[1], 'x').close()\n" <>
            "sys.stdin.buffer.read()",
          tried
        ])

      Peer.eventually(fn -> File.exists?(tried) end)
      # As a port ends that cannot write: no status comes then.
      send(DSPex.Test.Scripted.connection(name), {:EXIT, state(name).python.port, :epipe})
      assert {:error, %Error{code: :start_failed, retryable: false} = error} = DSPex.ping(name)
      assert error.message =~ "its pipe failed (:epipe): ModuleNotFoundError"
    end

    test "because it is no bridge at all says so, and that it will not be one the next time" do
      for {code, said} <- [
            {"print('Welcome to Python!', flush=True); import time; time.sleep(60)",
             "something else than the bridge wrote to its stdout"},
            {"pass", "exit status 0"},
            {"import sys; sys.exit(127)", "exit status 127"}
          ] do
        name = start([Peer.python(), "-c", code])
        assert {:error, %Error{code: :start_failed, retryable: false} = error} = DSPex.ping(name)
        assert error.message =~ said
      end
    end

    test "because the machine is short of something may be called again" do
      name = start([Peer.python(), "-c", "raise MemoryError"])
      assert {:error, %Error{code: :start_failed, retryable: true} = error} = DSPex.ping(name)
      assert error.message =~ "exit status 1: MemoryError"
    end

    test "and then can, or is killed, may be called again" do
      assert Diagnosis.run({"/bin/cat", []}) == {:passing, nil}
      assert {:passing, nil} = Diagnosis.run({Peer.python(), ["-c", "import os; os.abort()"]})
      assert {:lasting, nil} = Diagnosis.run({Peer.python(), ["-c", "import os; os._exit(3)"]})
    end

    test "for its version of the protocol is not started again" do
      {listener, command} = Peer.listen()
      name = start(command)
      {id, _hello, peer} = listener |> Peer.accept() |> Peer.request("initialize")
      Peer.respond(peer, id, %{protocol_version: 2, ready: true})
      Peer.wait_gone(peer)
      assert {:error, %Error{code: :start_failed, retryable: false} = error} = DSPex.ping(name)
      assert error.message =~ "it speaks version 2 of the protocol, this client version 1"
      assert Peer.no_more?(listener, 500)
    end
  end

  test "a Python that dies as soon as it is ready is started less and less often" do
    {name, peer, listener} = ready([], %{})
    Peer.eventually(fn -> match?({:ok, [%{status: :ready}]}, DSPex.workers(name)) end)
    Peer.kill(peer)

    for _ <- 1..3 do
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      Peer.eventually(fn -> match?({:ok, [%{status: :ready}]}, DSPex.workers(name)) end)
      Peer.kill(peer)
    end

    Peer.eventually(fn -> match?({:ok, [%{status: :down}]}, DSPex.workers(name)) end)
    assert {:error, %Error{code: :start_failed, retryable: true} = error} = DSPex.ping(name)
    assert error.message =~ "it ended before it answered anything: killed by signal 9"
    assert DSPex.Test.Scripted.state(name).failures >= 3
  end
end
