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
  # MessagePack as libraries for Elixir have it: a protocol writes, and one function with a clause a
  # type reads in tail calls, with what it is inside of on a list.

  alias DSPex.Bench.Writer

  def encode(value), do: value |> Writer.write() |> IO.iodata_to_binary()

  def decode(binary), do: value(binary, [], 1, [])

  # `items` are those of the container so far, last first, and `count` are to come; `outer` has the
  # containers around. A map is a container of twice as many items.
  defp value(<<0::1, number::7, rest::bits>>, items, count, outer),
    do: next(rest, [number | items], count - 1, outer)

  defp value(<<0b101::3, size::5, text::binary-size(size), rest::bits>>, items, count, outer),
    do: next(rest, [text | items], count - 1, outer)

  defp value(<<0b1001::4, size::4, rest::bits>>, items, count, outer),
    do: next(rest, [], size, [{:list, items, count} | outer])

  defp value(<<0b1000::4, size::4, rest::bits>>, items, count, outer),
    do: next(rest, [], 2 * size, [{:map, items, count} | outer])

  for {byte, value} <- [{0xC0, nil}, {0xC2, false}, {0xC3, true}] do
    defp value(<<unquote(byte), rest::bits>>, items, count, outer),
      do: next(rest, [unquote(value) | items], count - 1, outer)
  end

  for {byte, bits} <- [{0xCA, 32}, {0xCB, 64}] do
    defp value(<<unquote(byte), number::float-unquote(bits), rest::bits>>, items, count, outer),
      do: next(rest, [number | items], count - 1, outer)
  end

  for {byte, bits} <- [{0xCC, 8}, {0xCD, 16}, {0xCE, 32}, {0xCF, 64}] do
    defp value(<<unquote(byte), number::unquote(bits), rest::bits>>, items, count, outer),
      do: next(rest, [number | items], count - 1, outer)
  end

  for {byte, bits} <- [{0xD0, 8}, {0xD1, 16}, {0xD2, 32}, {0xD3, 64}] do
    defp value(<<unquote(byte), number::signed-unquote(bits), rest::bits>>, items, count, outer),
      do: next(rest, [number | items], count - 1, outer)
  end

  for {byte, bits} <- [{0xD9, 8}, {0xDA, 16}, {0xDB, 32}] do
    defp value(
           <<unquote(byte), size::unquote(bits), text::binary-size(size), rest::bits>>,
           items,
           count,
           outer
         ),
         do: next(rest, [text | items], count - 1, outer)
  end

  for {byte, bits} <- [{0xC4, 8}, {0xC5, 16}, {0xC6, 32}] do
    defp value(
           <<unquote(byte), size::unquote(bits), data::binary-size(size), rest::bits>>,
           items,
           count,
           outer
         ),
         do: next(rest, [%DSPex.Binary{data: data} | items], count - 1, outer)
  end

  for {byte, bits} <- [{0xDC, 16}, {0xDD, 32}] do
    defp value(<<unquote(byte), size::unquote(bits), rest::bits>>, items, count, outer),
      do: next(rest, [], size, [{:list, items, count} | outer])
  end

  for {byte, bits} <- [{0xDE, 16}, {0xDF, 32}] do
    defp value(<<unquote(byte), size::unquote(bits), rest::bits>>, items, count, outer),
      do: next(rest, [], 2 * size, [{:map, items, count} | outer])
  end

  defp value(<<0b111::3, number::5, rest::bits>>, items, count, outer),
    do: next(rest, [number - 32 | items], count - 1, outer)

  defp next(<<>>, [value], 0, []), do: value

  defp next(<<rest::bits>>, items, 0, [{:list, around, count} | outer]),
    do: next(rest, [:lists.reverse(items) | around], count - 1, outer)

  defp next(<<rest::bits>>, items, 0, [{:map, around, count} | outer]),
    do: next(rest, [:maps.from_list(pairs(items, [])) | around], count - 1, outer)

  defp next(<<rest::bits>>, items, count, outer), do: value(rest, items, count, outer)

  defp pairs([value, key | items], pairs), do: pairs(items, [{key, value} | pairs])
  defp pairs([], pairs), do: pairs
end
