defmodule DSPex.Test.Peer do
  @moduledoc false
  # A bridge that a test plays itself: `relay.py` is the process, and its pipes end here, in a
  # socket. The test reads what the client sent and answers what it likes, byte by byte if it likes.
  # Whatever waits does so for an event, and fails after @patience_ms.

  import ExUnit.Assertions

  alias DSPex.Protocol.{Codec, Framing, Message}

  @patience_ms 30_000
  @relay Path.expand("relay.py", __DIR__)

  defstruct [:socket, :os_pid, decoder: Framing.new(64 * 1024 * 1024), events: []]

  @doc "A place for peers to connect to, and the command that starts one."
  def listen(args \\ []) do
    refute :protocol in ExUnit.configuration()[:exclude],
           "`mix test.fast` runs without Python: a test that plays a bridge is tagged :protocol"

    {:ok, listener} =
      :gen_tcp.listen(0, [:binary, active: false, ip: {127, 0, 0, 1}, recbuf: 65_536])

    {:ok, port} = :inet.port(listener)
    {listener, [python(), @relay, Integer.to_string(port) | args]}
  end

  def python, do: System.get_env("DSPEX_PYTHON") || System.find_executable("python3")

  @doc "The next Python that the client starts."
  def accept(listener) do
    assert {:ok, socket} = :gen_tcp.accept(listener, @patience_ms)
    assert {:ok, <<os_pid::32>>} = :gen_tcp.recv(socket, 4, @patience_ms)
    %__MODULE__{socket: socket, os_pid: os_pid}
  end

  @doc "Whether the client starts no Python within the time."
  def no_more?(listener, ms), do: :gen_tcp.accept(listener, ms) == {:error, :timeout}

  @doc "The next message of the client, parsed. Heartbeats are answered meanwhile."
  def next(%{events: [{:frame, frame} | events]} = peer) do
    assert {:ok, message} = Message.parse(frame)
    peer = %{peer | events: events}

    case message do
      # No caller's, and nothing that a test waits for.
      {:request, id, "ping", %{"payload" => "heartbeat"}} ->
        peer |> respond(id, %{payload: "heartbeat"}) |> next()

      message ->
        {message, peer}
    end
  end

  def next(%{events: []} = peer) do
    assert {:ok, bytes} = :gen_tcp.recv(peer.socket, 0, @patience_ms)
    {events, decoder} = Framing.feed(peer.decoder, bytes)
    next(%{peer | events: events, decoder: decoder})
  end

  @doc "Whether the client says nothing within the time."
  def silent?(%{events: []} = peer, ms),
    do: :gen_tcp.recv(peer.socket, 0, ms) == {:error, :timeout}

  def silent?(_peer, _ms), do: false

  @doc "The next message, which has to be a request of this method."
  def request(peer, method) do
    {message, peer} = next(peer)
    assert {:request, id, ^method, params} = message
    {id, params, peer}
  end

  def respond(peer, id, result), do: message(peer, [1, id, nil, result])

  def fail(peer, id, code, fields \\ %{}) do
    error = Map.merge(%{code: code, message: "no", retryable: false, data: %{}}, fields)
    message(peer, [1, id, error, nil])
  end

  def message(peer, term) do
    {:ok, bytes} = Codec.encode(term)
    frame(peer, bytes)
  end

  def frame(peer, bytes), do: raw(peer, [Framing.prefix(byte_size(bytes)), bytes])

  def raw(peer, iodata) do
    assert :ok = :gen_tcp.send(peer.socket, iodata)
    peer
  end

  @doc "Answers the handshake; gives the params of initialize and configure (nil where none came)."
  def handshake(peer, limits \\ %{}) do
    {id, hello, peer} = request(peer, "initialize")
    respond(peer, id, %{protocol_version: 1, ready: true, limits: limits})
    {hello, peer}
  end

  def accept_configure(peer) do
    {id, params, peer} = request(peer, "configure")
    respond(peer, id, %{})
    {params, peer}
  end

  @doc """
  Looks until `fun` gives something, at most @patience_ms. For the state of a process: whoever looks
  by asking it lets it go on meanwhile.
  """
  def eventually(fun, deadline \\ System.monotonic_time(:millisecond) + @patience_ms) do
    case fun.() do
      nothing when nothing in [nil, false] ->
        assert System.monotonic_time(:millisecond) < deadline
        :erlang.yield()
        eventually(fun, deadline)

      something ->
        something
    end
  end

  def kill(peer), do: signal(peer, "KILL")

  def signal(peer, name) do
    {_output, 0} = System.cmd("kill", ["-#{name}", Integer.to_string(peer.os_pid)])
    peer
  end

  @doc "Waits until the peer's process is gone."
  def wait_gone(peer) do
    # The relay's socket ends with it, which is an event and not a guess.
    assert {:error, :closed} = drain(peer.socket)
    :ok
  end

  defp drain(socket) do
    with {:ok, _bytes} <- :gen_tcp.recv(socket, 0, @patience_ms), do: drain(socket)
  end
end
