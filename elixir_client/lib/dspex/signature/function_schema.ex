defmodule DSPex.Signature.FunctionSchema do
  @moduledoc false
  # A signature as a function that an LM can call: the tool definitions of OpenAI and Anthropic.
  #
  # OpenAI's strict mode takes a part of JSON Schema: closed objects with every property required, and
  # few keywords. What may be left out is nullable there, and what a keyword would have said stands in
  # the description. Inputs that cannot be told so (a dict, any, a tuple) make the whole function one
  # that is not strict.

  alias DSPex.Signature
  alias DSPex.Signature.JsonSchema

  # Both providers': letters, digits, "_" and "-".
  @max_name_length 64

  # OpenAI's limits in strict mode.
  @max_strict_depth 10
  @max_strict_enum_values 1_000
  @strict_formats ~w(date-time time date duration email hostname ipv4 ipv6 uuid)
  @strict_keywords ~w(type enum description title pattern minimum maximum multipleOf minItems maxItems)

  # In the order in which a description has them.
  @words [
    {"minLength", "at least ", " long"},
    {"maxLength", "at most ", " long"},
    {"format", "in the format ", ""},
    {"contentMediaType", "of the media type ", ""},
    {"uniqueItems", "no item twice", nil},
    {"default", "default: ", ""}
  ]

  @time_pattern JsonSchema.tables().plain.time["pattern"]

  @doc "The name and the description; `name` is for a signature that has none."
  @spec head(Signature.t(), String.t()) :: map()
  def head(signature, name) do
    name = (signature.name || name) |> String.replace(~r/[^A-Za-z0-9_-]/, "_")

    %{
      "name" => String.slice(name, 0, @max_name_length),
      "description" => signature.instructions || told(signature)
    }
  end

  defp told(signature) do
    inputs = Enum.map_join(Signature.prompt_inputs(signature), ", ", & &1.name)
    outputs = Enum.map_join(signature.outputs, ", ", & &1.name)
    "Given #{inputs}, gives #{outputs}."
  end

  @doc "The function with its parameters as OpenAI takes it, strict where it can be."
  @spec openai(map(), map()) :: map()
  def openai(head, parameters) do
    {strict, _enum_values} = strict(parameters, @max_strict_depth, 0)
    Map.merge(head, %{"parameters" => strict, "strict" => true})
  catch
    {__MODULE__, :not_strict} -> Map.merge(head, %{"parameters" => parameters, "strict" => false})
  end

  defp not_strict, do: throw({__MODULE__, :not_strict})

  # `values` counts those of the enums so far, in the whole schema.
  defp strict(%{"anyOf" => schemas} = schema, depth, values) do
    {members, values} = Enum.map_reduce(schemas, values, &strict(&1, depth, &2))
    {described(%{"anyOf" => members}, schema, %{}), values}
  end

  defp strict(schema, depth, values) do
    if not is_map_key(schema, "type") and not is_map_key(schema, "enum"), do: not_strict()
    values = values + length(Map.get(schema, "enum", []))
    if values > @max_strict_enum_values, do: not_strict()

    case schema["type"] do
      "object" -> object(schema, depth - 1, values)
      kind -> plain(kind, schema, depth, values)
    end
  end

  defp plain(kind, schema, depth, values) do
    {all_of, said} = Map.pop(schema, "allOf")
    said = if all_of, do: Map.put_new(said, "pattern", @time_pattern), else: said
    kept = Map.take(said, @strict_keywords)

    {kept, said} =
      if said["format"] in @strict_formats,
        do: {Map.put(kept, "format", said["format"]), Map.delete(said, "format")},
        else: {kept, said}

    {kept, values} = items(kind, kept, schema, depth, values)
    {described(kept, schema, said), values}
  end

  defp items("array", _kept, %{"prefixItems" => _}, _depth, _values), do: not_strict()

  defp items("array", kept, %{"items" => items}, depth, values) do
    {items, values} = strict(items, depth, values)
    {Map.put(kept, "items", items), values}
  end

  defp items("array", _kept, _schema, _depth, _values), do: not_strict()
  defp items(_kind, kept, _schema, _depth, values), do: {kept, values}

  defp object(%{"properties" => properties} = schema, depth, values) when depth >= 0 do
    if Map.get(schema, "additionalProperties", false) != false, do: not_strict()

    {properties, values} =
      Enum.map_reduce(properties, values, fn {name, property}, values ->
        {strict, values} = strict(property, depth, values)
        strict = if name in schema["required"], do: strict, else: nullable(strict)
        {{name, strict}, values}
      end)

    made = %{
      "type" => "object",
      "properties" => Map.new(properties),
      "required" => Enum.map(properties, &elem(&1, 0)),
      "additionalProperties" => false
    }

    {described(made, schema, %{}), values}
  end

  defp object(_schema, _depth, _values), do: not_strict()

  defp nullable(schema) do
    {description, schema} = Map.split(schema, ["description"])

    members =
      case schema do
        %{"anyOf" => members} when map_size(schema) == 1 -> members
        schema -> [schema]
      end

    null = %{"type" => "null"}
    members = if null in members, do: members, else: members ++ [null]
    Map.put(description, "anyOf", members)
  end

  # With a description that says what strict mode has no keyword for.
  defp described(made, schema, said) do
    words =
      for {key, before, behind} <- @words,
          is_map_key(schema, key) and (is_map_key(said, key) or key == "default"),
          do: if(behind, do: before <> value_text(schema[key]) <> behind, else: before)

    description = Map.get(schema, "description", "")
    told = if words == [], do: "", else: "(#{Enum.join(words, "; ")})"

    case String.trim("#{description} #{told}") do
      "" -> Map.delete(made, "description")
      description -> Map.put(made, "description", description)
    end
  end

  defp value_text(text) when is_binary(text), do: text
  defp value_text(list) when is_list(list), do: "[#{Enum.map_join(list, ", ", &json/1)}]"
  defp value_text(other), do: json(other)

  # A default as JSON, which Elixir 1.14 has no writer for.
  defp json(text) when is_binary(text), do: DSPex.Signature.ShownValue.json_string(text)
  defp json(nil), do: "null"
  defp json(float) when is_float(float), do: DSPex.Signature.Exact.float_text(float)
  defp json(list) when is_list(list), do: value_text(list)

  defp json(map) when is_map(map) do
    "{" <>
      Enum.map_join(map, ", ", fn {key, value} -> json(key) <> ": " <> json(value) end) <> "}"
  end

  defp json(other), do: to_string(other)
end
