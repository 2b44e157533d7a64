defmodule DSPex.Signature.ShownValue do
  @moduledoc false
  # A value as a validation error shows it: JSON where it has one, as the bridge writes it.

  alias DSPex.{Binary, Tensor}
  alias DSPex.Signature.{Exact, Scalars}

  # Of a value in an error: enough to recognise it, never a whole document.
  @max_length 80

  # An integer's digits are not written from here on.
  @max_bits 320

  @doc "At most #{@max_length} characters, the last of them `…` where there would be more."
  @spec text(term()) :: String.t()
  def text(value) do
    {parts, _left} = render(value, {[], @max_length + 1})
    text = parts |> Enum.reverse() |> IO.iodata_to_binary()

    case cut(text, @max_length, 0) do
      :whole -> text
      _size -> binary_part(text, 0, cut(text, @max_length - 1, 0)) <> "…"
    end
  end

  # The bytes of the first characters, which are code points.
  defp cut(<<>>, _left, _size), do: :whole
  defp cut(_text, 0, size), do: size

  defp cut(<<c::utf8, rest::binary>>, left, size),
    do: cut(rest, left - 1, size + byte_size(<<c::utf8>>))

  # Nothing is read that will not be shown: `left` counts bytes, of which there are no fewer than
  # characters.
  defp render(_value, {_parts, left} = done) when left <= 0, do: done
  defp render(nil, done), do: put(done, "null")
  defp render(:nan, done), do: put(done, "NaN")
  defp render(:infinity, done), do: put(done, "Infinity")
  defp render(:neg_infinity, done), do: put(done, "-Infinity")
  defp render(value, done) when is_boolean(value), do: put(done, Atom.to_string(value))
  defp render(value, done) when is_float(value), do: put(done, Exact.float_text(value))
  defp render(value, done) when is_integer(value), do: put(done, integer(value))

  defp render(value, done) when is_binary(value) do
    if String.valid?(value), do: put(done, quoted(value)), else: put(done, bytes(value))
  end

  defp render(%Binary{data: data}, done) when is_binary(data), do: put(done, bytes(data))

  defp render(%Tensor{shape: shape}, done),
    do:
      put(done, "tensor" <> inspect(Tuple.to_list(shape), charlists: :as_lists, limit: :infinity))

  defp render(%DateTime{} = time, done), do: put(done, quoted(instant(time)))
  defp render(%MapSet{} = set, done), do: items(MapSet.to_list(set), put(done, "["))

  defp render(%module{} = value, done) do
    case {Scalars.string(value), Exact.new(value)} do
      {{:ok, text}, _number} -> put(done, quoted(text))
      {_no_text, {:ok, number}} -> put(done, Exact.to_text(number))
      _neither -> put(done, inspect(module))
    end
  end

  defp render(list, done) when is_list(list), do: items(list, put(done, "["))
  defp render(tuple, done) when is_tuple(tuple), do: items(Tuple.to_list(tuple), put(done, "["))
  defp render(map, done) when is_map(map), do: pairs(Map.to_list(map), put(done, "{"))
  defp render(atom, done) when is_atom(atom), do: put(done, quoted(Atom.to_string(atom)))
  defp render(other, done), do: put(done, inspect(other))

  defp items([item, next | rest], done), do: items([next | rest], put(render(item, done), ", "))
  defp items([item | _end_or_improper], done), do: put(render(item, done), "]")
  defp items([], done), do: put(done, "]")

  defp pairs([{key, value} | rest], done) do
    done = put(render(value, put(render(key, done), ": ")), if(rest == [], do: "}", else: ", "))
    if rest == [], do: done, else: pairs(rest, done)
  end

  defp pairs([], done), do: put(done, "}")

  defp put({_parts, left} = done, _text) when left <= -@max_length, do: done
  defp put({parts, left}, text), do: {[text | parts], left - String.length(text)}

  defp integer(value) do
    case bits(abs(value)) do
      bits when bits < @max_bits -> Integer.to_string(value)
      bits -> "an integer of #{bits} bits"
    end
  end

  defp bits(0), do: 0

  defp bits(value) do
    <<first, rest::binary>> = :binary.encode_unsigned(value)
    length(Integer.digits(first, 2)) + 8 * byte_size(rest)
  end

  defp bytes(data), do: "bytes[#{byte_size(data)}]"

  # As Python has it: in UTC, with all six digits of a fraction or none.
  defp instant(time) do
    {:ok, time} = time |> DateTime.to_unix(:microsecond) |> DateTime.from_unix(:microsecond)
    {microsecond, _precision} = time.microsecond
    precision = if microsecond == 0, do: 0, else: 6
    naive = %{DateTime.to_naive(time) | microsecond: {microsecond, precision}}
    NaiveDateTime.to_iso8601(naive) <> "+00:00"
  end

  # Beyond what is shown a text is not even escaped.
  defp quoted(text), do: text |> String.slice(0, @max_length + 1) |> json_string()

  @doc "A text as JSON has it."
  @spec json_string(String.t()) :: String.t()
  def json_string(text) do
    escaped = for <<c::utf8 <- text>>, into: "", do: escape(c)
    "\"" <> escaped <> "\""
  end

  defp escape(?"), do: "\\\""
  defp escape(?\\), do: "\\\\"
  defp escape(?\n), do: "\\n"
  defp escape(?\r), do: "\\r"
  defp escape(?\t), do: "\\t"
  defp escape(?\b), do: "\\b"
  defp escape(?\f), do: "\\f"

  defp escape(c) when c < 0x20,
    do: "\\u" <> String.pad_leading(String.downcase(Integer.to_string(c, 16)), 4, "0")

  defp escape(c), do: <<c::utf8>>
end
