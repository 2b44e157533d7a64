defmodule DSPex.Protocol.Codec.Decoder do
  @moduledoc false
  # Bytes to values of Elixir: what `DSPex.Protocol.Codec` says, of the reading side.
  #
  # Of a frame that is made for it the values take 27 times its bytes, and the least that is made on
  # the way to them counts: a process of a heap of `Codec.Apart` reads every frame without a
  # garbage collection.

  alias DSPex.{Binary, Error}
  alias DSPex.Protocol.Codec.{Extension, Limits, Utf8}

  @max_depth Limits.max_depth()

  # A sub-binary keeps all the bytes alive that it was cut from. Where that is no more than this,
  # cutting is cheaper than copying and little is at stake; where it is more, a text is copied
  # unless it is most of those bytes itself.
  @cut_freely 4096

  # Up to this size the BEAM makes no sub-binary but copies by itself.
  @heap_binary 64

  # Of seven bytes, those that ASCII does not use.
  @high_bits 0x80_8080_8080_8080

  # Every binary is made of it, to share its keys.
  @empty %Binary{data: ""}

  @spec decode(binary()) :: {:ok, term()} | {:error, Error.t()}
  def decode(data) do
    {:ok, value(data, [], 0, [], 0, copy_below(data))}
  catch
    # Failures carry how much was left, so that reading need not count.
    {__MODULE__, :refused, left, message} ->
      {:error, Error.new(:parse_error, "byte #{byte_size(data) - left}: #{message}")}
  end

  defp copy_below(data) when byte_size(data) <= @heap_binary, do: 0

  defp copy_below(data) do
    alive = :binary.referenced_byte_size(data)
    if alive <= @cut_freely, do: 0, else: div(alive, 2)
  end

  # The reader is one loop of tail calls, so that the whole pass uses one match context. What it is
  # inside of stands in the arguments: of an array, `acc` has the items so far, last first, and
  # `left` counts those to come; of a map, `acc` has the keys and values so far, last first, and
  # `left` counts the pairs to come below zero; `left` 0 is the outermost value. `stack` has the
  # `acc` and `left` of the containers around, `depth` their number. What was just read is the last
  # argument, so that the others stay in their registers.

  for byte <- 0x00..0x7F do
    defp value(<<unquote(byte), rest::bits>>, acc, left, stack, depth, copy),
      do: next(rest, acc, left, stack, depth, copy, unquote(byte))
  end

  defp value(<<0x80, rest::bits>>, acc, left, stack, depth, copy) when depth < @max_depth,
    do: next(rest, acc, left, stack, depth, copy, %{})

  for size <- 1..15 do
    defp value(<<unquote(0x80 + size), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth,
         do: key(rest, [], unquote(-size), [acc, left | stack], depth + 1, copy)
  end

  defp value(<<0x90, rest::bits>>, acc, left, stack, depth, copy) when depth < @max_depth,
    do: next(rest, acc, left, stack, depth, copy, [])

  for size <- 1..15 do
    defp value(<<unquote(0x90 + size), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth,
         do: value(rest, [], unquote(size), [acc, left | stack], depth + 1, copy)
  end

  # What is empty is a literal, here and below: made anew, it would take 24 bytes and more.
  defp value(<<0xA0, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, "")

  # Short texts are mostly ASCII, and read as integers of up to 56 bits they say so: to ask that of a
  # text that has been cut out costs as much as to cut it out.
  ascii = fn size ->
    parts =
      for {bytes, at} <- Enum.with_index(List.duplicate(7, div(size, 7)) ++ [rem(size, 7)]),
          bytes > 0,
          do: {Macro.var(:"part#{at}", __MODULE__), 8 * bytes}

    all =
      parts
      |> Enum.map(&elem(&1, 0))
      |> Enum.reduce(&quote(do: Bitwise.bor(unquote(&1), unquote(&2))))

    {for({part, bits} <- parts, do: quote(do: unquote(part) :: unquote(bits))), all}
  end

  for size <- 1..31 do
    {parts, all} = ascii.(size)

    defp value(
           <<unquote(0xA0 + size), unquote_splicing(parts), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         )
         when Bitwise.band(unquote(all), @high_bits) == 0,
         do: next(rest, acc, left, stack, depth, copy, <<unquote_splicing(parts)>>)

    defp value(
           <<unquote(0xA0 + size), text::binary-size(unquote(size)), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: string(rest, acc, left, stack, depth, copy, text)
  end

  defp value(<<0xC0, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, nil)

  # 0xC1 is no type.

  defp value(<<0xC2, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, false)

  defp value(<<0xC3, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, true)

  defp value(<<0xC4, 0, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, @empty)

  defp value(<<0xCA, number::float-32, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, number)

  # What is left of the floats once the finite ones have matched.
  defp value(<<0xCA, sign::1, 0xFF, fraction::23, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, not_finite(sign, fraction))

  defp value(<<0xCB, number::float-64, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, number)

  defp value(
         <<0xCB, sign::1, 0x7FF::11, fraction::52, rest::bits>>,
         acc,
         left,
         stack,
         depth,
         copy
       ),
       do: next(rest, acc, left, stack, depth, copy, not_finite(sign, fraction))

  for {byte, bits} <- [{0xCC, 8}, {0xCD, 16}, {0xCE, 32}, {0xCF, 64}] do
    defp value(
           <<unquote(byte), number::unquote(bits), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: next(rest, acc, left, stack, depth, copy, number)
  end

  for {byte, bits} <- [{0xD0, 8}, {0xD1, 16}, {0xD2, 32}, {0xD3, 64}] do
    defp value(
           <<unquote(byte), number::signed-unquote(bits), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: next(rest, acc, left, stack, depth, copy, number)
  end

  # By itself, for the usual timestamp has no bytes to be cut out.
  defp value(<<0xD6, 0xFF, second::32, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, acc, left, stack, depth, copy, Extension.timestamp(second, 0))

  for {byte, size} <- [{0xD4, 1}, {0xD5, 2}, {0xD6, 4}, {0xD7, 8}, {0xD8, 16}] do
    defp value(
           <<unquote(byte), type::signed, data::binary-size(unquote(size)), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: ext(rest, acc, left, stack, depth, copy, type, data)
  end

  for {byte, bits} <- [{0xDC, 16}, {0xDD, 32}] do
    defp value(<<unquote(byte), 0::unquote(bits), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth,
         do: next(rest, acc, left, stack, depth, copy, [])

    # An item is a byte at least: a longer array than there are bytes is a lie.
    defp value(<<unquote(byte), size::unquote(bits), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth and size <= byte_size(rest),
         do: value(rest, [], size, [acc, left | stack], depth + 1, copy)
  end

  for {byte, bits} <- [{0xDE, 16}, {0xDF, 32}] do
    defp value(<<unquote(byte), 0::unquote(bits), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth,
         do: next(rest, acc, left, stack, depth, copy, %{})

    defp value(<<unquote(byte), size::unquote(bits), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth and 2 * size <= byte_size(rest),
         do: key(rest, [], -size, [acc, left | stack], depth + 1, copy)
  end

  for byte <- 0xE0..0xFF do
    defp value(<<unquote(byte), rest::bits>>, acc, left, stack, depth, copy),
      do: next(rest, acc, left, stack, depth, copy, unquote(byte - 0x100))
  end

  # Clauses whose sizes are read come last: a jump table of first bytes ends with the first of them,
  # and whatever is behind that would be compared byte by byte.

  for {byte, bits} <- [{0xD9, 8}, {0xDA, 16}, {0xDB, 32}] do
    defp value(
           <<unquote(byte), size::unquote(bits), text::binary-size(size), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: string(rest, acc, left, stack, depth, copy, kept(text, copy))
  end

  for {byte, bits} <- [{0xC4, 8}, {0xC5, 16}, {0xC6, 32}] do
    defp value(
           <<unquote(byte), size::unquote(bits), data::binary-size(size), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: next(rest, acc, left, stack, depth, copy, %{@empty | data: kept(data, copy)})
  end

  for {byte, bits} <- [{0xC7, 8}, {0xC8, 16}, {0xC9, 32}] do
    defp value(
           <<unquote(byte), size::unquote(bits), type::signed, data::binary-size(size),
             rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: ext(rest, acc, left, stack, depth, copy, type, data)
  end

  defp value(<<data::bits>>, _acc, _left, _stack, depth, _copy),
    do: refuse(data, explain(data, depth))

  defp key(<<0xA0, rest::bits>>, acc, left, stack, depth, copy),
    do: value(rest, ["" | acc], left, stack, depth, copy)

  for size <- 1..31 do
    {parts, all} = ascii.(size)

    defp key(
           <<unquote(0xA0 + size), unquote_splicing(parts), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         )
         when Bitwise.band(unquote(all), @high_bits) == 0,
         do: value(rest, [<<unquote_splicing(parts)>> | acc], left, stack, depth, copy)

    defp key(
           <<unquote(0xA0 + size), text::binary-size(unquote(size)), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: string_key(rest, acc, left, stack, depth, copy, text)
  end

  for {byte, bits} <- [{0xD9, 8}, {0xDA, 16}, {0xDB, 32}] do
    defp key(
           <<unquote(byte), size::unquote(bits), text::binary-size(size), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: string_key(rest, acc, left, stack, depth, copy, kept(text, copy))
  end

  defp key(<<data::bits>>, _acc, _left, _stack, _depth, _copy),
    do: refuse(data, explain_key(data))

  # What to do with a value that was just read.
  defp next(<<rest::bits>>, acc, left, stack, depth, copy, value) when left > 1,
    do: value(rest, [value | acc], left - 1, stack, depth, copy)

  defp next(<<rest::bits>>, acc, left, stack, depth, copy, value) when left < -1,
    do: key(rest, [value | acc], left + 1, stack, depth, copy)

  defp next(<<rest::bits>>, acc, 1, [outer, left | stack], depth, copy, value),
    do: next(rest, outer, left, stack, depth - 1, copy, :lists.reverse(acc, [value]))

  # The only pair of a map: no list of pairs is made for it.
  defp next(<<rest::bits>>, [key], -1, [outer, left | stack], depth, copy, value),
    do: next(rest, outer, left, stack, depth - 1, copy, %{key => value})

  defp next(<<rest::bits>>, acc, -1, [outer, left | stack], depth, copy, value),
    do: next(rest, outer, left, stack, depth - 1, copy, to_map([value | acc], []))

  defp next(<<>>, [], 0, [], 0, _copy, value), do: value

  defp next(<<rest::bits>>, [], 0, [], 0, _copy, _value),
    do: refuse(rest, "#{byte_size(rest)} bytes follow the value")

  # Of a repeated key the last value wins.
  defp to_map([value, key | items], pairs), do: to_map(items, [{key, value} | pairs])
  defp to_map([], pairs), do: :maps.from_list(pairs)

  defp string(<<rest::bits>>, acc, left, stack, depth, copy, text) do
    if Utf8.valid?(text),
      do: next(rest, acc, left, stack, depth, copy, text),
      else: refuse_before(rest, text, "a str is not valid UTF-8")
  end

  defp string_key(<<rest::bits>>, acc, left, stack, depth, copy, text) do
    if Utf8.valid?(text),
      do: value(rest, [text | acc], left, stack, depth, copy),
      else: refuse_before(rest, text, "a map's key is not valid UTF-8")
  end

  defp ext(<<rest::bits>>, acc, left, stack, depth, copy, type, data) do
    case Extension.read(type, data, copy) do
      {:refused, message} -> refuse_before(rest, data, message)
      value -> next(rest, acc, left, stack, depth, copy, value)
    end
  end

  @doc "A copy, where cutting `data` out would keep far more bytes alive than it has."
  @spec kept(binary(), non_neg_integer()) :: binary()
  def kept(data, copy) when byte_size(data) > @heap_binary and byte_size(data) < copy,
    do: :binary.copy(data)

  def kept(data, _copy), do: data

  defp not_finite(0, 0), do: :infinity
  defp not_finite(1, 0), do: :neg_infinity
  defp not_finite(_sign, _fraction), do: :nan

  # Why no clause of value/6 took the bytes. Slow, and only ever run once.
  defp explain(<<>>, _depth), do: "the value ends too early"
  defp explain(<<0xC1, _::bits>>, _depth), do: "0xC1 is no MessagePack type"

  defp explain(<<byte, _::bits>>, depth)
       when depth >= @max_depth and (byte in 0x80..0x9F or byte in 0xDC..0xDF),
       do: "containers are nested deeper than #{@max_depth}"

  defp explain(<<byte, size::16, rest::bits>>, _depth) when byte in [0xDC, 0xDE],
    do: too_long(byte, size, rest)

  defp explain(<<byte, size::32, rest::bits>>, _depth) when byte in [0xDD, 0xDF],
    do: too_long(byte, size, rest)

  defp explain(<<byte, _::bits>>, _depth),
    do: "the value that begins with 0x#{hex(byte)} is cut off"

  defp explain_key(<<byte, _::bits>>) when byte in 0xA0..0xBF or byte in 0xD9..0xDB,
    do: "a map's key is cut off"

  defp explain_key(<<>>), do: "a map ends too early"

  defp explain_key(<<byte, _::bits>>),
    do: "a map's key is a str, not what begins with 0x#{hex(byte)}"

  defp too_long(byte, size, rest) do
    kind =
      if byte in [0xDC, 0xDD], do: "an array of #{size} items", else: "a map of #{size} pairs"

    "#{kind} does not fit into the #{byte_size(rest)} bytes that follow"
  end

  defp hex(byte), do: byte |> Integer.to_string(16) |> String.pad_leading(2, "0")

  defp refuse(rest, message), do: throw({__MODULE__, :refused, byte_size(rest), message})

  defp refuse_before(rest, data, message),
    do: throw({__MODULE__, :refused, byte_size(rest) + byte_size(data), message})
end
