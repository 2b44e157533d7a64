defprotocol DSPex.Bench.Writer do
  @doc "The value as iodata."
  def write(value)
end

defimpl DSPex.Bench.Writer, for: Atom do
  def write(nil), do: [0xC0]
  def write(false), do: [0xC2]
  def write(true), do: [0xC3]
  def write(atom), do: DSPex.Bench.Writer.BitString.write(Atom.to_string(atom))
end

defimpl DSPex.Bench.Writer, for: BitString do
  def write(text) when is_binary(text), do: [head(byte_size(text)) | text]

  defp head(size) when size < 32, do: 0xA0 + size
  defp head(size) when size < 0x100, do: <<0xD9, size>>
  defp head(size) when size < 0x1_0000, do: <<0xDA, size::16>>
  defp head(size) when size < 0x1_0000_0000, do: <<0xDB, size::32>>
end

defimpl DSPex.Bench.Writer, for: Integer do
  def write(int) when int < 0 do
    cond do
      int >= -32 -> [0x100 + int]
      int >= -0x80 -> [0xD0, 0x100 + int]
      int >= -0x8000 -> <<0xD1, int::16>>
      int >= -0x8000_0000 -> <<0xD2, int::32>>
      int >= -0x8000_0000_0000_0000 -> <<0xD3, int::64>>
    end
  end

  def write(int) do
    cond do
      int < 0x80 -> [int]
      int < 0x100 -> [0xCC, int]
      int < 0x1_0000 -> <<0xCD, int::16>>
      int < 0x1_0000_0000 -> <<0xCE, int::32>>
      int < 0x1_0000_0000_0000_0000 -> <<0xCF, int::64>>
    end
  end
end

defimpl DSPex.Bench.Writer, for: Float do
  def write(float), do: <<0xCB, float::float-64>>
end

defimpl DSPex.Bench.Writer, for: List do
  def write(list), do: [head(length(list)) | Enum.map(list, &DSPex.Bench.Writer.write/1)]

  defp head(size) when size < 16, do: 0x90 + size
  defp head(size) when size < 0x1_0000, do: <<0xDC, size::16>>
  defp head(size) when size < 0x1_0000_0000, do: <<0xDD, size::32>>
end

defimpl DSPex.Bench.Writer, for: Map do
  alias DSPex.Bench.Writer

  def write(map) do
    [
      head(map_size(map))
      | for({key, value} <- map, do: [Writer.write(key) | Writer.write(value)])
    ]
  end

  defp head(size) when size < 16, do: 0x80 + size
  defp head(size) when size < 0x1_0000, do: <<0xDE, size::16>>
  defp head(size) when size < 0x1_0000_0000, do: <<0xDF, size::32>>
end

defimpl DSPex.Bench.Writer, for: DSPex.Binary do
  def write(%{data: data}), do: [head(byte_size(data)) | data]

  defp head(size) when size < 0x100, do: <<0xC4, size>>
  defp head(size) when size < 0x1_0000, do: <<0xC5, size::16>>
  defp head(size) when size < 0x1_0000_0000, do: <<0xC6, size::32>>
end

defmodule DSPex.Bench.Peer do
  @moduledoc false
  # MessagePack as libraries for Elixir have it: a protocol writes, and a function with a clause a
  # type reads, giving each value with what is left.

  alias DSPex.Bench.Writer

  def encode(value), do: value |> Writer.write() |> IO.iodata_to_binary()

  def decode(binary) do
    {value, <<>>} = value(binary)
    value
  end

  defp value(<<0::1, number::7, rest::binary>>), do: {number, rest}
  defp value(<<0b101::3, size::5, text::binary-size(size), rest::binary>>), do: {text, rest}
  defp value(<<0b1001::4, size::4, rest::binary>>), do: list(rest, size, [])
  defp value(<<0b1000::4, size::4, rest::binary>>), do: map(rest, size, [])
  defp value(<<0xC0, rest::binary>>), do: {nil, rest}
  defp value(<<0xC2, rest::binary>>), do: {false, rest}
  defp value(<<0xC3, rest::binary>>), do: {true, rest}
  defp value(<<0xCB, number::float-64, rest::binary>>), do: {number, rest}
  defp value(<<0xCA, number::float-32, rest::binary>>), do: {number, rest}
  defp value(<<0xCC, number, rest::binary>>), do: {number, rest}
  defp value(<<0xCD, number::16, rest::binary>>), do: {number, rest}
  defp value(<<0xCE, number::32, rest::binary>>), do: {number, rest}
  defp value(<<0xCF, number::64, rest::binary>>), do: {number, rest}
  defp value(<<0xD0, number::signed-8, rest::binary>>), do: {number, rest}
  defp value(<<0xD1, number::signed-16, rest::binary>>), do: {number, rest}
  defp value(<<0xD2, number::signed-32, rest::binary>>), do: {number, rest}
  defp value(<<0xD3, number::signed-64, rest::binary>>), do: {number, rest}
  defp value(<<0xD9, size::8, text::binary-size(size), rest::binary>>), do: {text, rest}
  defp value(<<0xDA, size::16, text::binary-size(size), rest::binary>>), do: {text, rest}
  defp value(<<0xDB, size::32, text::binary-size(size), rest::binary>>), do: {text, rest}
  defp value(<<0xC4, size::8, data::binary-size(size), rest::binary>>), do: {binary(data), rest}
  defp value(<<0xC5, size::16, data::binary-size(size), rest::binary>>), do: {binary(data), rest}
  defp value(<<0xC6, size::32, data::binary-size(size), rest::binary>>), do: {binary(data), rest}
  defp value(<<0xDC, size::16, rest::binary>>), do: list(rest, size, [])
  defp value(<<0xDD, size::32, rest::binary>>), do: list(rest, size, [])
  defp value(<<0xDE, size::16, rest::binary>>), do: map(rest, size, [])
  defp value(<<0xDF, size::32, rest::binary>>), do: map(rest, size, [])
  defp value(<<0b111::3, number::5, rest::binary>>), do: {number - 32, rest}

  defp binary(data), do: %DSPex.Binary{data: data}

  defp list(rest, 0, items), do: {Enum.reverse(items), rest}

  defp list(rest, size, items) do
    {item, rest} = value(rest)
    list(rest, size - 1, [item | items])
  end

  defp map(rest, 0, pairs), do: {Map.new(pairs), rest}

  defp map(rest, size, pairs) do
    {key, rest} = value(rest)
    {value, rest} = value(rest)
    map(rest, size - 1, [{key, value} | pairs])
  end
end
