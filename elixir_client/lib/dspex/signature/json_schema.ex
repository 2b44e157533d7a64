defmodule DSPex.Signature.JsonSchema do
  @moduledoc """
  Signatures and their types as JSON Schema (draft 2020-12), also in the forms in which the
  providers' function calling takes them.
  """

  alias DSPex.Signature
  alias DSPex.Signature.{Constraints, Field, FunctionSchema, Types, Values}

  # JSON Schema's own format "time" is another one: it has an offset.
  @time "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,9})?)?$"
  @number "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"

  @tool_call %{
    "type" => "object",
    "properties" => %{"name" => %{"type" => "string"}, "args" => %{"type" => "object"}},
    "required" => ["name", "args"]
  }

  @plain %{
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
    probability: %{"type" => "number", "minimum" => 0, "maximum" => 1},
    confidence_score: %{"type" => "number", "minimum" => 0, "maximum" => 1},
    token_count: %{"type" => "integer", "minimum" => 0},
    embedding: %{"type" => "array", "items" => %{"type" => "number"}},
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
    integer: %{"pattern" => "^-?(0|[1-9][0-9]*)$"},
    float: %{"pattern" => @number},
    decimal: %{"pattern" => @number},
    boolean: %{"enum" => ["true", "false"]},
    date: %{"format" => "date"},
    time: %{"pattern" => @time},
    datetime: %{"format" => "date-time"}
  }

  @keywords %{
    min: "minimum",
    max: "maximum",
    multiple_of: "multipleOf",
    min_length: "minLength",
    max_length: "maxLength",
    pattern: "pattern",
    format: "format",
    unique: "uniqueItems",
    min_items: "minItems",
    max_items: "maxItems"
  }

  @media_type "text/x-"

  @type format :: :openai | :openai_chat | :anthropic | :generic

  @doc false
  def tables, do: %{plain: @plain, keys: @keys, keywords: @keywords, media_type: @media_type}

  @doc """
  A signature in one of these forms; the first three go into `tools` of a request:

    * `:openai` - of OpenAI's Responses API: `%{"type" => "function", "name", "description",
      "parameters", "strict"}`;
    * `:openai_chat` - of its Chat Completions: the same under `"function"`;
    * `:anthropic` - of Anthropic's Messages: `%{"name", "description", "input_schema"}`;
    * `:generic` - `%{"name", "description", "input_schema", "output_schema"}`.

  OpenAI's strict mode knows a part of JSON Schema: what it has no keyword for stands in the
  description, what may be left out is nullable, and where it cannot say the inputs at all the
  function is not strict.

      iex> {:ok, signature} = DSPex.Signature.parse("n: int -> sum: float")
      iex> DSPex.Signature.JsonSchema.of_signature(signature, :anthropic)["input_schema"]["properties"]
      %{"n" => %{"type" => "integer"}}
  """
  @spec of_signature(Signature.t(), format()) :: map()
  def of_signature(%Signature{} = signature, format) do
    head = FunctionSchema.head(signature, "signature")
    inputs = signature |> Signature.prompt_inputs() |> of_fields(:inputs)

    case format do
      :openai ->
        Map.put(FunctionSchema.openai(head, inputs), "type", "function")

      :openai_chat ->
        %{"type" => "function", "function" => FunctionSchema.openai(head, inputs)}

      :anthropic ->
        Map.put(head, "input_schema", inputs)

      :generic ->
        outputs = of_fields(signature.outputs, :outputs)
        Map.merge(head, %{"input_schema" => inputs, "output_schema" => outputs})

      other ->
        raise ArgumentError,
              "a JSON Schema has the form :openai, :openai_chat, :anthropic or :generic, " <>
                "not #{inspect(other)}"
    end
  end

  @doc "The schema of the object that has all the inputs, or all the outputs."
  @spec of_fields([Field.t()], :inputs | :outputs) :: map()
  def of_fields(fields, side) do
    required =
      for field <- fields,
          side == :outputs or not Types.may_be_left_out?(field),
          do: to_string(field.name)

    schema = %{
      "type" => "object",
      "properties" => Map.new(fields, &{to_string(&1.name), of_field(&1)}),
      "required" => required
    }

    # A module adds outputs of its own, such as `reasoning`.
    if side == :inputs, do: Map.put(schema, "additionalProperties", false), else: schema
  end

  defp of_field(field) do
    field.type
    |> of_type(field.constraints)
    |> put("description", field.description)
    |> put_default(field.type, field.default)
  end

  defp put_default(schema, _type, :none), do: schema

  defp put_default(schema, type, {:value, value}) do
    {:ok, json} = Values.to_json(type, value)
    Map.put(schema, "default", json)
  end

  # --- from types ---

  @doc """
  The schema of the values of a type within constraints.

      iex> DSPex.Signature.JsonSchema.of_type(%{name: :string, age: {:optional, :integer}})
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
  @spec of_type(Types.t(), map()) :: map()
  def of_type(type, constraints \\ %{})
  def of_type({:json_schema, schema}, _constraints), do: schema
  def of_type({:optional, type}, constraints), do: any_of({:optional, type}, constraints)
  def of_type({:union, types}, constraints), do: any_of({:union, types}, constraints)

  def of_type({:constrained, type, options}, constraints),
    do: of_type(type, Map.merge(Constraints.normal(options), constraints))

  def of_type({:code, language}, _constraints) do
    Map.put(@plain.code, "contentMediaType", @media_type <> language)
  end

  def of_type({:embedding, size}, constraints),
    do: of_type(:embedding, Map.put(constraints, :dimensions, size))

  def of_type({:list, type}, constraints) do
    items = if Types.canonical(type) == :any, do: %{}, else: %{"items" => of_type(type, %{})}
    %{"type" => "array"} |> Map.merge(items) |> Map.merge(keywords(constraints))
  end

  def of_type({:set, type}, constraints) do
    %{"type" => "array", "items" => of_type(type, %{}), "uniqueItems" => true}
    |> Map.merge(keywords(constraints))
  end

  def of_type({:tuple, types}, _constraints) do
    %{
      "type" => "array",
      "prefixItems" => Enum.map(types, &of_type(&1, %{})),
      "items" => false,
      "minItems" => length(types)
    }
  end

  def of_type({:dict, key, type}, constraints) do
    schema = of_key(Types.canonical(key))

    schema =
      if Types.canonical(type) == :any,
        do: schema,
        else: Map.put(schema, "additionalProperties", of_type(type, %{}))

    Map.merge(schema, size(constraints))
  end

  def of_type(:map, constraints), do: Map.merge(@plain.map, size(constraints))

  def of_type({:one_of, values}, _constraints) do
    values = Enum.map(values, &json_value/1)

    case values |> Enum.map(&json_type/1) |> Enum.uniq() do
      [type] -> %{"type" => type, "enum" => values}
      _several -> %{"enum" => values}
    end
  end

  def of_type(type, constraints) when is_map_key(@plain, type),
    do: Map.merge(@plain[type], keywords(constraints))

  def of_type(type, constraints) do
    case Types.canonical(type) do
      ^type -> of_object(type)
      other -> of_type(other, constraints)
    end
  end

  defp of_object(type) do
    object = Types.object(type)
    required = for property <- object.properties, property.required?, do: to_string(property.name)

    %{
      "type" => "object",
      "properties" => Map.new(object.properties, &{to_string(&1.name), of_property(&1)}),
      "required" => required
    }
    |> put("title", object.title)
    |> put("description", object.description)
    |> additional(object.additional)
  end

  defp additional(schema, nil), do: Map.put(schema, "additionalProperties", false)
  defp additional(schema, :any), do: schema
  defp additional(schema, type), do: Map.put(schema, "additionalProperties", of_type(type, %{}))

  defp of_property(property) do
    property.type
    |> of_type(%{})
    |> put("description", property.description)
    |> put_default(property.type, property.default)
  end

  defp any_of(union, constraints) do
    schemas = union |> members() |> Enum.map(&of_type(&1, constraints))
    null = if none?(union), do: [%{"type" => "null"}], else: []
    %{"anyOf" => schemas ++ null}
  end

  defp members({:optional, type}), do: members(type)
  defp members({:union, types}), do: Enum.flat_map(types, &members/1)
  defp members(type), do: [type]

  defp none?({:optional, _type}), do: true
  defp none?({:union, types}), do: Enum.any?(types, &none?/1)
  defp none?(_type), do: false

  defp of_key({:one_of, values}),
    do: %{"type" => "object", "propertyNames" => %{"enum" => Enum.map(values, &to_string/1)}}

  defp of_key(key) do
    case @keys do
      %{^key => names} -> %{"type" => "object", "propertyNames" => names}
      %{} -> %{"type" => "object"}
    end
  end

  defp keywords(constraints) do
    Enum.reduce(constraints, %{}, fn
      {:one_of, values}, schema -> Map.put(schema, "enum", values)
      # Beside a pattern of the field's own.
      {:format, "time"}, schema -> Map.put(schema, "allOf", [%{"pattern" => @time}])
      {:dimensions, size}, schema -> Map.merge(schema, %{"minItems" => size, "maxItems" => size})
      {name, value}, schema -> Map.put(schema, Map.fetch!(@keywords, name), number(name, value))
    end)
  end

  # A decimal's bound may be text, and JSON has no decimals.
  defp number(name, text) when name in [:min, :max, :multiple_of] and is_binary(text) do
    {:ok, float} = Signature.Scalars.float(text)
    float
  end

  defp number(_name, value), do: value

  defp size(constraints) do
    for {name, key} <- [min_items: "minProperties", max_items: "maxProperties"],
        is_map_key(constraints, name),
        into: %{},
        do: {key, constraints[name]}
  end

  defp json_value(atom) when is_atom(atom) and atom not in [nil, true, false],
    do: Atom.to_string(atom)

  defp json_value(value), do: value

  defp json_type(nil), do: "null"
  defp json_type(value) when is_boolean(value), do: "boolean"
  defp json_type(value) when is_integer(value), do: "integer"
  defp json_type(_text), do: "string"

  defp put(map, _key, nil), do: map
  defp put(map, key, value), do: Map.put(map, key, value)
end
