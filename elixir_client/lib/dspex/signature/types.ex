defmodule DSPex.Signature.Types do
  @moduledoc false
  # The terms that are types: which there are, whether a term is one, and their text on the wire.
  # `DSPex.Signature.TypeConverter` documents them; the table there is made of `@names` and below.

  alias DSPex.Options
  alias DSPex.Signature.{Constraints, Field, Struct}

  @names [
    string: "str",
    integer: "int",
    float: "float",
    boolean: "bool",
    any: "any",
    map: "dict",
    binary: "bytes",
    date: "date",
    time: "time",
    datetime: "datetime",
    decimal: "decimal",
    embedding: "embedding",
    probability: "probability",
    confidence_score: "confidence_score",
    token_count: "token_count",
    reasoning_chain: "reasoning_chain",
    tensor: "tensor",
    image: "image",
    audio: "audio",
    file: "file",
    history: "history",
    code: "code",
    tool_calls: "tool_calls"
  ]
  @by_name Map.new(@names, fn {type, name} -> {name, type} end)

  # Names that say more to a reader than to the wire.
  @aliases [
    atom: :string,
    prompt_template: :string,
    model_output: :any,
    tool_result: :any,
    function_call: Macro.escape(%{name: :string, arguments: :map})
  ]

  @plain Keyword.keys(@names) ++ Keyword.keys(@aliases)

  @composite [
    "{:list, t}",
    "{:set, t}",
    "{:tuple, [t]}",
    "{:dict, k, v}",
    "{:optional, t}",
    "{:union, [t]}",
    "{:one_of, [...]}",
    "{:constrained, t, options}",
    "{:tagged, tag, t}",
    "{:embedding, 768}",
    "{:code, \"python\"}",
    "%{key: t}",
    "the Inputs or Outputs of a signature's module"
  ]

  @dspy [:image, :audio, :file, :history, :code, :tool_calls]

  # What travels as the key of a map, that is as text, and can be read from it.
  @keys [:string, :integer, :float, :boolean, :date, :time, :datetime, :decimal]

  @unhashable [:map, :embedding, :reasoning_chain, :tensor] ++ @dspy

  # An order of magnitude above the largest embedding models.
  @max_dimensions 65_536

  @int64 -0x8000_0000_0000_0000..0x7FFF_FFFF_FFFF_FFFF

  # Of an object's properties, as many as a person takes in at a glance.
  @shown_properties 8

  @type t :: atom() | tuple() | map()

  @type property :: %{
          name: atom() | String.t(),
          type: t(),
          required?: boolean(),
          default: {:value, term()} | :none,
          description: String.t() | nil
        }

  @type object :: %{
          properties: [property()],
          additional: t() | nil,
          title: String.t() | nil,
          description: String.t() | nil,
          partial?: boolean()
        }

  @doc "The type of a wire type that is a name alone."
  @spec from_name(String.t()) :: {:ok, t()} | :error
  def from_name(name), do: Map.fetch(@by_name, name)

  @doc "The names that a wire type may have."
  @spec wire_names() :: [String.t()]
  def wire_names,
    do: Keyword.values(@names) ++ ~w(list set tuple dict Optional Union Literal None)

  @doc "DSPy's own types, whose values only the bridge can judge."
  @spec dspy() :: [atom()]
  def dspy, do: @dspy

  @doc """
  The type that a name stands for: aliases, a struct's module and tagged types are others in other
  words.
  """
  @spec canonical(t()) :: t()
  for {name, type} <- @aliases, do: def(canonical(unquote(name)), do: unquote(type))
  def canonical({:tagged, tag, type}), do: {:tuple, [{:one_of, [tag]}, type]}
  def canonical(type), do: type

  @doc "The members of a type other than `nil`: a union's, or the type alone."
  @spec members(t()) :: [t()]
  def members({:optional, type}), do: members(type)
  def members({:union, types}), do: Enum.flat_map(types, &members/1)
  def members(type), do: [canonical(type)]

  @doc """
  The union of types: flat, nothing twice, and `:none`, which is nil's type, as `{:optional, type}`.
  Of `:none` alone it is `:none`.
  """
  @spec union([t() | :none]) :: t() | :none
  def union(types) do
    flat = Enum.flat_map(types, &flat/1)
    types = flat |> Enum.reject(&(&1 == :none)) |> Enum.uniq()

    case {types, :none in flat} do
      {[], true} -> :none
      {[type], true} -> {:optional, type}
      {types, true} -> {:optional, {:union, types}}
      {[type], false} -> type
      {types, false} -> {:union, types}
    end
  end

  defp flat({:union, types}), do: Enum.flat_map(types, &flat/1)
  defp flat({:optional, type}), do: flat(type) ++ [:none]
  defp flat(type), do: [type]

  @doc "Whether `nil` is a value of the type by its own declaration (`:any` declares nothing)."
  @spec allows_nil?(t()) :: boolean()
  def allows_nil?({:optional, _type}), do: true
  def allows_nil?({:union, types}), do: Enum.any?(types, &allows_nil?/1)
  def allows_nil?({:one_of, values}), do: nil in values
  def allows_nil?({:constrained, type, _options}), do: allows_nil?(type)
  def allows_nil?(_type), do: false

  # --- is it one? ---

  @doc "Whether a term is a type; if not, why."
  @spec check(term()) :: :ok | {:error, String.t()}
  def check(type) when type in @plain, do: :ok
  def check({:list, type}), do: check(type)

  def check({:set, type}) do
    with :ok <- check(type) do
      if wrong = unhashable(type),
        do: {:error, "a set cannot hold #{text(wrong)}; use a list"},
        else: :ok
    end
  end

  def check({:optional, type}), do: check(type)
  def check({:tuple, [_ | _] = types}), do: check_all(types)
  def check({:union, [_, _ | _] = types}), do: check_all(types)
  def check({:union, _few}), do: {:error, "{:union, [t, u]} takes a list of two types or more"}
  def check({:tuple, _none}), do: {:error, "{:tuple, [t, u]} takes a list of types"}

  def check({:dict, key, value}) do
    with :ok <- check_all([key, value]) do
      if key?(canonical(key)), do: :ok, else: {:error, "#{text(key)} cannot be the key of a dict"}
    end
  end

  def check({:one_of, values}), do: check_values(values)

  def check({:constrained, type, options}) do
    with :ok <- check(type),
         :ok <- Constraints.check_names(options),
         do: Constraints.check(type, options)
  end

  def check({:tagged, tag, type}) do
    if (is_atom(tag) and tag not in [nil, true, false]) or
         (is_binary(tag) and String.valid?(tag)),
       do: check(type),
       else: {:error, "{:tagged, tag, t} takes an atom or a string as its tag, not #{shown(tag)}"}
  end

  def check({:embedding, size}) when is_integer(size) and size in 1..@max_dimensions, do: :ok

  def check({:embedding, _size}),
    do: {:error, "{:embedding, size} takes an integer from 1 to #{@max_dimensions}"}

  def check({:code, language}) when is_binary(language) do
    if language =~ ~r/\A[A-Za-z0-9#+._-]{1,40}\z/,
      do: :ok,
      else: {:error, "the name of a language has 1 to 40 letters, digits and _ + # . -"}
  end

  def check({:json_schema, schema}) when is_map(schema) and not is_struct(schema), do: :ok
  def check({:json_schema, _other}), do: {:error, "{:json_schema, schema} takes a map"}

  # Only ever read from a JSON Schema, which holds the types in it to this.
  def check({:object, _properties, _rest}), do: :ok

  def check(map) when is_map(map) and not is_struct(map) do
    wrong = Enum.find(Map.keys(map), &(not key_name?(&1)))

    cond do
      map == %{} -> {:error, "%{key: t} has at least one key; the type of any map is :map"}
      wrong -> {:error, "the keys of a map are atoms or strings, not #{shown(wrong)}"}
      true -> check_properties(map)
    end
  end

  def check(other) do
    if is_atom(other) and Struct.struct?(other), do: :ok, else: {:error, unknown(other)}
  end

  defp key_name?(key) when is_atom(key), do: key not in [nil, true, false]
  defp key_name?(key), do: is_binary(key) and String.valid?(key)

  defp check_properties(map) do
    texts = map |> Map.keys() |> Enum.map(&to_string/1)

    case texts -- Enum.uniq(texts) do
      [] -> Enum.find_value(map, :ok, &check_property/1)
      [twice | _] -> {:error, "the key #{inspect(twice)} of %{key: t} stands twice"}
    end
  end

  defp check_property({key, type}) do
    case check(type) do
      :ok -> nil
      {:error, message} -> {:error, "#{key}: #{message}"}
    end
  end

  defp unknown(other) do
    hint = if is_atom(other), do: Options.did_you_mean(other, @plain), else: ""
    known = Enum.map_join(@plain, ", ", &inspect/1) <> ", " <> Enum.join(@composite, ", ")

    of_module =
      if is_atom(other) and Struct.signature?(other),
        do: " (a signature: say #{inspect(other)}.Inputs or #{inspect(other)}.Outputs)",
        else: hint

    "unknown type #{shown(other)}#{of_module}; the types are #{known}"
  end

  defp key?({:one_of, values}), do: nil not in values
  defp key?(type), do: type in @keys

  # What in the type of a set's items Python cannot hash.
  defp unhashable({:union, types}), do: Enum.find_value(types, &unhashable/1)
  defp unhashable({:tuple, types}), do: Enum.find_value(types, &unhashable/1)
  defp unhashable({:optional, type}), do: unhashable(type)
  defp unhashable({:constrained, type, _options}), do: unhashable(type)
  defp unhashable({:tagged, _tag, type}), do: unhashable(type)
  defp unhashable({:one_of, _values}), do: nil

  defp unhashable(type) do
    type = canonical(type)

    if is_tuple(type) or type in @unhashable or object?(type),
      do: type
  end

  defp check_all(types) do
    Enum.find_value(types, :ok, fn type -> with :ok <- check(type), do: nil end)
  end

  defp check_values([_ | _] = values) do
    texts = Enum.map(values, &literal/1)

    cond do
      bad = Enum.find(values, &(literal(&1) == :error)) ->
        {:error,
         "{:one_of, values} takes strings, integers of 64 bits, booleans and atoms, not #{shown(bad)}"}

      texts != Enum.uniq(texts) ->
        {:error, "{:one_of, values} has a value twice: #{shown(values -- uniq_by_text(values))}"}

      true ->
        :ok
    end
  end

  defp check_values(_none), do: {:error, "{:one_of, values} takes a list of values"}

  defp uniq_by_text(values), do: Enum.uniq_by(values, &literal/1)

  # --- text ---

  @doc "Whether the wire's grammar has the type: else it travels as JSON Schema."
  @spec text?(t()) :: boolean()
  def text?({composite, type}) when composite in [:list, :set, :optional], do: text?(type)
  def text?({composite, types}) when composite in [:tuple, :union], do: Enum.all?(types, &text?/1)
  def text?({:dict, key, value}), do: text?(key) and text?(value)
  def text?({:tagged, _tag, type}), do: text?(type)
  def text?({:constrained, _type, _options}), do: false
  def text?({:json_schema, _schema}), do: false
  def text?(type), do: not object?(canonical(type))

  @doc """
  A type as the wire and errors have it. Where `text?/1` is false it is for people alone.
  """
  @spec text(t()) :: String.t()
  for {type, name} <- @names, do: def(text(unquote(type)), do: unquote(name))

  def text({:list, type}),
    do: if(canonical(type) == :any, do: "list", else: "list[#{text(type)}]")

  def text({:set, type}), do: "set[#{text(type)}]"
  def text({:optional, _type} = union), do: union_text(union)
  def text({:union, _types} = union), do: union_text(union)
  def text({:tuple, types}), do: "tuple[#{Enum.map_join(types, ", ", &text/1)}]"

  def text({:dict, key, value}) do
    case {canonical(key), canonical(value)} do
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
    case canonical(type) do
      ^type -> "{#{type |> object() |> shown_properties() |> Enum.join(", ")}}"
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

  @doc "Whether values of a type are maps with known keys."
  @spec object?(t()) :: boolean()
  def object?({:object, _properties, _rest}), do: true
  def object?(type), do: is_map(type) or (is_atom(type) and Struct.struct?(type))

  @doc """
  What an object type says: of every property the name, the type with its constraints, whether there
  has to be one, and the default; and `additional`, the type of all other properties, nil where there
  are none. `partial?` is whether a property that is left out stays so, and is not nil.
  """
  @spec object(t()) :: object()
  def object({:object, properties, rest}),
    do: Map.merge(%{properties: properties, partial?: true}, rest)

  def object(map) when is_map(map) do
    # A map has no order: that of the names is the same on every machine.
    map
    |> Enum.sort_by(fn {key, _type} -> to_string(key) end)
    |> Enum.map(fn {key, type} -> property(key, type) end)
    |> closed(nil)
    |> Map.put(:partial?, true)
  end

  def object(module) do
    properties =
      for field <- Struct.fields(module) do
        constrained =
          if field.constraints == %{},
            do: field.type,
            else: {:constrained, field.type, Map.to_list(field.constraints)}

        property = property(field.name, constrained)
        required? = property.required? and field.default == :none
        %{property | default: field.default, description: field.description, required?: required?}
      end

    closed(properties, module |> inspect() |> String.replace(".", "_"))
  end

  defp closed(properties, title),
    do: %{
      properties: properties,
      additional: nil,
      title: title,
      description: nil,
      partial?: false
    }

  defp property(name, type) do
    %{name: name, type: type, required?: not allows_nil?(type), default: :none, description: nil}
  end

  @doc "Whether a field needs no value: it has a default, or its type allows `nil`."
  @spec may_be_left_out?(Field.t()) :: boolean()
  def may_be_left_out?(field), do: field.default != :none or allows_nil?(field.type)

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

  defp shown(term), do: inspect(term, limit: 10, printable_limit: 60)
end
