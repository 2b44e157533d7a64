defmodule DSPex.Protocol.Message do
  @moduledoc """
  Requests, responses and notifications: the three arrays that frames hold.

  The work on a message is shared between two processes. The caller writes `body/2` and reads
  `parse/1`, where the values are; the connection, which must never be slow, only puts `request/2`
  before a body and looks at the first bytes of what comes back with `peek/1`.
  """

  alias DSPex.Error
  alias DSPex.Protocol.{Apart, Codec}

  @request 0
  @response 1
  @notification 2

  @max_id 0x7FFF_FFFF_FFFF_FFFF

  @type id :: non_neg_integer()

  @type t ::
          {:request, id(), method :: String.t(), params :: map()}
          | {:response, id() | nil, {:ok, term()} | {:error, Error.t()}}
          | {:notification, method :: String.t(), params :: map()}

  @type peeked ::
          {:request, id(), method :: String.t() | nil}
          | {:response, id() | nil, :ok | :error}
          | {:notification, method :: String.t() | nil, about :: id() | nil}
          | :unknown

  @doc "The part of a request or notification that does not depend on its id, encoded."
  @spec body(String.t(), map()) :: {:ok, binary()} | {:error, Error.t()}
  def body(method, params) when is_binary(method) and is_map(params) do
    with {:ok, method} <- Codec.encode_to_iodata(method, 1),
         {:ok, params} <- Codec.encode_to_iodata(params, 1),
         do: {:ok, IO.iodata_to_binary([method, params])}
  end

  @doc """
  A request with the given body.

      iex> {:ok, body} = DSPex.Protocol.Message.body("ping", %{})
      iex> IO.iodata_to_binary(DSPex.Protocol.Message.request(7, body))
      <<0x94, 0, 7, 0xA4, "ping", 0x80>>
  """
  @spec request(id(), binary()) :: iodata()
  def request(id, body) when id in 0..@max_id, do: [0x94, @request, encode_id(id), body]

  @doc "A notification with the given body."
  @spec notification(binary()) :: iodata()
  def notification(body), do: [0x93, @notification, body]

  @doc "The response that refuses a request, or a frame of which not even the id can be read."
  @spec error_response(id() | nil, Error.t()) :: binary()
  def error_response(id, %Error{} = error) do
    # What was made here always has a form on the wire.
    {:ok, response} = Codec.encode([@response, id, Error.to_wire(error), nil])
    response
  end

  @doc "The response that gives a request its result."
  @spec result_response(id(), term()) :: {:ok, iodata()} | {:error, Error.t()}
  def result_response(id, result) when id in 0..@max_id do
    with {:ok, result} <- Codec.encode_to_iodata(result, 1),
         do: {:ok, [0x94, @response, encode_id(id), 0xC0, result]}
  end

  @doc """
  Reads a whole message, strictly, a long one in a process of its own (see
  `DSPex.Protocol.Apart`). A refusal comes with the id where one could be read.

      iex> DSPex.Protocol.Message.parse(<<0x94, 1, 7, 0xC0, 0xA2, "hi">>)
      {:ok, {:response, 7, {:ok, "hi"}}}

      iex> {:error, error, 7} = DSPex.Protocol.Message.parse(<<0x94, 1, 7, 0xC0>>)
      iex> error.code
      :parse_error
  """
  @spec parse(binary()) :: {:ok, t()} | {:error, Error.t(), id() | nil}
  def parse(frame) when is_binary(frame) do
    case Apart.read(frame, &parse_here/1) do
      {:ok, parsed} -> parsed
      {:error, error} -> {:error, error, peeked_id(peek(frame))}
    end
  end

  @doc "The same in this process, whatever it takes."
  @spec parse_here(binary()) :: {:ok, t()} | {:error, Error.t(), id() | nil}
  def parse_here(frame) when is_binary(frame) do
    with {:ok, value} <- Codec.decode(frame),
         {:ok, message} <- message(value) do
      {:ok, message}
    else
      {:error, error} -> {:error, error, peeked_id(peek(frame))}
    end
  end

  # A struct is a value with a type of its own, such as a tensor, and no map.
  defguardp is_plain_map(term) when is_map(term) and not is_struct(term)

  defp message([@request, id, method, params])
       when id in 0..@max_id and is_binary(method) and is_plain_map(params),
       do: {:ok, {:request, id, method, params}}

  defp message([@response, id, nil, result]) when id in 0..@max_id,
    do: {:ok, {:response, id, {:ok, result}}}

  # Where both are there, the error counts.
  defp message([@response, id, error, _result])
       when (id in 0..@max_id or id == nil) and error != nil do
    case Error.from_wire(error) do
      {:ok, error} -> {:ok, {:response, id, {:error, error}}}
      :error -> invalid("a response whose error is no map of code, message, retryable and data")
    end
  end

  defp message([@notification, method, params]) when is_binary(method) and is_plain_map(params),
    do: {:ok, {:notification, method, params}}

  defp message(_other), do: invalid("a value that is no request, response or notification")

  defp invalid(what), do: {:error, Error.new(:invalid_request, "the frame holds #{what}")}

  @doc """
  Tells from its first bytes what a message is and whose, without reading the rest. A method is told
  where it is no longer than 31 bytes, as all are, and the request that a notification is about where
  that stands first in its params, as bridges write it; else they are `nil`.

      iex> DSPex.Protocol.Message.peek(<<0x94, 1, 0xCD, 1, 0, 0xC0, "whatever">>)
      {:response, 256, :ok}

      iex> DSPex.Protocol.Message.peek(<<0x93, 2, 0xA5, "chunk", 0x81, 0xA2, "id", 7>>)
      {:notification, "chunk", 7}

      iex> DSPex.Protocol.Message.peek("Traceback (most recent call last)")
      :unknown
  """
  @spec peek(binary()) :: peeked()
  # The usual answer, at one look.
  for {byte, bits} <- [{0xCC, 8}, {0xCD, 16}, {0xCE, 32}] do
    def peek(<<0x94, @response, unquote(byte), id::unquote(bits), 0xC0, _result::binary>>),
      do: {:response, id, :ok}
  end

  def peek(<<0x9::4, length::4, rest::binary>>), do: peek_kind(length, rest)
  def peek(<<0xDC, length::16, rest::binary>>), do: peek_kind(length, rest)
  def peek(<<0xDD, length::32, rest::binary>>), do: peek_kind(length, rest)
  def peek(_other), do: :unknown

  # Not of the right length alone: of what is no good for its length it is still told whose it is.
  defp peek_kind(0, _bytes), do: :unknown

  defp peek_kind(length, bytes) do
    case peek_integer(bytes) do
      {@request, rest} when length >= 2 -> peek_request(peek_integer(rest))
      {@response, rest} -> peek_response(peek_integer(rest))
      {@notification, rest} -> peek_notification(peek_text(rest))
      _other -> :unknown
    end
  end

  defp peek_request({id, rest}) when id in 0..@max_id do
    case peek_text(rest) do
      {method, _params} -> {:request, id, method}
      :unknown -> {:request, id, nil}
    end
  end

  defp peek_request(_other), do: :unknown

  defp peek_response({id, <<0xC0, _result::binary>>}) when id in 0..@max_id,
    do: {:response, id, :ok}

  defp peek_response({id, _error}) when id in 0..@max_id, do: {:response, id, :error}
  # To nobody: the id is nil, or nonsense.
  defp peek_response(_other), do: {:response, nil, :error}

  defp peek_notification({method, params}), do: {:notification, method, peek_about(params)}
  defp peek_notification(:unknown), do: {:notification, nil, nil}

  defp peek_about(<<0x8::4, size::4, 0xA2, "id", rest::binary>>) when size > 0 do
    case peek_integer(rest) do
      {id, _rest} when id in 0..@max_id -> id
      _other -> nil
    end
  end

  defp peek_about(_params), do: nil

  defp peek_text(<<0b101::3, size::5, text::binary-size(size), rest::binary>>), do: {text, rest}
  defp peek_text(_other), do: :unknown

  # The shortest form is usual, but any is good MessagePack.
  defp peek_integer(<<number, rest::binary>>) when number < 0x80, do: {number, rest}
  defp peek_integer(<<0xCC, number, rest::binary>>), do: {number, rest}
  defp peek_integer(<<0xCD, number::16, rest::binary>>), do: {number, rest}
  defp peek_integer(<<0xCE, number::32, rest::binary>>), do: {number, rest}
  defp peek_integer(<<0xCF, number::64, rest::binary>>), do: {number, rest}
  defp peek_integer(<<0xD0, number::signed, rest::binary>>), do: {number, rest}
  defp peek_integer(<<0xD1, number::signed-16, rest::binary>>), do: {number, rest}
  defp peek_integer(<<0xD2, number::signed-32, rest::binary>>), do: {number, rest}
  defp peek_integer(<<0xD3, number::signed-64, rest::binary>>), do: {number, rest}
  defp peek_integer(_other), do: :unknown

  defp peeked_id({:request, id, _method}), do: id
  defp peeked_id({:response, id, _outcome}), do: id
  defp peeked_id(_other), do: nil

  defp encode_id(id) when id < 0x80, do: <<id>>
  defp encode_id(id) when id < 0x1_0000_0000, do: <<0xCE, id::32>>
  defp encode_id(id), do: <<0xCF, id::64>>
end
