defmodule DSPex.Signature.TypeLexer do
  @moduledoc false
  # The tokens of the type grammar; positions count characters from 0.

  @punctuation %{
    ?[ => {:open, "["},
    ?] => {:close, "]"},
    ?, => {:comma, ","},
    ?: => {:colon, ":"},
    ?| => {:pipe, "|"},
    ?- => {:minus, "-"}
  }

  defguardp is_letter(c) when c in ?a..?z or c in ?A..?Z or c == ?_
  defguardp is_digit(c) when c in ?0..?9

  @doc """
  The tokens of a text, each `{kind, value, position}`, the last of them `:end`, or `:bad` where the
  text cannot be read any further.
  """
  @spec tokens(String.t()) :: [{atom(), String.t(), non_neg_integer()}]
  def tokens(text), do: tokens(text, 0, [])

  defp tokens(<<>>, at, done), do: Enum.reverse([{:end, "", at} | done])
  defp tokens(<<c, rest::binary>>, at, done) when c in ~c" \t\r\n", do: tokens(rest, at + 1, done)
  defp tokens("->" <> rest, at, done), do: tokens(rest, at + 2, [{:arrow, "->", at} | done])

  defp tokens(<<c, rest::binary>>, at, done) when is_map_key(@punctuation, c) do
    {kind, text} = Map.fetch!(@punctuation, c)
    tokens(rest, at + 1, [{kind, text, at} | done])
  end

  defp tokens(<<c, _::binary>> = text, at, done) when is_letter(c) do
    {name, rest} = take(text, &(is_letter(&1) or is_digit(&1)))
    tokens(rest, at + byte_size(name), [{:name, name, at} | done])
  end

  defp tokens(<<c, _::binary>> = text, at, done) when is_digit(c) do
    {digits, rest} = take(text, &is_digit/1)
    tokens(rest, at + byte_size(digits), [{:integer, digits, at} | done])
  end

  defp tokens(<<quote, rest::binary>>, at, done) when quote in [?", ?'] do
    case string(rest, quote, at, at + 1, []) do
      {:ok, text, rest, next} -> tokens(rest, next, [{:string, text, at} | done])
      {:bad, _message, _at} = bad -> Enum.reverse([bad | done])
    end
  end

  defp tokens(<<c::utf8, _::binary>>, at, done),
    do: Enum.reverse([{:bad, "unexpected character #{inspect(<<c::utf8>>)}", at} | done])

  defp take(text, take?) do
    size = count(text, take?, 0)
    <<taken::binary-size(size), rest::binary>> = text
    {taken, rest}
  end

  defp count(<<c, rest::binary>>, take?, size) do
    if take?.(c), do: count(rest, take?, size + 1), else: size
  end

  defp count(<<>>, _take?, size), do: size

  @escapes %{
    ?\\ => ?\\,
    ?' => ?',
    ?" => ?",
    ?b => ?\b,
    ?f => ?\f,
    ?n => ?\n,
    ?r => ?\r,
    ?t => ?\t
  }
  @hex_digits %{?x => 2, ?u => 4, ?U => 8}

  defp string(<<quote, rest::binary>>, quote, _start, at, done),
    do: {:ok, done |> Enum.reverse() |> IO.iodata_to_binary(), rest, at + 1}

  defp string(<<?\\, c, rest::binary>>, quote, start, at, done) when is_map_key(@escapes, c),
    do: string(rest, quote, start, at + 2, [Map.fetch!(@escapes, c) | done])

  defp string(<<?\\, c, rest::binary>>, quote, start, at, done) when is_map_key(@hex_digits, c) do
    size = Map.fetch!(@hex_digits, c)

    with <<digits::binary-size(size), rest::binary>> <- rest,
         {:ok, code} <- hex(digits) do
      string(rest, quote, start, at + 2 + size, [<<code::utf8>> | done])
    else
      _bad -> {:bad, "\\#{<<c>>} takes #{size} hexadecimal digits of a character", at}
    end
  end

  defp string(<<?\\, _::binary>>, _quote, _start, at, _done),
    do: {:bad, "unknown escape; known are \\\\ \\' \\\" \\b \\f \\n \\r \\t \\x \\u \\U", at}

  defp string(<<c, _::binary>>, _quote, _start, at, _done) when c < 0x20,
    do: {:bad, "a string holds no control character; write an escape", at}

  defp string(<<c::utf8, rest::binary>>, quote, start, at, done),
    do: string(rest, quote, start, at + 1, [<<c::utf8>> | done])

  defp string(<<>>, quote, start, _at, _done),
    do: {:bad, "this string has no closing #{<<quote>>}", start}

  defp hex(digits) do
    # Integer.parse/2 would take a sign too.
    with true <- digits =~ ~r/\A[0-9A-Fa-f]+\z/,
         code when code in 0..0xD7FF or code in 0xE000..0x10FFFF <- String.to_integer(digits, 16),
         do: {:ok, code}
  end
end
