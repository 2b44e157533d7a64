defmodule DSPex.Adapter.Server.Exchange do
  @moduledoc false
  # A request of the port protocol as a POST to /v1/calls, and the server-sent events that answer it:
  # notifications, then `result` or `error`. Nothing of it comes by a message: it is read when asked for.

  alias DSPex.Adapter
  alias DSPex.Adapter.Server.Known
  alias DSPex.Error
  alias DSPex.Server.{HTTP, JSON, Values}

  # The server's own answer to a deadline may come a moment after it.
  @grace_ms 50

  @enforce_keys [:instance, :http, :key, :listens?, :entry, :max_bytes]
  defstruct @enforce_keys

  @type t :: %__MODULE__{}

  @spec request(atom(), String.t(), map(), timeout(), keyword()) :: DSPex.Adapter.result()
  def request(instance, method, params, timeout, options) do
    listener = options[:listener]

    with {:ok, exchange} <- open(instance, method, params, timeout, listener != nil, options),
         do: Adapter.Exchange.await(__MODULE__, exchange, listener)
  end

  @spec open(term(), String.t(), map(), timeout(), boolean(), keyword()) ::
          {:ok, t()} | {:error, Error.t()}
  def open(instance, method, params, timeout, listens?, options) do
    with {:ok, about} <- Known.about(instance),
         {:ok, json} <- Values.to_json(with_deadline(params, timeout)),
         # The key of each value in the body is a parameter's name, and none of the user's own.
         path = "/v1/calls/" <> URI.encode_www_form(method),
         grace_ms = options[:grace] || @grace_ms,
         {:ok, http} <- HTTP.post(about.address, path, JSON.encode(json), timeout, grace_ms) do
      # What of the answer has been read is kept here: `next/1` has no state to give back.
      key = {__MODULE__, make_ref()}
      Process.put(key, {http, ""})

      {:ok,
       %__MODULE__{
         instance: instance,
         http: http,
         key: key,
         listens?: listens?,
         entry: options[:entry],
         max_bytes: about.max_bytes
       }}
    end
  end

  defp with_deadline(params, :infinity), do: params
  defp with_deadline(params, timeout), do: Map.put(params, :timeout_ms, timeout)

  @spec next(t()) :: {:notification, String.t(), map()} | {:answer, DSPex.Adapter.result()}
  def next(exchange) do
    case Process.get(exchange.key) do
      {http, buffer} ->
        with {:ok, 200, http} <- HTTP.status(http),
             {:ok, name, data, http, buffer} <- event(http, buffer, exchange.max_bytes) do
          Process.put(exchange.key, {http, buffer})
          heard(exchange, name, data)
        else
          {:ok, status, http} -> answer(exchange, refused(http, status, exchange.max_bytes))
          {:error, error} -> answer(exchange, {:error, error})
        end

      nil ->
        {:answer, {:error, Error.new(:cancelled, "the request was closed")}}
    end
  end

  defp refused(http, status, limit), do: {:error, HTTP.refusal(http, status, limit)}

  # An event is its lines up to an empty one. `before` has been searched for that, and `bytes` not.
  defp event(http, bytes, limit, before \\ [], size \\ 0) do
    case String.split(bytes, "\n\n", parts: 2) do
      [lines, rest] ->
        with {:ok, name, data} <- read(IO.iodata_to_binary([before | lines])),
             do: {:ok, name, data, http, rest}

      [_part] when size + byte_size(bytes) > limit ->
        {:error, HTTP.too_large(limit)}

      [part] ->
        {searched, open} = last_line_end(part)

        case HTTP.more(http) do
          {:ok, more, http} ->
            event(http, open <> more, limit, [before | searched], size + byte_size(searched))

          {:done, _http} ->
            {:error, Error.new(:connection_lost, "the server's answer has no end")}

          {:error, error} ->
            {:error, error}
        end
    end
  end

  # The end of a line that the next piece may make the end of the event.
  defp last_line_end(part) do
    if String.ends_with?(part, "\n"),
      do: {binary_part(part, 0, byte_size(part) - 1), "\n"},
      else: {part, ""}
  end

  defp read(lines) do
    with ["event: " <> name, "data: " <> data] <- String.split(lines, "\n"),
         {:ok, json} <- JSON.decode(data),
         {:ok, value} <- Values.from_json(json) do
      {:ok, name, value}
    else
      {:error, error} -> {:error, error}
      _other -> {:error, Error.new(:parse_error, "what the server sent is no event")}
    end
  end

  defp heard(exchange, "result", result), do: answer(exchange, recorded(exchange, result))

  defp heard(exchange, "error", error) do
    case Error.from_wire(error) do
      {:ok, error} -> answer(exchange, {:error, error})
      :error -> answer(exchange, {:error, Error.new(:parse_error, "the server's error is none")})
    end
  end

  defp heard(%{listens?: true}, method, params) when is_map(params),
    do: {:notification, method, params}

  defp heard(exchange, _method, _params), do: next(exchange)

  # It is known before its answer is. The server tells nothing anew, so that no body is needed.
  defp recorded(%{entry: nil}, result), do: {:ok, result}

  defp recorded(exchange, result) do
    with :ok <- Known.record(exchange.instance, exchange.entry.(fn -> "" end)),
         do: {:ok, result}
  end

  defp answer(exchange, result) do
    close(exchange)
    {:answer, result}
  end

  @spec cancel(t()) :: :ok
  def cancel(exchange), do: HTTP.stop(exchange.http)

  @spec close(t()) :: :ok
  def close(exchange) do
    Process.delete(exchange.key)
    HTTP.close(exchange.http)
  end
end
