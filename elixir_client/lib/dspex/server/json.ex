defmodule DSPex.Server.JSON do
  @moduledoc false
  # JSON as RFC 8259 has it, and nothing beside it: OTP has a reader from 27 on only, and this client
  # has no dependency. An object is a map with string keys, of which the last of equal ones counts.

  alias DSPex.Error
  alias DSPex.Protocol.Codec.Limits

  @max_depth Limits.max_depth()

  # Python reads no longer ones either, and reading takes the square of their length.
  @max_digits 4300

  @whitespace ~c" \t\n\r"

  defguardp is_digit(byte) when byte in ?0..?9

  @doc """
  Reads one value.

      iex> DSPex.Server.JSON.decode(~s({"a": [1, 2.5, null, "\\\\u00e9"]}))
      {:ok, %{"a" => [1, 2.5, nil, "é"]}}

      iex> {:error, error} = DSPex.Server.JSON.decode("[1,]")
      iex> Exception.message(error)
      "parse_error: byte 3: a value was expected"
  """
  @spec decode(binary()) :: {:ok, term()} | {:error, Error.t()}
  def decode(text) when is_binary(text) do
    {value, rest} = value(space(text), 0)
    if space(rest) == "", do: {:ok, value}, else: fail(rest, "nothing more was expected")
  catch
    {__MODULE__, rest, expected} ->
      at = byte_size(text) - byte_size(rest)
      {:error, Error.new(:parse_error, "byte #{at}: #{expected}")}
  end

  defp fail(rest, expected), do: throw({__MODULE__, rest, expected})

  defp space(<<byte, rest::binary>>) when byte in @whitespace, do: space(rest)
  defp space(rest), do: rest

  defp value("null" <> rest, _depth), do: {nil, rest}
  defp value("true" <> rest, _depth), do: {true, rest}
  defp value("false" <> rest, _depth), do: {false, rest}
  defp value(<<?", rest::binary>>, _depth), do: text(rest, rest, 0, [])

  defp value(<<open, _::binary>> = rest, @max_depth) when open in ~c"[{",
    do: fail(rest, "nested deeper than #{@max_depth}")

  defp value(<<?[, rest::binary>>, depth) do
    case space(rest) do
      <<?], rest::binary>> -> {[], rest}
      rest -> items(rest, depth + 1, [])
    end
  end

  defp value(<<?{, rest::binary>>, depth) do
    case space(rest) do
      <<?}, rest::binary>> -> {%{}, rest}
      rest -> pairs(rest, depth + 1, [])
    end
  end

  defp value(<<byte, _::binary>> = rest, _depth) when is_digit(byte) or byte == ?-,
    do: number(rest)

  defp value(rest, _depth), do: fail(rest, "a value was expected")

  defp items(rest, depth, done) do
    {item, rest} = value(rest, depth)

    case space(rest) do
      <<?,, rest::binary>> -> items(space(rest), depth, [item | done])
      <<?], rest::binary>> -> {Enum.reverse(done, [item]), rest}
      rest -> fail(rest, ", or ] was expected")
    end
  end

  defp pairs(<<?", rest::binary>>, depth, done) do
    {key, rest} = text(rest, rest, 0, [])

    case space(rest) do
      <<?:, rest::binary>> ->
        {value, rest} = value(space(rest), depth)
        more_pairs(space(rest), depth, [{key, value} | done])

      rest ->
        fail(rest, ": was expected")
    end
  end

  defp pairs(rest, _depth, _done), do: fail(rest, "a key was expected")

  defp more_pairs(<<?,, rest::binary>>, depth, done), do: pairs(space(rest), depth, done)
  # The last of equal keys has to come last.
  defp more_pairs(<<?}, rest::binary>>, _depth, done), do: {Map.new(Enum.reverse(done)), rest}
  defp more_pairs(rest, _depth, _done), do: fail(rest, ", or } was expected")

  # `from` begins with `size` bytes that stand for themselves, and goes on with `rest`.
  defp text(<<?", rest::binary>>, from, size, done),
    do: {joined(done, binary_part(from, 0, size)), rest}

  defp text(<<?\\, rest::binary>>, from, size, done) do
    {character, rest} = escaped(rest)
    text(rest, rest, 0, [done, binary_part(from, 0, size), character])
  end

  defp text(<<byte, _::binary>> = rest, _from, _size, _done) when byte < 0x20,
    do: fail(rest, "a control character in a string has to be escaped")

  defp text(<<byte, rest::binary>>, from, size, done) when byte < 0x80,
    do: text(rest, from, size + 1, done)

  defp text(<<character::utf8, rest::binary>>, from, size, done),
    do: text(rest, from, size + byte_size(<<character::utf8>>), done)

  defp text("", _from, _size, _done), do: fail("", "the string has no end")
  defp text(rest, _from, _size, _done), do: fail(rest, "the string is not UTF-8")

  defp joined([], part), do: :binary.copy(part)
  defp joined(done, part), do: IO.iodata_to_binary([done, part])

  @escapes [{?", ?"}, {?\\, ?\\}, {?/, ?/}, {?b, ?\b}, {?f, ?\f}, {?n, ?\n}, {?r, ?\r}, {?t, ?\t}]

  for {letter, byte} <- @escapes do
    defp escaped(<<unquote(letter), rest::binary>>), do: {<<unquote(byte)>>, rest}
  end

  defp escaped(<<?u, rest::binary>>) do
    case hex(rest) do
      {high, <<?\\, ?u, more::binary>>} when high in 0xD800..0xDBFF ->
        low_surrogate(high, hex(more), rest)

      {unit, _more} when unit in 0xD800..0xDFFF ->
        fail(rest, "half of a surrogate pair is no character")

      {unit, more} ->
        {<<unit::utf8>>, more}
    end
  end

  defp escaped(rest), do: fail(rest, "an escape that there is none of")

  defp low_surrogate(high, {low, more}, _rest) when low in 0xDC00..0xDFFF,
    do: {<<0x10000 + (high - 0xD800) * 0x400 + (low - 0xDC00)::utf8>>, more}

  defp low_surrogate(_high, _other, rest),
    do: fail(rest, "half of a surrogate pair is no character")

  defp hex(<<digits::binary-size(4), rest::binary>> = all) do
    case Base.decode16(digits, case: :mixed) do
      {:ok, <<unit::16>>} -> {unit, rest}
      :error -> fail(all, "4 hexadecimal digits were expected")
    end
  end

  defp hex(rest), do: fail(rest, "4 hexadecimal digits were expected")

  defp number(rest) do
    {sign, rest} = sign(rest)
    {whole, rest} = digits(rest)

    if byte_size(whole) > 1 and binary_part(whole, 0, 1) == "0",
      do: fail(rest, "a number begins with no 0")

    case fraction(rest) do
      {"", "", _rest} -> {String.to_integer(sign <> whole), rest}
      {fraction, exponent, after_it} -> {float(sign, whole, fraction, exponent, rest), after_it}
    end
  end

  defp sign(<<?-, rest::binary>>), do: {"-", rest}
  defp sign(rest), do: {"", rest}

  defp fraction(<<?., rest::binary>>) do
    {digits, rest} = digits(rest)
    {exponent, rest} = exponent(rest)
    {digits, exponent, rest}
  end

  defp fraction(rest) do
    {exponent, rest} = exponent(rest)
    {"", exponent, rest}
  end

  defp exponent(<<e, sign, rest::binary>>) when e in ~c"eE" and sign in ~c"+-" do
    {digits, rest} = digits(rest)
    {<<?e, sign, digits::binary>>, rest}
  end

  defp exponent(<<e, rest::binary>>) when e in ~c"eE" do
    {digits, rest} = digits(rest)
    {<<?e, digits::binary>>, rest}
  end

  defp exponent(rest), do: {"", rest}

  defp float(sign, whole, fraction, exponent, rest) do
    fraction = if fraction == "", do: "0", else: fraction
    String.to_float(sign <> whole <> "." <> fraction <> exponent)
  rescue
    ArgumentError -> fail(rest, "a number that no float is as large as")
  end

  defp digits(rest) do
    case digit_count(rest, 0) do
      0 -> fail(rest, "a digit was expected")
      count when count > @max_digits -> fail(rest, "a number of more than #{@max_digits} digits")
      count -> {binary_part(rest, 0, count), binary_part(rest, count, byte_size(rest) - count)}
    end
  end

  defp digit_count(<<byte, rest::binary>>, count) when is_digit(byte),
    do: digit_count(rest, count + 1)

  defp digit_count(_rest, count), do: count

  @doc """
  Writes a value that JSON has: as `decode/1` gives them, which is what
  `DSPex.Server.Values.to_json/1` makes of any other.

      iex> IO.iodata_to_binary(DSPex.Server.JSON.encode(%{"a" => [1, 2.5, nil, "é\\n"]}))
      ~S({"a":[1,2.5,null,"é\\n"]})
  """
  @spec encode(term()) :: iodata()
  def encode(nil), do: "null"
  def encode(boolean) when is_boolean(boolean), do: Atom.to_string(boolean)
  def encode(number) when is_integer(number), do: Integer.to_string(number)
  def encode(number) when is_float(number), do: Float.to_string(number)
  def encode(text) when is_binary(text), do: [?", escape(text, text, 0, []), ?"]
  def encode([]), do: "[]"

  def encode([first | rest]),
    do: [?[, encode(first), Enum.map(rest, &[?,, encode(&1)]), ?]]

  def encode(map) when is_map(map) do
    pairs = for {key, value} <- map, do: [encode(key), ?:, encode(value)]
    [?{, Enum.intersperse(pairs, ?,), ?}]
  end

  defp escape(<<byte, rest::binary>>, from, size, done) when byte < 0x20 or byte in [?", ?\\],
    do: escape(rest, rest, 0, [done, binary_part(from, 0, size), escape(byte)])

  defp escape(<<_byte, rest::binary>>, from, size, done), do: escape(rest, from, size + 1, done)
  defp escape("", from, _size, done), do: [done, from]

  defp escape(byte) when byte in [?", ?\\], do: <<?\\, byte>>
  defp escape(?\n), do: "\\n"
  defp escape(byte), do: ["\\u00", Base.encode16(<<byte>>)]
end
