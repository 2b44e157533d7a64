defmodule DSPex.KillTest do
  # How a Python is ended that does not listen. Not async: PATH is everybody's.
  use ExUnit.Case, async: false

  @moduletag :protocol

  import ExUnit.CaptureLog

  alias DSPex.Test.{Folder, Peer, Scripted}

  @moduletag :capture_log

  setup do
    bin = Folder.make()
    {listener, command} = Peer.listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    Scripted.start(name: name, command: command)
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
    connection = Scripted.connection(name)
    Peer.eventually(fn -> :sys.get_state(connection).phase == :ready end)

    path = System.fetch_env!("PATH")

    on_exit(fn ->
      System.put_env("PATH", path)
      # Killed while it stands still, it would stay so.
      System.cmd("kill", ["-CONT", "#{peer.os_pid}"], stderr_to_stdout: true)
    end)

    %{bin: bin, listener: listener, peer: peer, connection: connection}
  end

  # It writes what is no frame, and stands still: it does not hear that its stdin has ended.
  defp misbehave(%{peer: peer, connection: connection, bin: bin}) do
    :ok = :sys.suspend(connection)
    Peer.raw(peer, "Traceback (most recent call last):\n")

    Peer.eventually(fn ->
      Process.info(connection, :message_queue_len) != {:message_queue_len, 0}
    end)

    Peer.signal(peer, "STOP")
    System.put_env("PATH", bin)
    :ok = :sys.resume(connection)
  end

  test "a Python is killed where there is a shell and no kill of its own", context do
    File.ln_s!(System.find_executable("sh"), Path.join(context.bin, "sh"))
    misbehave(context)
    Peer.wait_gone(context.peer)
  end

  test "where there is no shell that is said, and the next Python is started", context do
    path = System.fetch_env!("PATH")

    log =
      capture_log(fn ->
        misbehave(context)
        # Answered once what came before it has been read.
        :sys.get_state(context.connection)
        System.put_env("PATH", path)
        Peer.accept(context.listener)
      end)

    assert log =~
             "DSPex: Python (pid #{context.peer.os_pid}) is left to its guard: there is no sh on PATH"
  end
end
