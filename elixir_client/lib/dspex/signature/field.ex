defmodule DSPex.Signature.Field do
  @moduledoc """
  One input or output of a signature.

  `name` is an atom where the signature was written in Elixir, else a string; `type` is a type of
  `DSPex.Signature.TypeConverter`; `default` is `{:value, term}` or `:none`; `variable` is the
  variable of an input that an optimizer may choose, as the wire has it, else `nil`.
  """

  alias DSPex.Options
  alias DSPex.Signature.{Constraints, TypeConverter, Validator, Values, Variable}

  @type t :: %__MODULE__{
          name: atom() | String.t(),
          type: TypeConverter.type(),
          description: String.t() | nil,
          default: {:value, term()} | :none,
          constraints: %{optional(atom()) => term()},
          variable: map() | nil
        }

  @enforce_keys [:name, :type]
  defstruct [:name, :type, :description, :variable, default: :none, constraints: %{}]

  @own [
    description: {:string, "what the field means, for the LM."},
    default: {:any, "the value of an input that is left out."}
  ]

  @variable [
    variable:
      {{:is, &Variable.option/1},
       "whether an input is a parameter that an optimizer may choose (its value until then is the " <>
         "default) and not part of the prompt: `true`, or a keyword list of `applies_to:` (where " <>
         "it goes, as `\"config.temperature\"`; without it `config.` and the field's name), " <>
         "`low:`, `high:`, `log:` and `choices:`."}
  ]

  @schema @own ++ Constraints.schema() ++ @variable

  # DSPy's modules and signature classes and Pydantic's models have arguments and attributes of
  # these names.
  @reserved ~w(lm config demos self instance new_signature completions augmented base signature
    instructions fields input_fields output_fields with_instructions append_instructions
    with_updated_fields append prepend insert delete equals mro register dump_state load_state
    model_config model_fields model_computed_fields model_extra model_fields_set model_construct
    model_copy model_dump model_dump_json model_json_schema model_parametrized_name
    model_post_init model_rebuild model_validate model_validate_json model_validate_strings
    construct copy dict from_orm json schema parse_file parse_obj parse_raw schema_json validate
    update_forward_refs)

  @max_name_length 128

  @doc "The names of the options of a field."
  @spec options() :: [atom(), ...]
  def options, do: Keyword.keys(@schema)

  @doc "The options of a field, as a Markdown list."
  @spec docs() :: String.t()
  def docs, do: Options.docs(@schema)

  @doc """
  Makes a field, or says what is wrong with it.

      iex> {:ok, field} = DSPex.Signature.Field.new(:score, :float, min: 0, max: 1)
      iex> field.constraints
      %{max: 1, min: 0}

      iex> DSPex.Signature.Field.new(:lm, :string, [])
      {:error, "the name is reserved by DSPy or Pydantic; choose another"}

      iex> DSPex.Signature.Field.new(:score, :float, min: 1, max: 0)
      {:error, ":min (1) is above :max (0), so nothing fits"}
  """
  @spec new(term(), term(), term()) :: {:ok, t()} | {:error, String.t()}
  def new(name, type, options) do
    with :ok <- check_name(name),
         :ok <- TypeConverter.check(type),
         {:ok, options} <- Options.validate(options, @schema),
         {own, constraints} = Keyword.split(options, [:description, :default, :variable]),
         {type, constraints} = merge(type, constraints),
         :ok <- TypeConverter.check(type),
         :ok <- Constraints.check(type, constraints),
         constraints = Constraints.normal(constraints),
         {:ok, default} <- default(type, Keyword.fetch(own, :default)),
         {:ok, variable} <- variable(name, type, constraints, default, own[:variable]) do
      {:ok,
       %__MODULE__{
         name: name,
         type: type,
         description: own[:description],
         default: default,
         constraints: constraints,
         variable: variable
       }}
    end
  end

  # The constraints of the type itself stand beside it, and atoms that are listed are a choice.
  defp merge({:constrained, type, inner}, constraints),
    do: merge(type, Keyword.merge(inner, constraints))

  defp merge({:optional, {:constrained, type, inner}}, constraints),
    do: merge({:optional, type}, Keyword.merge(inner, constraints))

  # Of a union those that all members have.
  defp merge({:optional, {:union, _types} = union}, constraints) do
    {union, constraints} = merge(union, constraints)
    {{:optional, union}, constraints}
  end

  defp merge({:union, [{:constrained, _, inner} | _] = types} = union, constraints) do
    if Enum.all?(types, &match?({:constrained, _type, ^inner}, &1)) do
      {{:union, Enum.map(types, &elem(&1, 1))}, Keyword.merge(inner, constraints)}
    else
      {union, constraints}
    end
  end

  defp merge(:atom, constraints) do
    case Keyword.pop(constraints, :one_of) do
      {nil, constraints} -> {:atom, constraints}
      {values, constraints} -> {{:one_of, values}, constraints}
    end
  end

  defp merge(type, constraints), do: {type, constraints}

  defp default(_type, :error), do: {:ok, :none}

  defp default(type, {:ok, value}) do
    case Values.to_json(type, value) do
      {:ok, _json} -> {:ok, {:value, value}}
      {:error, message} -> {:error, "the default cannot travel: #{message}"}
    end
  end

  defp variable(_name, _type, _constraints, _default, none) when none in [nil, false],
    do: {:ok, nil}

  defp variable(name, type, constraints, default, options),
    do: Variable.new(name, type, constraints, default, options)

  @doc """
  Whether the default is a value of the field; if not, why.

      iex> {:ok, field} = DSPex.Signature.Field.new(:n, :integer, default: 0, min: 1)
      iex> DSPex.Signature.Field.check_default(field)
      {:error, "the default does not fit: expected int (min 1), got 0"}
  """
  @spec check_default(t()) :: :ok | {:error, String.t()}
  def check_default(%__MODULE__{default: :none}), do: :ok

  def check_default(%__MODULE__{default: {:value, value}} = field) do
    case Validator.value(field.type, field.constraints, value) do
      {:ok, _value} -> :ok
      {:error, error} -> {:error, "the default does not fit: #{error["message"]}"}
    end
  end

  @doc "Whether a field may have this name; if not, why."
  @spec check_name(term()) :: :ok | {:error, String.t()}
  def check_name(name)
      when (is_atom(name) and name not in [nil, true, false]) or is_binary(name) do
    text = to_string(name)

    cond do
      not Regex.match?(~r/\A[A-Za-z_][A-Za-z0-9_]*\z/, text) ->
        {:error, "a name has ASCII letters, digits and _, a letter first"}

      byte_size(text) > @max_name_length ->
        {:error, "a name has at most #{@max_name_length} characters"}

      String.starts_with?(text, ["_", "dspy_"]) ->
        {:error, "a name that begins with _ or dspy_ is reserved; choose another"}

      text in @reserved ->
        {:error, "the name is reserved by DSPy or Pydantic; choose another"}

      true ->
        :ok
    end
  end

  def check_name(_other), do: {:error, "a name is an atom"}

  @doc "The field as the wire has it."
  @spec to_wire(t()) :: map()
  def to_wire(%__MODULE__{} = field) do
    %{"name" => to_string(field.name), "type" => TypeConverter.to_wire(field.type)}
    |> put("description", field.description)
    |> put_default(field)
    |> put("constraints", constraints_to_wire(field.constraints))
  end

  defp constraints_to_wire(none) when none == %{}, do: nil

  defp constraints_to_wire(constraints),
    do: Map.new(constraints, fn {name, value} -> {Atom.to_string(name), value} end)

  defp put(map, _key, nil), do: map
  defp put(map, key, value), do: Map.put(map, key, value)

  defp put_default(map, %{default: :none}), do: map

  defp put_default(map, %{default: {:value, value}, type: type}) do
    {:ok, json} = Values.to_json(type, value)
    Map.put(map, "default", json)
  end
end
