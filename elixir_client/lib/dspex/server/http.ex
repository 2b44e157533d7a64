defmodule DSPex.Server.HTTP do
  @moduledoc false
  # One exchange over HTTP/1.1 on a connection of its own, read by the process that opened it, piece
  # by piece and only when it asks: who reads slowly slows the server. Any process may stop it.

  alias DSPex.{Deadline, Error, Secret}
  alias DSPex.Server.{Address, JSON}

  # As the server's own limit of a body (dspex_server.api.web), which is the same for all.
  @max_body_bytes 16 * 1024 * 1024

  # What the system takes of a connection just made without waiting for the server to read (Linux's
  # default send buffer). A longer body is sent when the server has asked for it.
  @unasked_bytes 16 * 1024

  # After so long a server is taken for one that does not know the question.
  @asking_ms 1_000

  # A line of the answer's head; servers and proxies send shorter ones.
  @max_line_bytes 16 * 1024
  @max_headers 100

  # A size in hexadecimal digits, and what may stand behind it.
  @max_chunk_head_bytes 128

  @enforce_keys [:socket, :stopped, :give_up_at, :timeout]
  defstruct [:socket, :stopped, :give_up_at, :timeout, :status, :framing, buffer: "", read: 0]

  @opaque t :: %__MODULE__{}

  @doc """
  Sends a POST of JSON. `grace_ms` is for the server's own answer to the caller's timeout. Of the answer
  no more has been read then than a refusal of the body.
  """
  @spec post(Address.t(), String.t(), iodata(), timeout(), non_neg_integer()) ::
          {:ok, t()} | {:error, Error.t()}
  def post(address, path, body, timeout, grace_ms \\ 0) do
    give_up_at = Deadline.from_now(timeout, grace_ms)

    with :ok <- allowed(IO.iodata_length(body)),
         {:ok, socket} <- connect(address, give_up_at, timeout) do
      sent(
        %__MODULE__{
          socket: socket,
          stopped: :atomics.new(1, []),
          give_up_at: give_up_at,
          timeout: timeout
        },
        head(address, path, IO.iodata_length(body)),
        body
      )
    end
  end

  defp allowed(size) when size <= @max_body_bytes, do: :ok

  defp allowed(size) do
    text = "the request has #{size} bytes, and a server takes at most #{@max_body_bytes}"

    {:error,
     Error.new(:frame_too_large, text, data: %{"size" => size, "limit" => @max_body_bytes})}
  end

  @options [
    :binary,
    active: false,
    packet: :http_bin,
    packet_size: @max_line_bytes,
    keepalive: true,
    nodelay: true,
    send_timeout_close: true
  ]

  defp connect(address, give_up_at, timeout) do
    case Address.connect(address, @options, fn -> Deadline.left(give_up_at) end) do
      {:ok, socket} -> {:ok, socket}
      {:error, :timeout} -> {:error, late(timeout)}
      {:error, reason} -> {:error, Address.unreachable(address, reason)}
    end
  end

  defp head({_host, _port, token} = address, path, length) do
    [
      "POST #{path} HTTP/1.1\r\nhost: #{Address.authority(address)}\r\n",
      if(token, do: "authorization: Bearer #{Secret.reveal(token)}\r\n", else: ""),
      "content-type: application/json\r\ncontent-length: #{length}\r\nconnection: close\r\n",
      if(asks?(length), do: "expect: 100-continue\r\n\r\n", else: "\r\n")
    ]
  end

  defp asks?(length), do: length > @unasked_bytes

  # A server that refuses a long body answers and hangs up before it has read it, and what it said is
  # lost where that meets bytes that are still being sent.
  defp sent(exchange, head, body) do
    if asks?(IO.iodata_length(body)) do
      with {:ok, exchange} <- sent(exchange, head) do
        case answer(exchange, @asking_ms) do
          {:ok, %{status: nil} = exchange} -> sent(exchange, body)
          {:ok, refused} -> {:ok, refused}
          {:error, :timeout} -> sent(exchange, body)
          {:error, reason} -> failed(exchange, reason)
        end
      end
    else
      sent(exchange, [head | body])
    end
  end

  # Where the connection has ended there may be an answer that says why.
  defp sent(exchange, bytes) do
    with :ok <- :inet.setopts(exchange.socket, send_timeout: Deadline.left(exchange.give_up_at)),
         {:error, :timeout} <- :gen_tcp.send(exchange.socket, bytes) do
      failed(exchange, :timeout)
    else
      _sent_or_closed -> {:ok, exchange}
    end
  end

  @doc "The status of the answer."
  @spec status(t()) :: {:ok, pos_integer(), t()} | {:error, Error.t()}
  def status(%__MODULE__{status: nil} = exchange) do
    case answer(exchange, :infinity) do
      {:ok, exchange} -> status(exchange)
      {:error, reason} -> failed(exchange, reason)
    end
  end

  def status(exchange), do: {:ok, exchange.status, exchange}

  # The head of the answer, or one with a status of 1xx, which is none yet.
  defp answer(exchange, bound) do
    with {:ok, {:http_response, _version, status, _reason}} <- recv(exchange, bound),
         {:ok, framing} <- headers(exchange, :to_the_end, @max_headers) do
      if status in 100..199, do: {:ok, exchange}, else: body_follows(exchange, status, framing)
    else
      {:error, reason} -> {:error, reason}
      {:ok, _other} -> {:error, :no_http}
    end
  end

  defp body_follows(exchange, status, framing) do
    with :ok <- :inet.setopts(exchange.socket, packet: :raw),
         do: {:ok, %{exchange | status: status, framing: framing}}
  end

  defp headers(_exchange, _framing, 0), do: {:error, :no_http}

  defp headers(exchange, framing, left) do
    case recv(exchange) do
      {:ok, {:http_header, _, name, _, value}} ->
        with {:ok, framing} <- framing(framing, name, value),
             do: headers(exchange, framing, left - 1)

      {:ok, :http_eoh} ->
        {:ok, framing}

      {:ok, _other} ->
        {:error, :no_http}

      {:error, reason} ->
        {:error, reason}
    end
  end

  # Pieces are what counts where a length is told, too (RFC 9112, 6.3).
  defp framing(_before, :"Transfer-Encoding", value) do
    if value |> String.trim() |> String.downcase() == "chunked",
      do: {:ok, {:chunked, :head}},
      else: {:error, :no_http}
  end

  defp framing({:chunked, _state} = chunked, :"Content-Length", _value), do: {:ok, chunked}

  defp framing(before, :"Content-Length", value) do
    case {Integer.parse(String.trim(value)), before} do
      {{length, ""}, :to_the_end} when length >= 0 -> {:ok, {:length, length}}
      {{length, ""}, {:length, length}} -> {:ok, before}
      _other -> {:error, :no_http}
    end
  end

  defp framing(before, _name, _value), do: {:ok, before}

  @doc "The next bytes of the body, as many as have come."
  @spec more(t()) :: {:ok, binary(), t()} | {:done, t()} | {:error, Error.t()}
  def more(%__MODULE__{framing: {:length, 0}} = exchange), do: {:done, exchange}
  def more(%__MODULE__{framing: :done} = exchange), do: {:done, exchange}

  def more(%__MODULE__{framing: {:length, length}, buffer: ""} = exchange) do
    with_bytes(exchange, fn bytes ->
      taken = min(length, byte_size(bytes))
      framing = {:length, length - taken}
      {:ok, binary_part(bytes, 0, taken), %{exchange | framing: framing}}
    end)
  end

  def more(%__MODULE__{framing: :to_the_end} = exchange) do
    case recv(exchange) do
      {:ok, bytes} -> {:ok, bytes, exchange}
      {:error, :closed} -> ended(exchange)
      {:error, reason} -> failed(exchange, reason)
    end
  end

  def more(%__MODULE__{framing: {:chunked, left}} = exchange) when is_integer(left) do
    case exchange.buffer do
      "" ->
        with_bytes(exchange, &more(%{exchange | buffer: &1}))

      buffer ->
        taken = min(left, byte_size(buffer))
        <<piece::binary-size(taken), rest::binary>> = buffer
        state = if taken == left, do: :tail, else: left - taken
        {:ok, piece, %{exchange | framing: {:chunked, state}, buffer: rest}}
    end
  end

  def more(%__MODULE__{framing: {:chunked, :tail}, buffer: buffer} = exchange) do
    case buffer do
      "\r\n" <> rest -> more(%{exchange | framing: {:chunked, :head}, buffer: rest})
      short when short in ["", "\r"] -> more_of_line(exchange)
      _other -> failed(exchange, :no_http)
    end
  end

  def more(%__MODULE__{framing: {:chunked, :head}, buffer: buffer} = exchange) do
    with [line, rest] <- String.split(buffer, "\r\n", parts: 2),
         {size, extension} when size >= 0 and extension in ["", ";"] <- chunk_size(line) do
      # What may follow the last chunk is of no use to anybody.
      if size == 0,
        do: {:done, %{exchange | framing: :done}},
        else: more(%{exchange | framing: {:chunked, size}, buffer: rest})
    else
      [_no_end] when byte_size(buffer) <= @max_chunk_head_bytes -> more_of_line(exchange)
      _other -> failed(exchange, :no_http)
    end
  end

  defp chunk_size(line) do
    case Integer.parse(line, 16) do
      {size, ";" <> _extension} -> {size, ";"}
      other -> other
    end
  end

  defp more_of_line(exchange),
    do: with_bytes(exchange, &more(%{exchange | buffer: exchange.buffer <> &1}))

  defp with_bytes(exchange, fun) do
    case recv(exchange) do
      {:ok, bytes} -> fun.(bytes)
      {:error, reason} -> failed(exchange, reason)
    end
  end

  defp ended(exchange) do
    if stopped?(exchange), do: failed(exchange, :closed), else: {:done, exchange}
  end

  @doc "The whole body, of at most so many bytes."
  @spec body(t(), pos_integer()) :: {:ok, binary()} | {:error, Error.t()}
  def body(exchange, limit), do: body(exchange, limit, [], 0)

  defp body(exchange, limit, done, size) do
    case more(exchange) do
      {:ok, bytes, exchange} when size + byte_size(bytes) <= limit ->
        body(exchange, limit, [done, bytes], size + byte_size(bytes))

      {:ok, _bytes, _exchange} ->
        {:error, too_large(limit)}

      {:done, _exchange} ->
        {:ok, IO.iodata_to_binary(done)}

      {:error, error} ->
        {:error, error}
    end
  end

  @doc "The error that a status other than 200 means, with what the body says of it."
  @spec refusal(t(), pos_integer(), pos_integer()) :: Error.t()
  def refusal(exchange, status, limit) do
    with {:ok, text} <- body(exchange, limit),
         {:ok, %{"error" => error}} <- JSON.decode(text),
         {:ok, error} <- Error.from_wire(error) do
      error
    else
      {:error, %Error{code: code} = error} when code != :parse_error ->
        error

      _no_error_of_ours ->
        text = "the server answered with the status #{status} and no reason: its log may say why"
        Error.new(:internal_error, text, data: %{"status" => status})
    end
  end

  @spec too_large(pos_integer()) :: Error.t()
  def too_large(limit) do
    Error.new(:frame_too_large, "the server's answer has more than #{limit} bytes",
      data: %{"limit" => limit}
    )
  end

  @doc "Ends the exchange, from any process: the one that reads is told `cancelled`."
  @spec stop(t()) :: :ok
  def stop(exchange) do
    :atomics.put(exchange.stopped, 1, 1)
    _gone = :gen_tcp.shutdown(exchange.socket, :read_write)
    :ok
  end

  @doc "Ends the exchange: the server cancels what nobody waits for."
  @spec close(t()) :: :ok
  def close(exchange), do: :gen_tcp.close(exchange.socket)

  defp stopped?(exchange), do: :atomics.get(exchange.stopped, 1) == 1

  # With nothing left it would still take what is there, and so go on for as long as anything comes.
  defp recv(exchange, bound \\ :infinity) do
    case Deadline.left(exchange.give_up_at, bound) do
      0 -> {:error, :timeout}
      left -> :gen_tcp.recv(exchange.socket, 0, left)
    end
  end

  defp failed(exchange, reason) do
    close(exchange)

    cond do
      stopped?(exchange) -> {:error, Error.new(:cancelled, "the request was cancelled")}
      reason == :timeout -> {:error, late(exchange.timeout)}
      reason == :closed -> {:error, lost("closed the connection before it had answered")}
      is_atom(reason) and reason not in [:no_http, :emsgsize] -> {:error, lost(posix(reason))}
      true -> {:error, Error.new(:parse_error, "what came from the server is no HTTP")}
    end
  end

  # Whether it was done nobody knows here: an execution says so in its row.
  defp lost(what), do: Error.new(:connection_lost, "the server #{what}")

  defp posix(reason), do: "was lost: #{:inet.format_error(reason)}"

  defp late(timeout), do: Error.new(:timeout, "no answer within #{timeout} ms")
end
