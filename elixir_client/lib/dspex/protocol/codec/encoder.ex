defmodule DSPex.Protocol.Codec.Encoder do
  @moduledoc false
  # Values of Elixir to bytes: what `DSPex.Protocol.Codec` says, of the writing side.

  alias DSPex.{Binary, Error, Tensor}
  alias DSPex.Protocol.Codec.{Limits, Utf8}

  @max_depth Limits.max_depth()
  @max_integer_bytes Limits.max_integer_bytes()
  @max_decimal_bytes Limits.max_decimal_bytes()

  @int64_min -0x8000_0000_0000_0000
  @uint64_max 0xFFFF_FFFF_FFFF_FFFF

  # Of one map among many, in bytes. A longer one may well be a large binary with a name.
  @short 4096

  @ext_timestamp -1
  @ext_integer 1
  @ext_tensor 2
  @ext_decimal 3

  @first_second Limits.seconds().first
  @last_second Limits.seconds().last

  @spec encode_to_iodata(term(), non_neg_integer()) :: {:ok, iodata()} | {:error, Error.t()}
  def encode_to_iodata(term, depth) do
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
  defp write(atom, _depth) when is_atom(atom), do: write_name(atom)
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
    if not Utf8.valid?(text),
      do: no_form("text that is not valid UTF-8; wrap bytes in DSPex.Binary.new/1")

    write_valid(text)
  end

  # An atom's name is UTF-8 in any case.
  defp write_name(atom), do: write_valid(Atom.to_string(atom))

  defp write_valid(text) do
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
    do: [<<0xDC, length(list)::16>> | write_many(list, depth)]

  defp write_list(list, depth) when length(list) < 0x1_0000_0000,
    do: [<<0xDD, length(list)::32>> | write_many(list, depth)]

  defp write_list(_improper, _depth), do: no_form("an improper list has no form on the wire")

  # Of many maps each is joined before the next is written: to keep the iolist of them all, and to
  # collect garbage around it, costs more than to copy what is short once more.
  defp write_many([map | items], depth) when is_map(map),
    do: [joined(write(map, depth)) | write_many(items, depth)]

  defp write_many(items, depth), do: write_items(items, depth)

  defp joined(iodata) do
    if IO.iodata_length(iodata) <= @short,
      do: IO.iodata_to_binary(iodata),
      else: iodata
  end

  # Floats come by the thousand, and are appended to one binary: an iolist has an element less each.
  defp write_items([number | _] = items, depth) when is_float(number),
    do: write_floats(items, depth, <<>>)

  defp write_items([item | items], depth), do: [write(item, depth) | write_items(items, depth)]
  defp write_items([], _depth), do: []

  defp write_floats([number | items], depth, bytes) when is_float(number),
    do: write_floats(items, depth, <<bytes::binary, 0xCB, number::float-64>>)

  defp write_floats(items, depth, bytes), do: [bytes | write_items(items, depth)]

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

  defp write_key(key) when is_atom(key), do: write_name(key)
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
    if time.year < 0, do: no_form(Limits.years())
    microsecond = DateTime.to_unix(time, :microsecond)
    second = Integer.floor_div(microsecond, 1_000_000)
    nanosecond = Integer.mod(microsecond, 1_000_000) * 1000

    cond do
      second not in @first_second..@last_second ->
        no_form(Limits.years())

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
      {:ok, text} when byte_size(text) > @max_decimal_bytes -> no_form(Limits.long_decimal(text))
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
