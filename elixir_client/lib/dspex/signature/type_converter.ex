defmodule DSPex.Signature.TypeConverter do
  @moduledoc """
  Elixir's types, the wire's and JSON Schema: one table, and the values of each.

  | in Elixir | on the wire | a value in Elixir |
  |---|---|---|
  | `:string` | `str` | `t:String.t/0` |
  | `:integer` | `int` | integer |
  | `:float` | `float` | float, or `:nan`, `:infinity`, `:neg_infinity` |
  | `:boolean` | `bool` | `true`, `false` |
  | `:binary` | `bytes` | binary |
  | `:any` | `any` | anything that has a form on the wire |
  | `:map` | `dict` | map |
  | `:date`, `:time`, `:datetime` | the same | `Date`, `Time`, `DateTime` (a naive one: `NaiveDateTime`) |
  | `:decimal` | `decimal` | `Decimal` where that library is loaded, else `DSPex.Decimal` |
  | `{:list, t}` | `list[t]` | list |
  | `{:set, t}` | `set[t]` | `MapSet` |
  | `{:tuple, [t, u]}` | `tuple[t, u]` | tuple |
  | `{:dict, k, v}` | `dict[k, v]` | map with keys of that type |
  | `{:optional, t}` | `t \\| None` | `nil` or of type `t` |
  | `{:union, [t, u]}` | `t \\| u` | of one of the types |
  | `{:one_of, [:a, "b", 1]}` | `Literal["a", "b", 1]` | one of these strings, integers, booleans, atoms |
  | `:embedding`, `{:embedding, 768}` | `embedding`, `embedding[768]` | list of floats |
  | `:probability`, `:confidence_score` | the same | float from 0 to 1 |
  | `:token_count` | the same | integer from 0 |
  | `:reasoning_chain` | the same | list of strings |
  | `:tensor` | the same | `DSPex.Tensor` |
  | `:image`, `:audio`, `:file` | the same | a string (an address, a data URI, a path), or `DSPex.Binary` |
  | `:history` | the same | list of maps |
  | `:code`, `{:code, "python"}` | `code`, `code["python"]` | string |
  | `:tool_calls` | the same | list of maps with `name` and `args` |

  Some travel as others do:

  | in Elixir | as | |
  |---|---|---|
  | `:atom` | `:string` | from an atom or a string, to a string; with `one_of: [:a, :b]` as `{:one_of, [:a, :b]}`, whose atoms come back: no others are ever made |
  | `:prompt_template` | `:string` | |
  | `:model_output`, `:tool_result` | `:any` | |
  | `:function_call` | `%{name: :string, arguments: :map}` | |
  | `{:tagged, :ok, t}` | `{:tuple, [{:one_of, [:ok]}, t]}` | the tuple `{:ok, value}` |

  And these are JSON Schema on the wire:

  | in Elixir | a value in Elixir |
  |---|---|
  | `%{name: :string, age: {:optional, :integer}}` | a map of these keys and no others, but for optional ones that are left out |
  | `Triage.Inputs`, `Triage.Outputs` | the struct of that signature |
  | `{:constrained, :integer, min: 1}` | as the type, within these constraints; at the top of a field the same as the field's own options |
  | `{:json_schema, map}` | what fits the schema, as the bridge judges |
  """

  alias DSPex.Signature.{JsonSchema, SchemaReader, TypeCheck, TypeParser, Types, TypeText, Values}

  @type type :: Types.t()

  @doc """
  Whether a term is a type; if not, why.

      iex> DSPex.Signature.TypeConverter.check({:list, {:one_of, [:low, :high]}})
      :ok

      iex> {:error, message} = DSPex.Signature.TypeConverter.check({:list, :strng})
      iex> message =~ "unknown type :strng (did you mean :string?); the types are :string, :integer,"
      true
  """
  @spec check(term()) :: :ok | {:error, String.t()}
  defdelegate check(type), to: TypeCheck

  @doc """
  The type as the wire has it: text, or a JSON Schema where there is no text for it.

      iex> DSPex.Signature.TypeConverter.to_wire({:dict, :string, {:optional, {:list, :float}}})
      "dict[str, list[float] | None]"

      iex> DSPex.Signature.TypeConverter.to_wire({:one_of, [:low, "so \\"so\\"", 3, true]})
      ~S|Literal["low", "so \\"so\\"", 3, True]|

      iex> DSPex.Signature.TypeConverter.to_wire({:list, {:constrained, :integer, min: 1}})
      %{"type" => "array", "items" => %{"type" => "integer", "minimum" => 1}}
  """
  @spec to_wire(type()) :: String.t() | map()
  def to_wire(type),
    do: if(TypeText.text?(type), do: TypeText.text(type), else: to_json_schema(type))

  @doc """
  The type for people, and in errors: the text of the wire where it has one.

      iex> DSPex.Signature.TypeConverter.to_text({:list, {:constrained, :integer, min: 0}})
      "list[int (min 0)]"
  """
  @spec to_text(type()) :: String.t()
  defdelegate to_text(type), to: TypeText, as: :text

  @doc "The type that the wire's text or JSON Schema describes."
  @spec from_wire(String.t() | map()) :: {:ok, type()} | {:error, DSPex.Error.t()}
  def from_wire(text) when is_binary(text), do: TypeParser.type(text)
  def from_wire(schema) when is_map(schema), do: {:ok, from_json_schema(schema)}

  @doc """
  The JSON Schema (draft 2020-12) of the values of a type.

      iex> DSPex.Signature.TypeConverter.to_json_schema({:optional, :probability})
      %{"anyOf" => [%{"type" => "number", "minimum" => 0, "maximum" => 1}, %{"type" => "null"}]}
  """
  @spec to_json_schema(type()) :: map()
  def to_json_schema(type), do: JsonSchema.of_type(type, %{})

  @doc """
  The type that says what a JSON Schema does; `{:json_schema, schema}` where none does.

  An object with more to say than a map has (a description, a default, open to other keys) is read as
  `{:object, properties, rest}`, whose values are maps with string keys.

      iex> DSPex.Signature.TypeConverter.from_json_schema(%{"type" => "array", "items" => %{"type" => "string"}})
      {:list, :string}

      iex> DSPex.Signature.TypeConverter.from_json_schema(%{"not" => %{}})
      {:json_schema, %{"not" => %{}}}
  """
  @spec from_json_schema(map()) :: type()
  defdelegate from_json_schema(schema), to: SchemaReader, as: :type

  @doc """
  A value of a type, as the codec writes it. What does not fit the type is left as it is: the bridge
  says what is wrong with it, together with everything else.

      iex> DSPex.Signature.TypeConverter.dump({:tuple, [:integer, :binary]}, {1, <<255>>})
      [1, %DSPex.Binary{data: <<255>>}]
  """
  @spec dump(type(), term()) :: term()
  defdelegate dump(type, value), to: Values

  @doc """
  A value that the bridge sent, as Elixir has it.

      iex> alias DSPex.Signature.TypeConverter
      iex> TypeConverter.load({:list, {:one_of, [:low, :high]}}, ["high", "low"])
      {:ok, [:high, :low]}
      iex> TypeConverter.load({:dict, :string, :date}, %{"due" => "2024-02-30"})
      {:error, ["due"], "date"}
  """
  @spec load(type(), term()) ::
          {:ok, term()} | {:error, path :: [String.t() | integer()], expected :: String.t()}
  defdelegate load(type, value), to: Values
end
