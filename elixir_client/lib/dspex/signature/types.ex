defmodule DSPex.Signature.Types do
  @moduledoc false
  # The terms that are types: which there are, and what they are made of. `TypeCheck` says whether a
  # term is one, `TypeText` what it is on the wire; `TypeConverter` documents them.

  alias DSPex.Signature.{Field, Struct}

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

  @dspy [:image, :audio, :file, :history, :code, :tool_calls]

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

  @doc "Types that are an atom alone."
  @spec plain() :: [atom()]
  def plain, do: Keyword.keys(@names) ++ Keyword.keys(@aliases)

  @doc "Types that have a name of their own on the wire, and that name."
  @spec names() :: keyword(String.t())
  def names, do: @names

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
end
