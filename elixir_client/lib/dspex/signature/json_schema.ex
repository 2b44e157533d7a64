defmodule DSPex.Signature.JSONSchema do
  @moduledoc """
  Types as JSON Schema (draft 2020-12), with string keys, as the bridge writes and reads them.
  """

  alias DSPex.Signature.TypeConverter

  # JSON Schema's own format "time" is another one: it has an offset.
  @time "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,9})?)?$"
  @number "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"
  @integer "^-?(0|[1-9][0-9]*)$"

  @tool_call %{
    "type" => "object",
    "properties" => %{"name" => %{"type" => "string"}, "args" => %{"type" => "object"}},
    "required" => ["name", "args"]
  }

  @names %{
    string: %{"type" => "string"},
    integer: %{"type" => "integer"},
    float: %{"type" => "number"},
    boolean: %{"type" => "boolean"},
    binary: %{"type" => "string", "format" => "binary"},
    any: %{},
    map: %{"type" => "object"},
    date: %{"type" => "string", "format" => "date"},
    time: %{"type" => "string", "pattern" => @time},
    datetime: %{"type" => "string", "format" => "date-time"},
    decimal: %{"type" => ["number", "string"], "pattern" => @number},
    embedding: %{"type" => "array", "items" => %{"type" => "number"}},
    probability: %{"type" => "number", "minimum" => 0, "maximum" => 1},
    confidence_score: %{"type" => "number", "minimum" => 0, "maximum" => 1},
    token_count: %{"type" => "integer", "minimum" => 0},
    reasoning_chain: %{"type" => "array", "items" => %{"type" => "string"}},
    tensor: %{"type" => "array"},
    image: %{"type" => "string", "format" => "image"},
    audio: %{"type" => "string", "format" => "audio"},
    file: %{"type" => "string", "format" => "file"},
    history: %{"type" => "array", "items" => %{"type" => "object"}, "format" => "history"},
    code: %{"type" => "string", "format" => "code"},
    tool_calls: %{"type" => "array", "items" => @tool_call, "format" => "tool_calls"}
  }

  # Keys travel as text.
  @keys %{
    integer: %{"pattern" => @integer},
    float: %{"pattern" => @number},
    decimal: %{"pattern" => @number},
    boolean: %{"enum" => ["true", "false"]},
    date: %{"format" => "date"},
    time: %{"pattern" => @time},
    datetime: %{"format" => "date-time"}
  }

  @constraints %{
    min: "minimum",
    max: "maximum",
    multiple_of: "multipleOf",
    min_length: "minLength",
    max_length: "maxLength",
    pattern: "pattern",
    format: "format",
    unique: "uniqueItems",
    min_items: "minItems",
    max_items: "maxItems",
    one_of: "enum"
  }

  @doc """
  The JSON Schema of the values of a type. The type has passed `TypeConverter.check/1`.

      iex> DSPex.Signature.JSONSchema.of_type(%{name: :string, age: {:optional, :integer}})
      %{
        "type" => "object",
        "properties" => %{
          "name" => %{"type" => "string"},
          "age" => %{"anyOf" => [%{"type" => "integer"}, %{"type" => "null"}]}
        },
        "required" => ["name"],
        "additionalProperties" => false
      }
  """
  @spec of_type(TypeConverter.type(), keyword()) :: map()
  def of_type(type, constraints \\ [])
  def of_type({:constrained, type, own}, more), do: of_type(type, own ++ more)
  def of_type({:json_schema, schema}, _constraints), do: schema

  def of_type({:optional, {:union, types}}, constraints),
    do: any_of(types, constraints, [%{"type" => "null"}])

  def of_type({:optional, type}, constraints),
    do: any_of([type], constraints, [%{"type" => "null"}])

  def of_type({:union, types}, constraints), do: any_of(types, constraints, [])

  def of_type({:list, :any}, constraints),
    do: Map.merge(%{"type" => "array"}, keywords(constraints))

  def of_type({:list, type}, constraints),
    do: Map.merge(%{"type" => "array", "items" => of_type(type)}, keywords(constraints))

  def of_type({:set, type}, constraints) do
    %{"type" => "array", "items" => of_type(type), "uniqueItems" => true}
    |> Map.merge(keywords(constraints))
  end

  def of_type({:tuple, types}, _constraints) do
    %{
      "type" => "array",
      "prefixItems" => Enum.map(types, &of_type/1),
      "items" => false,
      "minItems" => length(types)
    }
  end

  def of_type({:dict, key, type}, constraints) do
    %{"type" => "object"}
    |> put("propertyNames", key_schema(key))
    |> put("additionalProperties", if(type != :any, do: of_type(type)))
    |> put("minProperties", constraints[:min_items])
    |> put("maxProperties", constraints[:max_items])
  end

  def of_type({:one_of, values}, _constraints) do
    texts = Enum.map(values, &plain/1)

    case texts |> Enum.map(&kind/1) |> Enum.uniq() do
      [kind] -> %{"type" => kind, "enum" => texts}
      _several -> %{"enum" => texts}
    end
  end

  def of_type({:code, language}, _constraints),
    do: %{"type" => "string", "format" => "code", "contentMediaType" => "text/x-" <> language}

  def of_type({:embedding, size}, _constraints),
    do: Map.merge(@names.embedding, %{"minItems" => size, "maxItems" => size})

  def of_type(properties, _constraints) when is_map(properties) do
    required =
      for {name, type} <- properties, not match?({:optional, _}, type), do: to_string(name)

    %{
      "type" => "object",
      "properties" =>
        Map.new(properties, fn {name, type} -> {to_string(name), of_type(type)} end),
      "required" => Enum.sort(required),
      "additionalProperties" => false
    }
  end

  def of_type(:map, constraints), do: of_type({:dict, :string, :any}, constraints)
  def of_type(:embedding, dimensions: size), do: of_type({:embedding, size})

  def of_type(name, constraints), do: Map.merge(Map.fetch!(@names, name), keywords(constraints))

  defp any_of(types, constraints, others),
    do: %{"anyOf" => Enum.map(types, &of_type(&1, constraints)) ++ others}

  defp keywords(constraints) do
    Map.new(constraints, fn
      {:format, name} when name in ["time", :time] -> {"allOf", [%{"pattern" => @time}]}
      {name, value} -> {Map.fetch!(@constraints, name), plain(value)}
    end)
  end

  defp key_schema({:one_of, values}), do: %{"enum" => Enum.map(values, &to_string/1)}
  defp key_schema(type), do: @keys[type]

  defp put(schema, _key, nil), do: schema
  defp put(schema, key, value), do: Map.put(schema, key, value)

  defp plain(values) when is_list(values), do: Enum.map(values, &plain/1)
  defp plain(value) when value in [true, false, nil] or not is_atom(value), do: value
  defp plain(atom), do: Atom.to_string(atom)

  defp kind(nil), do: "null"
  defp kind(value) when is_boolean(value), do: "boolean"
  defp kind(value) when is_integer(value), do: "integer"
  defp kind(value) when is_binary(value), do: "string"
end
