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

  def patience_ms, do: @patience_ms

  @doc "The next request: its socket, the path and the body as JSON."
  def accept(listener) do
    {socket, path, headers} = head(listener)
    {socket, path, body(socket, headers)}
  end

  @doc "The head of the next request: its socket, the path and its headers, by name in small letters."
  def head(listener) do
    assert {:ok, socket} = :gen_tcp.accept(listener, @patience_ms)
    assert {:ok, {:http_request, :POST, {:abs_path, path}, {1, 1}}} = recv(socket)
    headers = headers(socket, %{})
    :ok = :inet.setopts(socket, packet: :raw)
    {socket, path, headers}
  end

  @doc "The body that these headers are of, as JSON."
  def body(socket, %{"content-length" => length}) do
    assert {:ok, body} = :gen_tcp.recv(socket, String.to_integer(length), @patience_ms)
    assert {:ok, json} = JSON.decode(body)
    json
  end

  defp headers(socket, headers) do
    case recv(socket) do
      {:ok, {:http_header, _, name, _, value}} ->
        headers(socket, Map.put(headers, name |> to_string() |> String.downcase(), value))

      {:ok, :http_eoh} ->
        headers
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
