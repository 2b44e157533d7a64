defmodule DSPex.Server.Address do
  @moduledoc false
  # Where a server listens, the token that it wants to be shown, and connections to there.

  alias DSPex.{Error, Secret}

  @default_url "http://127.0.0.1:8000"

  @max_port 65_535

  @typedoc "Where a server listens, and the token that it wants to be shown, if any."
  @type t ::
          {host :: charlist(), port :: :inet.port_number(), token :: Secret.t(String.t()) | nil}

  @spec default_url() :: String.t()
  def default_url, do: @default_url

  @doc "Where a server listens. `http` alone: it has no TLS, and listens on the loopback."
  @spec new(term(), Secret.t(String.t()) | nil) :: {:ok, t()} | {:error, String.t()}
  def new(url, token \\ nil)

  def new(url, token) when is_binary(url) do
    case URI.new(url) do
      {:ok, %URI{scheme: "http", host: host, port: port, query: nil, userinfo: nil} = uri}
      when is_binary(host) and host != "" and port in 1..@max_port and uri.path in [nil, "/"] ->
        {:ok, {String.to_charlist(host), port, token}}

      _other ->
        wrong()
    end
  end

  def new(_other, _token), do: wrong()

  defp wrong, do: {:error, "expected the address of a server, such as #{@default_url}"}

  @doc "A token, hidden; a check of `DSPex.Options`. It is one line of the request's head."
  @spec token(term()) :: {:ok, Secret.t(String.t())} | {:error, String.t()}
  def token(%Secret{} = token), do: {:ok, token}

  def token(token) when is_binary(token) and token != "" do
    if String.match?(token, ~r/\A[\x21-\x7e]+\z/),
      do: {:ok, Secret.new(token)},
      else: {:error, "a token is of ASCII, without spaces"}
  end

  def token(_other), do: {:error, "expected a string that is not empty (is the variable set?)"}

  @doc "The host and the port, as a URL and the head of a request have them."
  @spec authority(t()) :: String.t()
  def authority({host, port, _token}),
    do: if(families(host) == [:inet6], do: "[#{host}]:#{port}", else: "#{host}:#{port}")

  @doc "A connection to there. A name may have addresses of both kinds, and a server at one of them."
  @spec connect(t(), [:gen_tcp.connect_option()], (() -> timeout())) ::
          {:ok, :gen_tcp.socket()} | {:error, term()}
  def connect({host, port, _token}, options, left) do
    Enum.reduce_while(families(host), {:error, :nxdomain}, fn family, failed ->
      case :gen_tcp.connect(host, port, [family | options], left.()) do
        {:ok, socket} ->
          {:halt, {:ok, socket}}

        {:error, :timeout} ->
          {:halt, {:error, :timeout}}

        # That a name has no address of one kind says less than what came of the other.
        {:error, reason} ->
          {:cont, if(failed == {:error, :nxdomain}, do: {:error, reason}, else: failed)}
      end
    end)
  end

  defp families(host) do
    case :inet.parse_strict_address(host) do
      {:ok, ip} when tuple_size(ip) == 8 -> [:inet6]
      {:ok, _ip} -> [:inet]
      {:error, _name} -> [:inet, :inet6]
    end
  end

  @doc "The error that a connection which was not made means. Nothing was sent then."
  @spec unreachable(t(), atom()) :: Error.t()
  def unreachable(address, reason) do
    text = "no connection to the server at #{authority(address)}: #{:inet.format_error(reason)}"
    Error.new(:connection_lost, text <> advice(reason), retryable: true)
  end

  defp advice(:econnrefused), do: " (is `dspex serve` running there?)"
  defp advice(_reason), do: ""
end
