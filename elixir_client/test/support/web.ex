defmodule DSPex.Test.Web do
  @moduledoc false
  # A server that a test plays itself, over HTTP, byte by byte if it likes.

  import ExUnit.Assertions

  alias DSPex.Server.JSON

  @patience_ms 30_000

  @doc "Listens; gives the socket and the URL."
  def listen do
    options = [:binary, active: false, packet: :http_bin, ip: {127, 0, 0, 1}]
    {:ok, listener} = :gen_tcp.listen(0, options)
    {:ok, port} = :inet.port(listener)
    {listener, "http://127.0.0.1:#{port}"}
  end

  @doc "The next request: its socket, the path and the body as JSON."
  def accept(listener) do
    assert {:ok, socket} = :gen_tcp.accept(listener, @patience_ms)
    assert {:ok, {:http_request, :POST, {:abs_path, path}, {1, 1}}} = recv(socket)
    length = headers(socket, 0)
    :ok = :inet.setopts(socket, packet: :raw)
    assert {:ok, body} = :gen_tcp.recv(socket, length, @patience_ms)
    assert {:ok, json} = JSON.decode(body)
    {socket, path, json}
  end

  defp headers(socket, length) do
    case recv(socket) do
      {:ok, {:http_header, _, :"Content-Length", _, text}} ->
        headers(socket, String.to_integer(text))

      {:ok, {:http_header, _, _name, _, _value}} ->
        headers(socket, length)

      {:ok, :http_eoh} ->
        length
    end
  end

  defp recv(socket), do: :gen_tcp.recv(socket, 0, @patience_ms)

  @doc "A whole answer."
  def answer(socket, status, type, body) do
    head = "HTTP/1.1 #{status} Nothing\r\ncontent-type: #{type}\r\n"
    send!(socket, [head, "content-length: #{byte_size(body)}\r\n\r\n", body])
    :gen_tcp.close(socket)
  end

  @doc "The head of a stream of events."
  def stream(socket) do
    type = "content-type: text/event-stream\r\n"
    send!(socket, "HTTP/1.1 200 OK\r\n" <> type <> "transfer-encoding: chunked\r\n\r\n")
  end

  def event(name, json),
    do: IO.iodata_to_binary(["event: #{name}\ndata: ", JSON.encode(json), "\n\n"])

  def chunk(bytes), do: "#{Integer.to_string(byte_size(bytes), 16)}\r\n#{bytes}\r\n"

  def last_chunk, do: "0\r\n\r\n"

  def send!(socket, bytes), do: assert(:gen_tcp.send(socket, bytes) == :ok)

  @doc "Waits until the client has hung up."
  def hung_up(socket), do: assert(:gen_tcp.recv(socket, 0, @patience_ms) == {:error, :closed})
end
