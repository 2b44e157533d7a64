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

  alias DSPex.{Binary, Error, Tensor}

  # Containers inside one another, the outermost counted. The protocol wants 512 accepted and more
  # than 1,024 refused; 1,024 is also where Python's msgpack stops.
  @max_depth 1024

  # A sub-binary keeps all the bytes alive that it was cut from. Where that is no more than this,
  # cutting is cheaper than copying and little is at stake; where it is more, a text is copied
  # unless it is most of those bytes itself.
  @cut_freely 4096

  # Up to this size the BEAM makes no sub-binary but copies by itself.
  @heap_binary 64

  @int64_min -0x8000_0000_0000_0000
  @uint64_max 0xFFFF_FFFF_FFFF_FFFF

  # Over 600,000 digits. Newer BEAMs hold no integer of more than twice that.
  @max_integer_bytes 262_144

  # An exponent makes a gigabyte of digits out of a short text; a long one is a weapon, too.
  @max_decimal_bytes 4096

  @ext_timestamp -1
  @ext_integer 1
  @ext_tensor 2
  @ext_decimal 3

  @max_nanosecond 999_999_999
  # 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z in Unix time.
  @min_second -62_135_596_800
  @max_second 253_402_300_799

  @years "a timestamp's year is from 1 to 9999"

  # --- reading ---

  @doc """
  Reads exactly one value.

      iex> DSPex.Protocol.Codec.decode(<<0x82, 0xA1, "a", 1, 0xA1, "b", 0x93, 1, 0xC0, 0xC3>>)
      {:ok, %{"a" => 1, "b" => [1, nil, true]}}

      iex> {:error, error} = DSPex.Protocol.Codec.decode(<<0x92, 1, 0xC1>>)
      iex> Exception.message(error)
      "parse_error: byte 2: 0xC1 is no MessagePack type"
  """
  @spec decode(binary()) :: {:ok, term()} | {:error, Error.t()}
  def decode(data) when is_binary(data) do
    {:ok, value(data, [], 0, [], 0, copy_below(data))}
  catch
    # Failures carry how much was left, so that reading need not count.
    {__MODULE__, :refused, left, message} ->
      {:error, Error.new(:parse_error, "byte #{byte_size(data) - left}: #{message}")}
  end

  defp copy_below(data) do
    alive = :binary.referenced_byte_size(data)
    if alive <= @cut_freely, do: 0, else: div(alive, 2)
  end

  # The reader is one loop of tail calls, so that the whole pass uses one match context. What it is
  # inside of stands in the arguments: of an array, `acc` has the items so far, last first, and
  # `left` counts those to come; of a map, `acc` has the pairs so far, under the key whose value
  # comes next, and `left` counts the pairs to come below zero; `left` 0 is the outermost value.
  # `stack` has the `acc` and `left` of the containers around, `depth` their number.

  for byte <- 0x00..0x7F do
    defp value(<<unquote(byte), rest::bits>>, acc, left, stack, depth, copy),
      do: next(rest, unquote(byte), acc, left, stack, depth, copy)
  end

  defp value(<<0x80, rest::bits>>, acc, left, stack, depth, copy) when depth < @max_depth,
    do: next(rest, %{}, acc, left, stack, depth, copy)

  for size <- 1..15 do
    defp value(<<unquote(0x80 + size), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth,
         do: key(rest, [], unquote(-size), [acc, left | stack], depth + 1, copy)
  end

  defp value(<<0x90, rest::bits>>, acc, left, stack, depth, copy) when depth < @max_depth,
    do: next(rest, [], acc, left, stack, depth, copy)

  for size <- 1..15 do
    defp value(<<unquote(0x90 + size), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth,
         do: value(rest, [], unquote(size), [acc, left | stack], depth + 1, copy)
  end

  for size <- 0..31 do
    defp value(
           <<unquote(0xA0 + size), text::binary-size(unquote(size)), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: string(rest, text, acc, left, stack, depth, copy)
  end

  defp value(<<0xC0, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, nil, acc, left, stack, depth, copy)

  # 0xC1 is no type.

  defp value(<<0xC2, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, false, acc, left, stack, depth, copy)

  defp value(<<0xC3, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, true, acc, left, stack, depth, copy)

  for {byte, bits} <- [{0xC4, 8}, {0xC5, 16}, {0xC6, 32}] do
    defp value(
           <<unquote(byte), size::unquote(bits), data::binary-size(size), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: next(rest, %Binary{data: kept(data, copy)}, acc, left, stack, depth, copy)
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
         do: ext(rest, type, data, acc, left, stack, depth, copy)
  end

  defp value(<<0xCA, number::float-32, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, number, acc, left, stack, depth, copy)

  # What is left of the floats once the finite ones have matched.
  defp value(<<0xCA, sign::1, 0xFF, fraction::23, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, not_finite(sign, fraction), acc, left, stack, depth, copy)

  defp value(<<0xCB, number::float-64, rest::bits>>, acc, left, stack, depth, copy),
    do: next(rest, number, acc, left, stack, depth, copy)

  defp value(
         <<0xCB, sign::1, 0x7FF::11, fraction::52, rest::bits>>,
         acc,
         left,
         stack,
         depth,
         copy
       ),
       do: next(rest, not_finite(sign, fraction), acc, left, stack, depth, copy)

  for {byte, bits} <- [{0xCC, 8}, {0xCD, 16}, {0xCE, 32}, {0xCF, 64}] do
    defp value(
           <<unquote(byte), number::unquote(bits), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: next(rest, number, acc, left, stack, depth, copy)
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
         do: next(rest, number, acc, left, stack, depth, copy)
  end

  for {byte, size} <- [{0xD4, 1}, {0xD5, 2}, {0xD6, 4}, {0xD7, 8}, {0xD8, 16}] do
    defp value(
           <<unquote(byte), type::signed, data::binary-size(unquote(size)), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: ext(rest, type, data, acc, left, stack, depth, copy)
  end

  for {byte, bits} <- [{0xD9, 8}, {0xDA, 16}, {0xDB, 32}] do
    defp value(
           <<unquote(byte), size::unquote(bits), text::binary-size(size), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: string(rest, text, acc, left, stack, depth, copy)
  end

  for {byte, bits} <- [{0xDC, 16}, {0xDD, 32}] do
    defp value(<<unquote(byte), 0::unquote(bits), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth,
         do: next(rest, [], acc, left, stack, depth, copy)

    # An item is a byte at least: a longer array than there are bytes is a lie.
    defp value(<<unquote(byte), size::unquote(bits), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth and size <= byte_size(rest),
         do: value(rest, [], size, [acc, left | stack], depth + 1, copy)
  end

  for {byte, bits} <- [{0xDE, 16}, {0xDF, 32}] do
    defp value(<<unquote(byte), 0::unquote(bits), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth,
         do: next(rest, %{}, acc, left, stack, depth, copy)

    defp value(<<unquote(byte), size::unquote(bits), rest::bits>>, acc, left, stack, depth, copy)
         when depth < @max_depth and 2 * size <= byte_size(rest),
         do: key(rest, [], -size, [acc, left | stack], depth + 1, copy)
  end

  for byte <- 0xE0..0xFF do
    defp value(<<unquote(byte), rest::bits>>, acc, left, stack, depth, copy),
      do: next(rest, unquote(byte - 0x100), acc, left, stack, depth, copy)
  end

  defp value(<<data::bits>>, _acc, _left, _stack, depth, _copy),
    do: refuse(data, explain(data, depth))

  for size <- 0..31 do
    defp key(
           <<unquote(0xA0 + size), text::binary-size(unquote(size)), rest::bits>>,
           acc,
           left,
           stack,
           depth,
           copy
         ),
         do: string_key(rest, text, acc, left, stack, depth, copy)
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
         do: string_key(rest, text, acc, left, stack, depth, copy)
  end

  defp key(<<data::bits>>, _acc, _left, _stack, _depth, _copy),
    do: refuse(data, explain_key(data))

  # What to do with a value that was just read.
  defp next(<<rest::bits>>, value, acc, left, stack, depth, copy) when left > 1,
    do: value(rest, [value | acc], left - 1, stack, depth, copy)

  defp next(<<rest::bits>>, value, acc, 1, [outer, left | stack], depth, copy),
    do: next(rest, :lists.reverse(acc, [value]), outer, left, stack, depth - 1, copy)

  defp next(<<rest::bits>>, value, [key | acc], left, stack, depth, copy) when left < -1,
    do: key(rest, [{key, value} | acc], left + 1, stack, depth, copy)

  defp next(<<rest::bits>>, value, [key | acc], -1, [outer, left | stack], depth, copy),
    do: next(rest, to_map([{key, value} | acc]), outer, left, stack, depth - 1, copy)

  defp next(<<>>, value, [], 0, [], 0, _copy), do: value

  defp next(<<rest::bits>>, _value, [], 0, [], 0, _copy),
    do: refuse(rest, "#{byte_size(rest)} bytes follow the value")

  # The pairs come last first, and of a repeated key the last has to win.
  defp to_map(pairs) do
    map = :maps.from_list(pairs)
    if map_size(map) == length(pairs), do: map, else: :maps.from_list(:lists.reverse(pairs))
  end

  defp string(<<rest::bits>>, text, acc, left, stack, depth, copy) do
    case checked(text, copy) do
      :error -> refuse_before(rest, text, "a str is not valid UTF-8")
      text -> next(rest, text, acc, left, stack, depth, copy)
    end
  end

  defp string_key(<<rest::bits>>, text, acc, left, stack, depth, copy) do
    case checked(text, copy) do
      :error -> refuse_before(rest, text, "a map's key is not valid UTF-8")
      text -> value(rest, [text | acc], left, stack, depth, copy)
    end
  end

  defp checked(text, copy), do: if(utf8?(text), do: kept(text, copy), else: :error)

  defp ext(<<rest::bits>>, type, data, acc, left, stack, depth, copy) do
    case ext_value(type, data, copy) do
      {:ok, value} -> next(rest, value, acc, left, stack, depth, copy)
      {:error, message} -> refuse_before(rest, data, message)
    end
  end

  defp kept(data, copy) when byte_size(data) > @heap_binary and byte_size(data) < copy,
    do: :binary.copy(data)

  defp kept(data, _copy), do: data

  # Both are native code, the first three times faster than the second, and either far faster than
  # a loop of ours.
  defp utf8?(text),
    do: :unicode.bin_is_7bit(text) or is_binary(:unicode.characters_to_binary(text, :utf8))

  defp not_finite(0, 0), do: :infinity
  defp not_finite(1, 0), do: :neg_infinity
  defp not_finite(_sign, _fraction), do: :nan

  defp ext_value(@ext_timestamp, <<second::32>>, _copy), do: timestamp(second, 0)

  defp ext_value(@ext_timestamp, <<nanosecond::30, second::34>>, _copy),
    do: timestamp(second, nanosecond)

  defp ext_value(@ext_timestamp, <<nanosecond::32, second::signed-64>>, _copy),
    do: timestamp(second, nanosecond)

  defp ext_value(@ext_timestamp, data, _copy),
    do: {:error, "a timestamp has 4, 8 or 12 bytes, not #{byte_size(data)}"}

  defp ext_value(@ext_integer, data, _copy) when byte_size(data) <= @max_integer_bytes do
    size = byte_size(data)
    <<number::signed-size(size)-unit(8)>> = data

    cond do
      number in @int64_min..@uint64_max ->
        {:error, "ext 1 is for integers beyond 64 bits; #{number} is not"}

      padded?(data) ->
        {:error, "an ext 1 integer is not in its shortest form"}

      true ->
        {:ok, number}
    end
  end

  defp ext_value(@ext_integer, data, _copy),
    do: {:error, "an integer of #{byte_size(data)} bytes; the limit is #{@max_integer_bytes}"}

  defp ext_value(@ext_tensor, data, copy) do
    with {:ok, [dtype, shape, %Binary{data: bytes}]} when is_list(shape) <- decode(data),
         {:ok, tensor} <- Tensor.new(dtype(dtype), List.to_tuple(shape), kept(bytes, copy)) do
      {:ok, tensor}
    else
      {:ok, _other} -> {:error, "a tensor is an array of dtype, shape and bytes"}
      {:error, %Error{message: message}} -> {:error, "inside a tensor: #{message}"}
      {:error, message} -> {:error, message}
    end
  end

  defp ext_value(@ext_decimal, data, _copy) when byte_size(data) > @max_decimal_bytes,
    do: {:error, long_decimal(data)}

  defp ext_value(@ext_decimal, data, copy) do
    with :error <- DSPex.Decimal.best(kept(data, copy)),
         do: {:error, "a decimal is digits with an optional sign, point and exponent"}
  end

  defp ext_value(type, _data, _copy), do: {:error, "ext type #{type} is not in use"}

  defp timestamp(_second, nanosecond) when nanosecond > @max_nanosecond,
    do: {:error, "a timestamp has at most #{@max_nanosecond} nanoseconds, not #{nanosecond}"}

  defp timestamp(second, _nanosecond) when second not in @min_second..@max_second,
    do: {:error, @years}

  defp timestamp(second, nanosecond),
    do: DateTime.from_unix(second * 1_000_000 + div(nanosecond, 1000), :microsecond)

  defp long_decimal(text),
    do: "a decimal of #{byte_size(text)} characters; the limit is #{@max_decimal_bytes}"

  defp padded?(<<0x00, 0::1, _::bits>>), do: true
  defp padded?(<<0xFF, 1::1, _::bits>>), do: true
  defp padded?(_data), do: false

  @dtypes ~w(f16 f32 f64 i8 i16 i32 i64 u8 u16 u32 u64 bool)a
  for dtype <- @dtypes, do: defp(dtype(unquote(Atom.to_string(dtype))), do: unquote(dtype))
  defp dtype(other), do: other

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

  # --- writing ---

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
  def encode_to_iodata(term, depth \\ 0) do
    {:ok, [write(term, depth)]}
  catch
    {__MODULE__, :no_form, message} ->
      {:error, Error.new(:encode_error, path(term) <> message)}
  end

  # What is written is an element of an iolist: a byte, a binary or a list.
  defp write(text, _depth) when is_binary(text), do: write_text(text)
  defp write(number, _depth) when is_integer(number), do: write_integer(number)
  defp write(nil, _depth), do: 0xC0
  defp write(false, _depth), do: 0xC2
  defp write(true, _depth), do: 0xC3
  defp write(:nan, _depth), do: <<0xCB, 0x7FF8_0000_0000_0000::64>>
  defp write(:infinity, _depth), do: <<0xCB, 0x7FF0_0000_0000_0000::64>>
  defp write(:neg_infinity, _depth), do: <<0xCB, 0xFFF0_0000_0000_0000::64>>
  defp write(atom, _depth) when is_atom(atom), do: write_text(Atom.to_string(atom))
  defp write(number, _depth) when is_float(number), do: <<0xCB, number::float-64>>

  defp write(container, depth)
       when depth >= @max_depth and
              (is_list(container) or (is_map(container) and not is_struct(container))),
       do: no_form("containers are nested deeper than #{@max_depth}")

  defp write(list, depth) when is_list(list), do: write_list(list, depth + 1)
  defp write(%{__struct__: _name} = struct, _depth), do: write_struct(struct)
  defp write(map, depth) when is_map(map), do: write_map(map, depth + 1)

  defp write(tuple, _depth) when is_tuple(tuple),
    do: no_form("a tuple has no form on the wire; use a list")

  defp write(other, _depth), do: no_form("#{kind(other)} has no form on the wire")

  defp write_text(text) do
    if not utf8?(text),
      do: no_form("text that is not valid UTF-8; wrap bytes in DSPex.Binary.new/1")

    case byte_size(text) do
      size when size < 0x20 -> [0xA0 + size | text]
      size when size < 0x100 -> [<<0xD9, size>> | text]
      size when size < 0x1_0000 -> [<<0xDA, size::16>> | text]
      size when size < 0x1_0000_0000 -> [<<0xDB, size::32>> | text]
      size -> no_form("text of #{size} bytes; MessagePack's limit is 4 GiB")
    end
  end

  defp write_integer(number) when number >= 0 do
    cond do
      number < 0x80 -> number
      number < 0x100 -> <<0xCC, number>>
      number < 0x1_0000 -> <<0xCD, number::16>>
      number < 0x1_0000_0000 -> <<0xCE, number::32>>
      number <= @uint64_max -> <<0xCF, number::64>>
      true -> write_big(number)
    end
  end

  defp write_integer(number) do
    cond do
      number >= -0x20 -> 0x100 + number
      number >= -0x80 -> <<0xD0, number>>
      number >= -0x8000 -> <<0xD1, number::16>>
      number >= -0x8000_0000 -> <<0xD2, number::32>>
      number >= @int64_min -> <<0xD3, number::64>>
      true -> write_big(number)
    end
  end

  defp write_big(number) do
    magnitude = if number < 0, do: -number - 1, else: number
    <<first, _::bits>> = bytes = :binary.encode_unsigned(magnitude)
    # The sign needs a bit of its own.
    size = byte_size(bytes) + if(first >= 0x80, do: 1, else: 0)

    if size > @max_integer_bytes,
      do: no_form("an integer of #{size} bytes; the limit is #{@max_integer_bytes}")

    write_ext(@ext_integer, <<number::size(size)-unit(8)>>)
  end

  # In guards, because there the length of an improper list is no error.
  defp write_list(list, depth) when length(list) < 0x10,
    do: [0x90 + length(list) | write_items(list, depth)]

  defp write_list(list, depth) when length(list) < 0x1_0000,
    do: [<<0xDC, length(list)::16>> | write_items(list, depth)]

  defp write_list(list, depth) when length(list) < 0x1_0000_0000,
    do: [<<0xDD, length(list)::32>> | write_items(list, depth)]

  defp write_list(_improper, _depth), do: no_form("an improper list has no form on the wire")

  defp write_items([item | items], depth), do: [write(item, depth) | write_items(items, depth)]
  defp write_items([], _depth), do: []

  defp write_map(map, depth) when map_size(map) < 0x10,
    do: [0x80 + map_size(map) | write_pairs(:maps.to_list(map), map, depth)]

  defp write_map(map, depth) when map_size(map) < 0x1_0000,
    do: [<<0xDE, map_size(map)::16>> | write_pairs(:maps.to_list(map), map, depth)]

  defp write_map(map, depth),
    do: [<<0xDF, map_size(map)::32>> | write_pairs(:maps.to_list(map), map, depth)]

  defp write_pairs([{key, _value} | _] = pairs, map, depth) when is_binary(key),
    do: write_text_pairs(pairs, map, depth)

  defp write_pairs(pairs, map, depth), do: write_atom_pairs(pairs, map, depth)

  # Only a map with keys of both kinds can have the same key twice, so only there it is looked for.
  defp write_text_pairs([{key, value} | pairs], map, depth) when is_binary(key),
    do: [write_text(key), write(value, depth) | write_text_pairs(pairs, map, depth)]

  defp write_text_pairs([], _map, _depth), do: []
  defp write_text_pairs(pairs, map, depth), do: write_mixed_pairs(pairs, distinct(map), depth)

  defp write_atom_pairs([{key, value} | pairs], map, depth) when is_atom(key),
    do: [write_key(key), write(value, depth) | write_atom_pairs(pairs, map, depth)]

  defp write_atom_pairs([], _map, _depth), do: []
  defp write_atom_pairs(pairs, map, depth), do: write_mixed_pairs(pairs, distinct(map), depth)

  defp write_mixed_pairs([{key, value} | pairs], map, depth),
    do: [write_key(key), write(value, depth) | write_mixed_pairs(pairs, map, depth)]

  defp write_mixed_pairs([], _map, _depth), do: []

  defp write_key(key) when is_atom(key), do: write_text(Atom.to_string(key))
  defp write_key(key) when is_binary(key), do: write_text(key)
  defp write_key(key), do: no_form("a map's key is a string or an atom, not #{kind(key)}")

  defp distinct(map) do
    for {key, _value} <- map, is_atom(key), is_map_key(map, Atom.to_string(key)) do
      no_form("a map has the key #{key} both as an atom and as a string")
    end

    map
  end

  defp write_struct(%Binary{data: data}) when is_binary(data), do: write_bytes(data)

  defp write_struct(%DateTime{} = time) do
    # DateTime.to_unix/2 takes no year before 0.
    if time.year < 0, do: no_form(@years)
    microsecond = DateTime.to_unix(time, :microsecond)
    second = Integer.floor_div(microsecond, 1_000_000)
    nanosecond = Integer.mod(microsecond, 1_000_000) * 1000

    cond do
      second not in @min_second..@max_second ->
        no_form(@years)

      nanosecond == 0 and second in 0..0xFFFF_FFFF ->
        write_ext(@ext_timestamp, <<second::32>>)

      second in 0..0x3_FFFF_FFFF ->
        write_ext(@ext_timestamp, <<nanosecond::30, second::34>>)

      true ->
        write_ext(@ext_timestamp, <<nanosecond::32, second::64>>)
    end
  end

  defp write_struct(%module{} = time) when module in [Date, Time, NaiveDateTime],
    do: write_text(module.to_iso8601(time))

  defp write_struct(%Tensor{} = tensor) do
    case Tensor.new(tensor.dtype, tensor.shape, tensor.data) do
      {:ok, %Tensor{dtype: dtype, shape: shape, data: data}} ->
        parts = [dtype, Tuple.to_list(shape), %Binary{data: data}]
        write_ext(@ext_tensor, IO.iodata_to_binary(write_list(parts, 0)))

      {:error, message} ->
        no_form(message)
    end
  end

  defp write_struct(%module{} = decimal) when module in [Decimal, DSPex.Decimal] do
    case DSPex.Decimal.text(decimal) do
      {:ok, text} when byte_size(text) > @max_decimal_bytes -> no_form(long_decimal(text))
      {:ok, text} -> write_ext(@ext_decimal, text)
      :error -> no_form("a DSPex.Decimal whose text is no decimal number")
    end
  end

  defp write_struct(struct),
    do: no_form("#{kind(struct)} has no form on the wire; convert it, for instance to a map")

  defp write_bytes(data) do
    case byte_size(data) do
      size when size < 0x100 -> [<<0xC4, size>> | data]
      size when size < 0x1_0000 -> [<<0xC5, size::16>> | data]
      size when size < 0x1_0000_0000 -> [<<0xC6, size::32>> | data]
      size -> no_form("a binary of #{size} bytes; MessagePack's limit is 4 GiB")
    end
  end

  defp write_ext(type, data) do
    case byte_size(data) do
      1 -> [<<0xD4, type>> | data]
      2 -> [<<0xD5, type>> | data]
      4 -> [<<0xD6, type>> | data]
      8 -> [<<0xD7, type>> | data]
      16 -> [<<0xD8, type>> | data]
      size when size < 0x100 -> [<<0xC7, size, type>> | data]
      size when size < 0x1_0000 -> [<<0xC8, size::16, type>> | data]
      size when size < 0x1_0000_0000 -> [<<0xC9, size::32, type>> | data]
      size -> no_form("a value of #{size} bytes; MessagePack's limit is 4 GiB")
    end
  end

  defp no_form(message), do: throw({__MODULE__, :no_form, message})

  # The way to what has no form, found again only once there is such a thing. Values themselves are
  # not told: they may be secret.
  defp path(term) do
    case steps(term) do
      [] -> ""
      steps -> Enum.join(steps) |> String.trim_leading(".") |> Kernel.<>(": ")
    end
  end

  defp steps(term) do
    case Enum.find(children(term), fn {_step, child} -> no_form?(child) end) do
      nil -> []
      {step, child} -> [step | steps(child)]
    end
  end

  defp children(list) when is_list(list) and length(list) >= 0,
    do: list |> Stream.with_index() |> Stream.map(fn {item, at} -> {"[#{at}]", item} end)

  defp children(map) when is_map(map) and not is_struct(map),
    do:
      for({key, value} <- map, is_atom(key) or is_binary(key), do: {".#{printable(key)}", value})

  defp children(_other), do: []

  defp printable(key) when is_atom(key), do: Atom.to_string(key)
  defp printable(key), do: if(String.printable?(key, 80), do: key, else: "?")

  defp no_form?(term) do
    write(term, 0)
    false
  catch
    {__MODULE__, :no_form, _message} -> true
  end

  defp kind(%module{}), do: "a %#{inspect(module)}{} struct"
  defp kind(term) when is_function(term), do: "a function"
  defp kind(term) when is_pid(term), do: "a pid"
  defp kind(term) when is_reference(term), do: "a reference"
  defp kind(term) when is_port(term), do: "a port"
  defp kind(term) when is_tuple(term), do: "a tuple"
  defp kind(term) when is_integer(term), do: "an integer"
  defp kind(term) when is_float(term), do: "a float"
  defp kind(term) when is_list(term), do: "a list"
  defp kind(term) when is_map(term), do: "a map"
  defp kind(term) when is_bitstring(term), do: "a bitstring"
end
