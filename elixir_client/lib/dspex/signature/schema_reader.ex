defmodule DSPex.Signature.SchemaReader do
  @moduledoc false
  # JSON Schema (draft 2020-12) to types. Nothing that restricts values is passed over: what has no
  # type here stays a JSON Schema, for the bridge to read or to refuse.

  alias DSPex.Signature.{Constraints, JsonSchema, SchemaOverlap, TypeCheck, Types, TypeText}

  @draft "https://json-schema.org/draft/2020-12/schema"

  # With every reference resolved: a reference to two references, and so on, has any number in a few
  # lines. The bridge allows as much to a whole signature.
  @max_types 2_000
  @max_values 5_000
  @max_depth 32
  @max_enum_values 1_000
  @max_alternatives 256
  @max_properties 256
  @max_property_name_length 128

  @annotations ~w(title description default examples deprecated readOnly writeOnly $comment $defs
    definitions)
  @numeric ~w(minimum maximum exclusiveMinimum exclusiveMaximum multipleOf)
  @keywords %{
    "null" => [],
    "boolean" => [],
    "integer" => @numeric,
    "number" => @numeric,
    "string" => ~w(minLength maxLength pattern format contentMediaType),
    "array" => ~w(items prefixItems minItems maxItems uniqueItems format),
    "object" =>
      ~w(properties required additionalProperties propertyNames minProperties maxProperties)
  }
  @whole ~w(type enum const anyOf oneOf allOf $ref $schema discriminator)
  @known @whole ++ @annotations ++ Enum.flat_map(@keywords, &elem(&1, 1))

  %{plain: plain, keys: keys, keywords: names, media_type: media_type} = JsonSchema.tables()
  @time plain.time["pattern"]
  @number plain.decimal["pattern"]
  @media_type media_type
  @key_types Map.new(keys, fn {type, schema} -> {schema, type} end)
  @names Map.new(names, fn {name, keyword} -> {keyword, name} end)
  @text_formats %{"binary" => :binary, "date" => :date, "date-time" => :datetime}
  @dspy_texts for type <- Types.dspy(),
                  plain[type]["type"] == "string",
                  into: %{},
                  do: {to_string(type), type}
  @dspy_arrays for type <- Types.dspy(),
                   plain[type]["type"] == "array",
                   into: %{},
                   do: {plain[type], type}

  @doc "The type that says what a schema does; `{:json_schema, schema}` where none does."
  @spec type(map()) :: Types.t()
  def type(schema) when is_map(schema) do
    {type, _size} = read(schema, %{root: schema, depth: 0, followed: []}, {0, 0})
    if type == :none, do: {:json_schema, schema}, else: type
  catch
    {__MODULE__, :no_type} -> {:json_schema, schema}
  end

  defp no_type, do: throw({__MODULE__, :no_type})
  defp want(true), do: :ok
  defp want(false), do: no_type()

  # `size` counts the schemas and the values read so far, and goes through every function that reads
  # one.

  defp read(_schema, _at, {types, _values}) when types >= @max_types, do: no_type()
  defp read(true, _at, {types, values}), do: {:any, {types + 1, values}}

  defp read(schema, at, {types, values}) when is_map(schema) do
    want(at.depth <= @max_depth)
    want(Enum.all?(Map.keys(schema), &(&1 in @known)))
    want(Map.get(schema, "$schema", @draft) in [@draft, @draft <> "#"])
    want(text_or_none?(schema["title"]) and text_or_none?(schema["description"]))
    said = Map.drop(schema, ["$schema" | @annotations])
    whole(said, schema, %{at | depth: at.depth + 1}, {types + 1, values})
  end

  defp read(_other, _at, _size), do: no_type()

  defp text_or_none?(value), do: is_nil(value) or is_binary(value)

  defp read_all(schemas, at, size), do: Enum.map_reduce(schemas, size, &read(&1, at, &2))

  # --- references, alternatives, values ---

  defp whole(%{"$ref" => reference} = said, _schema, at, size) when map_size(said) == 1 do
    want(is_binary(reference) and String.starts_with?(reference, "#/"))
    want(reference not in at.followed)
    "#/" <> pointer = reference
    found = pointer |> String.split("/") |> Enum.reduce(at.root, &resolve/2)
    read(found, %{at | followed: [reference | at.followed]}, size)
  end

  defp whole(%{"anyOf" => [_ | _] = schemas} = said, _schema, at, size)
       when map_size(said) == 1 do
    want(length(schemas) <= @max_alternatives)
    {types, size} = read_all(schemas, at, size)
    {Types.union(types), size}
  end

  defp whole(%{"oneOf" => [_ | _] = schemas} = said, _schema, at, size) do
    want(Map.keys(said) -- ["oneOf", "discriminator"] == [])
    want(length(schemas) <= @max_alternatives)
    {types, size} = read_all(schemas, at, size)
    want(SchemaOverlap.distinct?(types))
    {Types.union(types), size}
  end

  # Some generators put a single reference in an allOf.
  defp whole(%{"allOf" => [schema]} = said, _schema, at, size) when map_size(said) == 1,
    do: read(schema, at, size)

  defp whole(%{"enum" => values} = said, _schema, _at, size), do: values(values, said, size)
  defp whole(%{"const" => value} = said, _schema, _at, size), do: values([value], said, size)
  defp whole(none, _schema, _at, size) when none == %{}, do: {:any, size}

  defp whole(%{"type" => stated} = said, schema, at, size) do
    kinds = Enum.uniq(List.wrap(stated))
    want(kinds != [] and Enum.all?(kinds, &is_map_key(@keywords, &1)))
    rest = Map.drop(said, ["type", "allOf"])

    if kinds == ["number", "string"] and rest["pattern"] == @number do
      {number(:decimal, Map.delete(rest, "pattern")), size}
    else
      want(Map.keys(rest) -- Enum.flat_map(kinds, &@keywords[&1]) == [])
      want(not is_map_key(said, "allOf") or kinds == ["string"])

      {types, size} =
        Enum.map_reduce(kinds, size, fn kind, size ->
          kind(kind, Map.take(said, ["allOf" | @keywords[kind]]), schema, at, size)
        end)

      {Types.union(types), size}
    end
  end

  defp whole(_said, _schema, _at, _size), do: no_type()

  defp resolve(part, found) do
    key = part |> URI.decode() |> String.replace("~1", "/") |> String.replace("~0", "~")

    case found do
      %{^key => next} ->
        next

      [_ | _] ->
        if key =~ ~r/\A[0-9]{1,9}\z/, do: Enum.at(found, String.to_integer(key)), else: no_type()

      _other ->
        no_type()
    end
  end

  defp values(values, said, {types, known}) do
    want(Map.keys(said) -- ["enum", "const", "type"] == [] and map_size(said) <= 2)
    want(is_list(values) and length(values) in 1..@max_enum_values)
    count = known + length(values)
    want(count <= @max_values)
    {values(values, said), {types, count}}
  end

  defp values(values, said) do
    kinds = if is_map_key(said, "type"), do: List.wrap(said["type"])

    if kinds == ["number"] and Enum.all?(values, &is_number/1) do
      constrained(:float, one_of: values)
    else
      want(Enum.all?(values, &(TypeText.literal(&1) != :error)))
      want(is_nil(kinds) or Enum.all?(values, &of_kinds?(&1, kinds)))
      {:one_of, Enum.uniq_by(values, &TypeText.literal/1)}
    end
  end

  defp of_kinds?(nil, kinds), do: "null" in kinds
  defp of_kinds?(value, kinds) when is_boolean(value), do: "boolean" in kinds
  defp of_kinds?(value, kinds) when is_integer(value), do: "integer" in kinds or "number" in kinds
  defp of_kinds?(_text, kinds), do: "string" in kinds

  # --- by the type of JSON Schema ---

  defp kind("null", _said, _schema, _at, size), do: {:none, size}
  defp kind("boolean", _said, _schema, _at, size), do: {:boolean, size}
  defp kind("integer", said, _schema, _at, size), do: {number(:integer, said), size}
  defp kind("number", said, _schema, _at, size), do: {number(:float, said), size}
  defp kind("string", said, _schema, _at, size), do: {text(said), size}
  defp kind("array", said, schema, at, size), do: array(said, schema, at, size)
  defp kind("object", said, schema, at, size), do: object(said, schema, at, size)

  defp number(type, said) do
    said
    |> Enum.map(fn {keyword, value} -> limit(keyword, value, type) end)
    # Of two bounds the narrower one counts.
    |> Enum.reduce([], fn {name, value}, options ->
      Keyword.update(
        options,
        name,
        value,
        if(name == :min, do: &max(&1, value), else: &min(&1, value))
      )
    end)
    |> then(&constrained(type, &1))
  end

  defp limit(_keyword, value, _type) when not is_number(value), do: no_type()
  defp limit("minimum", value, :integer), do: {:min, ceil(value)}
  defp limit("maximum", value, :integer), do: {:max, floor(value)}
  defp limit("exclusiveMinimum", value, :integer), do: {:min, floor(value) + 1}
  defp limit("exclusiveMaximum", value, :integer), do: {:max, ceil(value) - 1}
  defp limit("exclusive" <> _, _value, _type), do: no_type()
  defp limit(keyword, value, _type), do: {Map.fetch!(@names, keyword), value}

  defp text(%{"allOf" => all} = said) do
    want(all == [%{"pattern" => @time}] and not is_map_key(said, "format"))

    said
    |> Map.delete("allOf")
    |> options()
    |> Keyword.put(:format, "time")
    |> then(&constrained(:string, &1))
  end

  defp text(%{"format" => "code", "contentMediaType" => @media_type <> language} = said) do
    want(TypeCheck.check({:code, language}) == :ok and map_size(said) == 2)
    {:code, language}
  end

  defp text(%{"contentMediaType" => _other}), do: no_type()

  defp text(%{"format" => format} = said) when is_map_key(@text_formats, format),
    do: constrained(@text_formats[format], options(Map.delete(said, "format")))

  defp text(%{"format" => format} = said) when is_map_key(@dspy_texts, format),
    do: constrained(@dspy_texts[format], options(Map.delete(said, "format")))

  # JSON Schema's own has an offset.
  defp text(%{"format" => "time"}), do: no_type()

  defp text(%{"pattern" => @time} = said) when not is_map_key(said, "format"),
    do: constrained(:time, options(Map.delete(said, "pattern")))

  defp text(said), do: constrained(:string, options(said))

  defp array(%{"format" => _format} = said, _schema, _at, size) do
    case @dspy_arrays[Map.put(said, "type", "array")] do
      nil -> no_type()
      type -> {type, size}
    end
  end

  defp array(%{"prefixItems" => [_ | _] = schemas} = said, _schema, at, size) do
    count = length(schemas)
    want(said["items"] == false or said["maxItems"] == count)
    want(said["minItems"] == count and Map.get(said, "maxItems", count) == count)
    want(Map.get(said, "uniqueItems", false) == false)
    {types, size} = read_all(schemas, at, size)
    {{:tuple, Enum.map(types, &valued/1)}, size}
  end

  defp array(%{"prefixItems" => _other}, _schema, _at, _size), do: no_type()

  defp array(said, _schema, at, size) do
    {type, size} = read(Map.get(said, "items", true), at, size)
    want(type != :none)
    options = said |> Map.delete("items") |> options() |> Enum.reject(&(&1 == {:unique, false}))
    {constrained({:list, type}, options), size}
  end

  defp object(said, schema, at, size) do
    if is_map_key(said, "properties") or said["additionalProperties"] == false,
      do: properties(said, schema, at, size),
      else: dict(said, at, size)
  end

  defp properties(said, schema, at, size) do
    want(Map.keys(said) -- ["properties", "required", "additionalProperties"] == [])
    schemas = Map.get(said, "properties", %{})
    required = Map.get(said, "required", [])
    want(is_map(schemas) and map_size(schemas) <= @max_properties and is_list(required))
    want(length(required) <= @max_properties)
    want(Enum.all?(required, &is_map_key(schemas, &1)))

    {properties, size} =
      Enum.map_reduce(schemas, size, fn {name, schema}, size ->
        want(String.length(name) <= @max_property_name_length)
        {type, size} = read(schema, at, size)
        {property(name, valued(type), name in required, schema), size}
      end)

    {additional, size} =
      case Map.get(said, "additionalProperties", true) do
        false -> {nil, size}
        other -> read(other, at, size)
      end

    rest = %{additional: additional && valued(additional)}
    rest = Map.merge(rest, %{title: schema["title"], description: schema["description"]})
    {{:object, properties, rest}, size}
  end

  defp property(name, type, required?, schema) do
    said = if is_map(schema), do: schema, else: %{}
    description = said["description"]

    # Both stand at the same place, so they are one; the nearer goes before that of a reference.
    {type, description} =
      case type do
        {:object, properties, rest} ->
          description = description || rest.description
          {{:object, properties, %{rest | description: description}}, description}

        type ->
          {type, description}
      end

    default = with {:ok, value} <- Map.fetch(said, "default"), do: {:value, value}

    %{
      name: name,
      type: type,
      required?: required?,
      default: if(default == :error, do: :none, else: default),
      description: description
    }
  end

  defp dict(said, at, size) do
    want(Map.get(said, "required", []) == [])
    {key, size} = key(Map.get(said, "propertyNames", true), at, size)
    {type, size} = read(Map.get(said, "additionalProperties", true), at, size)
    type = if {key, type} == {:string, :any}, do: :map, else: {:dict, key, valued(type)}

    options =
      for {keyword, name} <- [{"minProperties", :min_items}, {"maxProperties", :max_items}],
          is_map_key(said, keyword),
          do: {name, said[keyword]}

    {constrained(type, options), size}
  end

  defp key(names, _at, size) when names in [true, %{}, %{"type" => "string"}],
    do: {:string, size}

  defp key(names, _at, size) when is_map_key(@key_types, names), do: {@key_types[names], size}

  defp key(%{"enum" => _values} = names, at, size),
    do: read(Map.put_new(names, "type", "string"), at, size)

  defp key(_other, _at, _size), do: no_type()

  # nil stands only beside another type; a place that holds nothing else is a Literal.
  defp valued(:none), do: {:one_of, [nil]}
  defp valued(type), do: type

  # By name, so that a schema is always read as the same term.
  defp options(said) do
    for {keyword, value} <- Enum.sort(said) do
      case @names do
        %{^keyword => name} -> {name, value}
        %{} -> no_type()
      end
    end
  end

  defp constrained(type, []), do: type

  defp constrained(type, options) do
    want(Constraints.check(type, options) == :ok)
    {:constrained, type, options}
  end
end
