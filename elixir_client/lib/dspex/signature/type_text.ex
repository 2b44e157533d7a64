defmodule DSPex.Signature.TypeText do
  @moduledoc false
  # The text of a type, as the wire and errors have it.

  alias DSPex.Signature.{Constraints, Types}

  @int64 -0x8000_0000_0000_0000..0x7FFF_FFFF_FFFF_FFFF

  # Of an object's properties, as many as a person takes in at a glance.
  @shown_properties 8

  @doc "Whether the wire's grammar has the type: else it travels as JSON Schema."
  @spec text?(Types.t()) :: boolean()
  def text?({composite, type}) when composite in [:list, :set, :optional], do: text?(type)
  def text?({composite, types}) when composite in [:tuple, :union], do: Enum.all?(types, &text?/1)
  def text?({:dict, key, value}), do: text?(key) and text?(value)
  def text?({:tagged, _tag, type}), do: text?(type)
  def text?({:constrained, _type, _options}), do: false
  def text?({:json_schema, _schema}), do: false
  def text?(type), do: not Types.object?(Types.canonical(type))

  @doc """
  A type as the wire and errors have it. Where `text?/1` is false it is for people alone.
  """
  @spec text(Types.t()) :: String.t()
  for {type, name} <- Types.names(), do: def(text(unquote(type)), do: unquote(name))

  def text({:list, type}),
    do: if(Types.canonical(type) == :any, do: "list", else: "list[#{text(type)}]")

  def text({:set, type}), do: "set[#{text(type)}]"
  def text({:optional, _type} = union), do: union_text(union)
  def text({:union, _types} = union), do: union_text(union)
  def text({:tuple, types}), do: "tuple[#{Enum.map_join(types, ", ", &text/1)}]"

  def text({:dict, key, value}) do
    case {Types.canonical(key), Types.canonical(value)} do
      {:string, :any} -> "dict"
      {key, value} -> "dict[#{text(key)}, #{text(value)}]"
    end
  end

  def text({:embedding, size}), do: "embedding[#{size}]"
  def text({:code, language}), do: "code[#{literal(language)}]"
  def text({:one_of, values}), do: "Literal[#{Enum.map_join(values, ", ", &literal/1)}]"
  def text({:constrained, type, options}), do: Constraints.describe(type, Map.new(options))
  def text({:json_schema, _schema}), do: "a value of the JSON Schema"

  def text(type) do
    case Types.canonical(type) do
      ^type -> "{#{type |> Types.object() |> shown_properties() |> Enum.join(", ")}}"
      other -> text(other)
    end
  end

  # None stands last, once, whichever member allows it.
  defp union_text(union) do
    texts = union |> parts() |> Enum.map(&text/1) |> Enum.uniq()
    if allows_none?(union), do: Enum.join(texts ++ ["None"], " | "), else: Enum.join(texts, " | ")
  end

  defp parts({:optional, type}), do: parts(type)
  defp parts({:union, types}), do: Enum.flat_map(types, &parts/1)
  defp parts(type), do: [type]

  defp allows_none?({:optional, _type}), do: true
  defp allows_none?({:union, types}), do: Enum.any?(types, &allows_none?/1)
  defp allows_none?(_type), do: false

  defp shown_properties(object) do
    names =
      for property <- object.properties,
          do: if(property.required?, do: to_string(property.name), else: "#{property.name}?")

    {shown, more} = Enum.split(names, @shown_properties)
    if more == [] and is_nil(object.additional), do: shown, else: shown ++ ["…"]
  end

  @doc "A value as it stands in a Literal; `:error` for what cannot."
  @spec literal(term()) :: String.t() | :error
  def literal(true), do: "True"
  def literal(false), do: "False"
  def literal(nil), do: "None"
  def literal(atom) when is_atom(atom), do: literal(Atom.to_string(atom))
  def literal(number) when is_integer(number) and number in @int64, do: Integer.to_string(number)

  def literal(text) when is_binary(text) do
    if String.valid?(text), do: "\"#{escaped(text)}\"", else: :error
  end

  def literal(_other), do: :error

  defp escaped(text), do: for(<<c::utf8 <- text>>, into: "", do: escape(c))

  defp escape(?\\), do: "\\\\"
  defp escape(?"), do: "\\\""
  defp escape(?\n), do: "\\n"
  defp escape(?\r), do: "\\r"
  defp escape(?\t), do: "\\t"
  defp escape(?\b), do: "\\b"
  defp escape(?\f), do: "\\f"

  defp escape(c) when c < 0x20 or c in 0x7F..0x9F,
    do: "\\x" <> Base.encode16(<<c>>, case: :lower)

  defp escape(c), do: <<c::utf8>>
end
