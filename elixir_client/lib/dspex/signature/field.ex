defmodule DSPex.Signature.Field do
  @moduledoc """
  One input or output of a signature.

  `name` is an atom where the signature was written in Elixir, else a string; `type` is a type of
  `DSPex.Signature.TypeConverter`; `default` is `{:value, term}` or `:none`.
  """

  alias DSPex.Options
  alias DSPex.Signature.{Constraints, TypeConverter}

  @type t :: %__MODULE__{
          name: atom() | String.t(),
          type: TypeConverter.type() | {:json_schema, map()},
          description: String.t() | nil,
          default: {:value, term()} | :none,
          constraints: %{optional(atom()) => term()}
        }

  @enforce_keys [:name, :type]
  defstruct [:name, :type, :description, default: :none, constraints: %{}]

  @constraints [
    min: {:any, "the least number."},
    max: {:any, "the greatest number."},
    multiple_of: {:any, "a number that divides it."},
    min_length: {:any, "the fewest characters or bytes."},
    max_length: {:any, "the most characters or bytes."},
    pattern: {:string, "a regular expression that a string matches, as text."},
    format:
      {:name, "`date`, `date-time`, `email`, `hostname`, `ipv4`, `ipv6`, `time`, `uri`, `uuid`."},
    one_of: {:list, "the values there are."},
    unique: {:boolean, "whether a list's items differ."},
    dimensions: {{:integer, 1, :infinity}, "the length of an embedding."},
    min_items: {:any, "the fewest items."},
    max_items: {:any, "the most items."}
  ]

  @schema [
            description: {:string, "what the field means, for the LM."},
            default: {:any, "the value of an input that is left out."}
          ] ++ @constraints

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
  """
  @spec new(term(), term(), term()) :: {:ok, t()} | {:error, String.t()}
  def new(name, type, options) do
    with :ok <- check_name(name),
         :ok <- check_type(type),
         {:ok, options} <- Options.validate(options, @schema),
         {own, constraints} = Keyword.split(options, [:description, :default]),
         :ok <- Constraints.check(type, constraints) do
      {:ok,
       %__MODULE__{
         name: name,
         type: type,
         description: own[:description],
         default: default(Keyword.fetch(own, :default)),
         constraints: Map.new(constraints)
       }}
    end
  end

  defp default({:ok, value}), do: {:value, value}
  defp default(:error), do: :none

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

  defp check_type({:json_schema, schema}) when is_map(schema), do: :ok
  defp check_type(type), do: TypeConverter.check(type)

  @doc "The field as the wire has it."
  @spec to_wire(t()) :: map()
  def to_wire(%__MODULE__{} = field) do
    %{"name" => to_string(field.name), "type" => type_to_wire(field.type)}
    |> put("description", field.description)
    |> put_default(field)
    |> put("constraints", constraints_to_wire(field.constraints))
  end

  defp type_to_wire({:json_schema, schema}), do: schema
  defp type_to_wire(type), do: TypeConverter.to_wire(type)

  defp constraints_to_wire(none) when none == %{}, do: nil

  defp constraints_to_wire(constraints),
    do: Map.new(constraints, fn {name, value} -> {Atom.to_string(name), value} end)

  defp put(map, _key, nil), do: map
  defp put(map, key, value), do: Map.put(map, key, value)

  defp put_default(map, %{default: :none}), do: map

  defp put_default(map, %{default: {:value, value}, type: type}),
    do: Map.put(map, "default", TypeConverter.dump(type, value))
end
