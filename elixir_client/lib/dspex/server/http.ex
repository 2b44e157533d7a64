defmodule DSPex.Server.HTTP do
  @moduledoc false
  # One exchange over HTTP/1.1 on a connection of its own, read by the process that opened it, piece
  # by piece and only when it asks: who reads slowly slows the server. Any process may stop it.

  alias DSPex.{Error, Secret}
  alias DSPex.Server.JSON

  @default_url "http://127.0.0.1:8000"

  # A line of the answer's head; servers and proxies send shorter ones.
  @max_line_bytes 16 * 1024
  @max_headers 100

  # A size in hexadecimal digits, and what may stand behind it.
  @max_chunk_head_bytes 128

  @enforce_keys [:socket, :stopped, :give_up_at, :timeout]
  defstruct [:socket, :stopped, :give_up_at, :timeout, :status, :framing, buffer: "", read: 0]

  @opaque t :: %__MODULE__{}

  @typedoc "Where a server listens, and the token that it wants to be shown, if any."
  @type address ::
          {host :: charlist(), port :: :inet.port_number(), token :: Secret.t(String.t()) | nil}

  @spec default_url() :: String.t()
  def default_url, do: @default_url

  @doc "Where a server listens. `http` alone: it has no TLS, and listens on the loopback."
  @spec address(term(), Secret.t(String.t()) | nil) :: {:ok, address()} | {:error, String.t()}
  def address(url, token \\ nil)

  def address(url, token) when is_binary(url) do
    case URI.new(url) do
      {:ok, %URI{scheme: "http", host: host, path: path, query: nil, userinfo: nil} = uri}
      when is_binary(host) and host != "" and path in [nil, "/"] ->
        {:ok, {String.to_charlist(host), uri.port, token}}

      _other ->
        {:error, "expected the address of a server, such as #{@default_url}"}
    end
  end

  def address(_other, _token),
    do: {:error, "expected the address of a server, such as #{@default_url}"}

  @doc "A token, hidden; a check of `DSPex.Options`. It is one line of the request's head."
  @spec token(term()) :: {:ok, Secret.t(String.t())} | {:error, String.t()}
  def token(%Secret{} = token), do: {:ok, token}

  def token(token) when is_binary(token) and token != "" do
    if String.match?(token, ~r/\A[\x21-\x7e]+\z/),
      do: {:ok, Secret.new(token)},
      else: {:error, "a token is of ASCII, without spaces"}
  end

  def token(_other), do: {:error, "expected a string that is not empty (is the variable set?)"}

  @doc "Sends a POST of JSON. Nothing of the answer has been read then."
  @spec post(address(), String.t(), iodata(), timeout()) :: {:ok, t()} | {:error, Error.t()}
  def post({host, port, token}, path, body, timeout) do
    give_up_at =
      if timeout == :infinity,
        do: :infinity,
        else: System.monotonic_time(:millisecond) + timeout

    options = [:binary, active: false, packet: :http_bin, packet_size: @max_line_bytes]

    options =
      options ++ [keepalive: true, nodelay: true, send_timeout_close: true] ++ family(host)

    with {:ok, socket} <- :gen_tcp.connect(host, port, options, left(give_up_at)),
         stopped = :atomics.new(1, []),
         exchange = %__MODULE__{
           socket: socket,
           stopped: stopped,
           give_up_at: give_up_at,
           timeout: timeout
         },
         :ok <- :inet.setopts(socket, send_timeout: left(give_up_at)),
         :ok <- sent(exchange, [head(host, port, token, path, IO.iodata_length(body)), body]) do
      {:ok, exchange}
    else
      {:error, %Error{} = error} -> {:error, error}
      {:error, :timeout} -> {:error, late(timeout)}
      {:error, reason} -> {:error, unreachable(host, port, reason)}
    end
  end

  defp family(host) do
    case :inet.parse_ipv6strict_address(host) do
      {:ok, _address} -> [:inet6]
      {:error, _reason} -> []
    end
  end

  defp head(host, port, token, path, length) do
    [
      "POST #{path} HTTP/1.1\r\nhost: #{authority(host)}:#{port}\r\n",
      if(token, do: "authorization: Bearer #{Secret.reveal(token)}\r\n", else: ""),
      "content-type: application/json\r\ncontent-length: #{length}\r\nconnection: close\r\n\r\n"
    ]
  end

  defp authority(host), do: if(family(host) == [], do: host, else: "[#{host}]")

  # One that refuses a body answers before it has read it: the answer says why.
  defp sent(exchange, request) do
    case :gen_tcp.send(exchange.socket, request) do
      {:error, :timeout} ->
        close(exchange)
        {:error, :timeout}

      _sent_or_closed ->
        :ok
    end
  end

  @doc "The status of the answer."
  @spec status(t()) :: {:ok, pos_integer(), t()} | {:error, Error.t()}
  def status(%__MODULE__{status: nil} = exchange) do
    with {:ok, {:http_response, _version, status, _reason}} <- recv(exchange),
         {:ok, framing} <- headers(exchange, :to_the_end, @max_headers),
         :ok <- :inet.setopts(exchange.socket, packet: :raw) do
      {:ok, status, %{exchange | status: status, framing: framing}}
    else
      {:error, reason} -> failed(exchange, reason)
      {:ok, _other} -> failed(exchange, :no_http)
    end
  end

  def status(exchange), do: {:ok, exchange.status, exchange}

  defp headers(_exchange, _framing, 0), do: {:error, :no_http}

  defp headers(exchange, framing, left) do
    case recv(exchange) do
      {:ok, {:http_header, _, :"Transfer-Encoding", _, "chunked"}} ->
        headers(exchange, {:chunked, :head}, left - 1)

      {:ok, {:http_header, _, :"Content-Length", _, length}} ->
        case Integer.parse(length) do
          {length, ""} when length >= 0 -> headers(exchange, {:length, length}, left - 1)
          _other -> {:error, :no_http}
        end

      {:ok, {:http_header, _, _name, _, _value}} ->
        headers(exchange, framing, left - 1)

      {:ok, :http_eoh} ->
        {:ok, framing}

      {:ok, _other} ->
        {:error, :no_http}

      {:error, reason} ->
        {:error, reason}
    end
  end

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
  defp recv(exchange) do
    case left(exchange.give_up_at) do
      0 -> {:error, :timeout}
      left -> :gen_tcp.recv(exchange.socket, 0, left)
    end
  end

  defp left(:infinity), do: :infinity
  defp left(give_up_at), do: max(0, give_up_at - System.monotonic_time(:millisecond))

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

  defp unreachable(host, port, reason) do
    text =
      "no server answers at #{authority(host)}:#{port} (#{:inet.format_error(reason)}): " <>
        "is `dspex serve` running there?"

    Error.new(:connection_lost, text, retryable: true)
  end
end
