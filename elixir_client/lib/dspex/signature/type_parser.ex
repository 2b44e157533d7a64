defmodule DSPex.Signature.TypeParser do
  @moduledoc false
  # The type grammar of the wire, and of string signatures:
  #
  #     signature = fields "->" fields
  #     fields    = field ("," field)*
  #     field     = name [":" type]
  #     type      = member ("|" member)*
  #     member    = name | name "[" type ("," type)* "]" | "Literal" "[" value ("," value)* "]"
  #               | "embedding" "[" integer "]" | "code" "[" string "]" | "None"
  #
  # Text becomes Elixir types (see `DSPex.Signature.TypeConverter`), and never atoms of its own. The
  # error is the first in reading order; its position counts characters from 0.

  alias DSPex.{Error, Options}
  alias DSPex.Signature.{TypeCheck, TypeLexer, Types}

  # Deeper brackets than anybody writes; it keeps a parse of hostile text small.
  @max_depth 32

  # A person's types have some tens of characters, a generated Literal may have hundreds of members.
  @max_type_length 10_000
  @max_signature_length 100_000

  # On each side: every field is a section of the prompt.
  @max_fields 256

  # An order of magnitude above the largest embedding models.
  @max_dimensions 65_536

  @int64 -0x8000_0000_0000_0000..0x7FFF_FFFF_FFFF_FFFF

  @spellings %{
    "string" => "str",
    "integer" => "int",
    "number" => "float",
    "boolean" => "bool",
    "object" => "dict",
    "array" => "list"
  }

  @type error :: {:error, Error.t()}

  @doc "The type that a text describes."
  @spec type(String.t()) :: {:ok, Types.t()} | error()
  def type(text) do
    run(text, @max_type_length, fn tokens ->
      {type, tokens} = alternatives(tokens, 0)
      expect_end(tokens, "the end of the type")
      type
    end)
  end

  @doc """
  The inputs and outputs of a string signature, as pairs of name and type. `check_name` is given each
  name, its side and the names before it, and says what is wrong with it.
  """
  @spec signature(
          String.t(),
          (String.t(), String.t(), [String.t()] -> :ok | {:error, String.t()})
        ) ::
          {:ok, {[{String.t(), Types.t()}], [{String.t(), Types.t()}]}}
          | error()
  def signature(text, check_name) do
    run(text, @max_signature_length, fn tokens ->
      {inputs, tokens} = fields(tokens, "input", [], [], check_name)
      tokens = expect(tokens, :arrow, "\",\" or \"->\"")
      names = Enum.map(inputs, &elem(&1, 0))
      {outputs, tokens} = fields(tokens, "output", [], names, check_name)
      expect_end(tokens, "\",\" or the end of the signature")
      {inputs, outputs}
    end)
  end

  defp run(text, limit, parse) do
    cond do
      not String.valid?(text) ->
        {:error, Error.new(:signature_error, "a signature is valid UTF-8")}

      String.length(text) > limit ->
        refused("it has more than #{limit} characters", limit)

      true ->
        {:ok, text |> TypeLexer.tokens() |> parse.()}
    end
  catch
    {__MODULE__, message, position} -> refused(message, position)
  end

  defp refused(message, position) do
    text = "#{message} (at character #{position})"
    {:error, Error.new(:signature_error, text, data: %{"position" => position})}
  end

  # --- fields ---

  defp fields(tokens, side, done, names, check_name) do
    {{name, _type} = field, tokens} = field(tokens, side, names, check_name)

    case tokens do
      [{:comma, _, _} | tokens] when length(done) < @max_fields - 1 ->
        fields(tokens, side, [field | done], [name | names], check_name)

      [{:comma, _, _} | tokens] ->
        fail(tokens, "a signature has at most #{@max_fields} #{side}s")

      tokens ->
        {Enum.reverse(done, [field]), tokens}
    end
  end

  defp field([{:name, name, _} | rest] = tokens, side, names, check_name) do
    with {:error, message} <- check_name.(name, side, names),
         do: fail(tokens, "field #{inspect(name)}: #{message}")

    case rest do
      [{:colon, _, _} | rest] ->
        {type, rest} = alternatives(rest, 0)
        {{name, type}, rest}

      rest ->
        {{name, :string}, rest}
    end
  end

  defp field(tokens, side, _names, _check_name), do: expected(tokens, "the name of an #{side}")

  # --- types ---

  defp alternatives(tokens, depth) do
    {members, rest} = members(tokens, depth)

    case Types.union(members) do
      :none -> fail(tokens, "None stands only beside another type, as in \"str | None\"")
      type -> {type, rest}
    end
  end

  defp members(tokens, depth) do
    {member, tokens} = member(tokens, depth)

    case tokens do
      [{:pipe, _, _} | tokens] ->
        {members, tokens} = members(tokens, depth)
        {[member | members], tokens}

      tokens ->
        {[member], tokens}
    end
  end

  defp member([{:name, name, _} | rest] = tokens, depth) do
    name = Map.get(@spellings, name, name)

    case {name, rest} do
      {"None", rest} -> {:none, rest}
      {_name, [{:open, _, _} | inner]} -> generic(name, inner, tokens, depth + 1)
      {"list", rest} -> {{:list, :any}, rest}
      {"dict", rest} -> {:map, rest}
      {name, rest} -> {named(name, tokens), rest}
    end
  end

  defp member(tokens, _depth), do: expected(tokens, "a type")

  defp named(name, tokens) do
    case Types.from_name(name) do
      {:ok, type} -> type
      :error -> fail(tokens, unknown(name))
    end
  end

  defp generic(_name, _inner, tokens, depth) when depth > @max_depth,
    do: fail(tl(tokens), "a type nests at most #{@max_depth} brackets")

  defp generic("list", inner, _tokens, depth) do
    {type, rest} = alternatives(inner, depth)
    {{:list, type}, close(rest)}
  end

  defp generic("set", inner, _tokens, depth) do
    {type, rest} = alternatives(inner, depth)
    {checked({:set, type}, inner), close(rest)}
  end

  defp generic("Optional", inner, _tokens, depth) do
    {type, rest} = alternatives(inner, depth)
    {Types.union([type, :none]), close(rest)}
  end

  defp generic("tuple", inner, _tokens, depth) do
    {types, rest} = types(inner, depth)
    {{:tuple, types}, close(rest)}
  end

  defp generic("Union", inner, _tokens, depth) do
    {types, rest} = union_members(inner, depth)

    case Types.union(types) do
      :none -> fail(inner, "None stands only beside another type, as in \"str | None\"")
      type -> {type, close(rest)}
    end
  end

  defp generic("dict", inner, _tokens, depth) do
    {key, rest} = alternatives(inner, depth)
    checked({:dict, key, :any}, inner)
    rest = expect(rest, :comma, "\",\" and the type of the values")
    {value, rest} = alternatives(rest, depth)
    {dict(key, value), close(rest)}
  end

  defp generic("Literal", inner, _tokens, _depth) do
    {values, rest} = literals(inner)
    {{:one_of, Enum.uniq(values)}, close(rest)}
  end

  defp generic("embedding", inner, _tokens, _depth) do
    case inner do
      [{:integer, digits, _} | rest] ->
        size =
          number(
            digits,
            inner,
            1..@max_dimensions,
            "an embedding has 1 to #{@max_dimensions} dimensions"
          )

        {{:embedding, size}, close(rest)}

      inner ->
        expected(inner, "a number of dimensions, as in embedding[768]")
    end
  end

  defp generic("code", inner, _tokens, _depth) do
    case inner do
      [{:string, language, _} | rest] -> {checked({:code, language}, inner), close(rest)}
      inner -> expected(inner, "the name of a language, as in code[\"python\"]")
    end
  end

  defp generic(name, _inner, tokens, _depth) do
    case Types.from_name(name) do
      {:ok, _type} -> fail(tl(tokens), "#{name} takes nothing in brackets")
      :error -> fail(tokens, unknown(name))
    end
  end

  defp checked(type, tokens) do
    with {:error, message} <- TypeCheck.check(type), do: fail(tokens, message)
    type
  end

  defp dict(:string, :any), do: :map
  defp dict(key, value), do: {:dict, key, value}

  defp types(tokens, depth), do: separated(tokens, &alternatives(&1, depth))

  # None is a member of a Union as it is of an alternative.
  defp union_members(tokens, depth) do
    separated(tokens, fn tokens ->
      {members, tokens} = members(tokens, depth)
      {Types.union(members), tokens}
    end)
  end

  defp literals(tokens), do: separated(tokens, &literal/1)

  defp separated(tokens, one) do
    {item, tokens} = one.(tokens)

    case tokens do
      [{:comma, _, _} | tokens] ->
        {items, tokens} = separated(tokens, one)
        {[item | items], tokens}

      tokens ->
        {[item], tokens}
    end
  end

  defp literal([{:string, text, _} | rest]), do: {text, rest}

  defp literal([{:integer, digits, _} | rest] = tokens),
    do: {literal_integer(digits, tokens), rest}

  defp literal([{:minus, _, _}, {:integer, digits, _} = integer | rest] = tokens) do
    if leading_zero?(digits), do: fail([integer], "an integer has no leading zero")
    {literal_integer("-" <> digits, tokens), rest}
  end

  defp literal([{:minus, _, _} | tokens]), do: expected(tokens, "an integer after \"-\"")
  defp literal([{:name, "True", _} | rest]), do: {true, rest}
  defp literal([{:name, "False", _} | rest]), do: {false, rest}
  defp literal([{:name, "None", _} | rest]), do: {nil, rest}

  defp literal(tokens),
    do: expected(tokens, "a string in quotes, an integer, True, False or None")

  defp literal_integer(digits, tokens) do
    if leading_zero?(digits), do: fail(tokens, "an integer has no leading zero")
    number(digits, tokens, @int64, "an integer in a Literal has at most 64 bits, signed")
  end

  defp leading_zero?(digits), do: String.starts_with?(digits, "0") and digits != "0"

  # By length first: a number of thousands of digits is slow to read.
  defp number(digits, tokens, range, message) do
    if byte_size(digits) > 20 or leading_zero?(digits) or String.to_integer(digits) not in range,
      do: fail(tokens, message),
      else: String.to_integer(digits)
  end

  defp unknown(name) do
    names = Types.wire_names()
    hint = Options.did_you_mean(name, names)
    "unknown type #{inspect(name)}#{hint}; the types are #{Enum.join(names, ", ")}"
  end

  # --- tokens: {kind, value, position} ---

  defp close([{:close, _, _} | rest]), do: rest
  defp close(tokens), do: expected(tokens, "\"]\"")

  defp expect([{kind, _, _} | rest], kind, _what), do: rest
  defp expect(tokens, _kind, what), do: expected(tokens, what)

  defp expect_end([{:end, _, _}], _what), do: :ok
  defp expect_end(tokens, what), do: expected(tokens, what)

  # What could not be read is only wrong once it is come to.
  defp expected([{:bad, message, position}], _what), do: throw({__MODULE__, message, position})

  defp expected([{:end, _, position}], what),
    do: throw({__MODULE__, "expected #{what}, found the end of the text", position})

  defp expected([{:string, _text, position} | _], what),
    do: throw({__MODULE__, "expected #{what}, found a string", position})

  defp expected([{_kind, value, position} | _], what),
    do: throw({__MODULE__, "expected #{what}, found #{inspect(value)}", position})

  defp fail([{:bad, message, position}], _message), do: throw({__MODULE__, message, position})
  defp fail([{_, _, position} | _], message), do: throw({__MODULE__, message, position})
end
