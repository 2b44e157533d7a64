defmodule DSPex.Protocol.Codec do
  @moduledoc """
  MessagePack, as the protocol uses it: values of Elixir to bytes and back.

  | on the wire | Elixir |
  |---|---|
  | nil, true, false, integer | the same |
  | float (32 and 64 bits read, 64 written) | float; `:nan`, `:infinity`, `:neg_infinity` |
  | str | `t:String.t/0`; other atoms are written as their names |
  | bin | `DSPex.Binary` |
  | array | list |
  | map | map with string keys; atom keys are written as their names |
  | ext -1, timestamp | `DateTime` in UTC, years 1 to 9999, to the microsecond (finer is cut) |
  | ext 1 | integer beyond 64 bits |
  | ext 2 | `DSPex.Tensor` |
  | ext 3 | `Decimal` where that library is loaded, else `DSPex.Decimal` |

  `Date`, `Time` and `NaiveDateTime` are written as ISO 8601 text. What has no form here (other
  structs, tuples, functions, pids, text that is not UTF-8) is refused with an error that says where
  it stands. What is read never becomes an atom.
  """

  alias DSPex.Error
  alias DSPex.Protocol.Codec.{Decoder, Encoder}

  @doc """
  Reads exactly one value.

      iex> DSPex.Protocol.Codec.decode(<<0x82, 0xA1, "a", 1, 0xA1, "b", 0x93, 1, 0xC0, 0xC3>>)
      {:ok, %{"a" => 1, "b" => [1, nil, true]}}

      iex> {:error, error} = DSPex.Protocol.Codec.decode(<<0x92, 1, 0xC1>>)
      iex> Exception.message(error)
      "parse_error: byte 2: 0xC1 is no MessagePack type"
  """
  @spec decode(binary()) :: {:ok, term()} | {:error, Error.t()}
  def decode(data) when is_binary(data), do: Decoder.decode(data)

  @doc """
  Writes one value. `depth` is how many containers it will stand inside of.

      iex> DSPex.Protocol.Codec.encode(%{a: [1, -1, nil]})
      {:ok, <<0x81, 0xA1, "a", 0x93, 1, 0xFF, 0xC0>>}

      iex> {:error, error} = DSPex.Protocol.Codec.encode(%{inputs: %{size: [1, {2, 3}]}})
      iex> Exception.message(error)
      "encode_error: inputs.size[1]: a tuple has no form on the wire; use a list"
  """
  @spec encode(term(), non_neg_integer()) :: {:ok, binary()} | {:error, Error.t()}
  def encode(term, depth \\ 0) do
    with {:ok, iodata} <- encode_to_iodata(term, depth), do: {:ok, IO.iodata_to_binary(iodata)}
  end

  @doc "Writes one value as iodata."
  @spec encode_to_iodata(term(), non_neg_integer()) :: {:ok, iodata()} | {:error, Error.t()}
  def encode_to_iodata(term, depth \\ 0), do: Encoder.encode_to_iodata(term, depth)
end
