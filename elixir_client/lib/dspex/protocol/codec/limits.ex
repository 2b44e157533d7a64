defmodule DSPex.Protocol.Codec.Limits do
  @moduledoc false
  # What reading and writing must agree on, and why it is so.

  @doc """
  Containers inside one another, the outermost counted. The protocol wants 512 accepted and more
  than 1,024 refused; 1,024 is also where Python's msgpack stops.
  """
  @spec max_depth() :: pos_integer()
  def max_depth, do: 1024

  @doc "Over 600,000 digits. Newer BEAMs hold no integer of more than twice that."
  @spec max_integer_bytes() :: pos_integer()
  def max_integer_bytes, do: 262_144

  @doc "An exponent makes a gigabyte of digits out of a short text; a long one is a weapon, too."
  @spec max_decimal_bytes() :: pos_integer()
  def max_decimal_bytes, do: 4096

  @doc "0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z in Unix time."
  @spec seconds() :: Range.t()
  def seconds, do: -62_135_596_800..253_402_300_799

  @doc "What stands in a refusal."
  @spec years() :: String.t()
  def years, do: "a timestamp's year is from 1 to 9999"

  @spec long_decimal(String.t()) :: String.t()
  def long_decimal(text),
    do: "a decimal of #{byte_size(text)} characters; the limit is #{max_decimal_bytes()}"
end
