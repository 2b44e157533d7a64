defmodule DSPex.Signature do
  @moduledoc ~S'''
  What a program takes and gives: named, typed inputs and outputs, and instructions.

  A signature is a module, compiled and checked with the application:

      defmodule Triage do
        @moduledoc "Sort a customer's e-mail for the support team."
        use DSPex.Signature

        input :subject, :string
        input :body, :string, description: "the e-mail without its quoted parts"

        output :category, {:one_of, [:billing, :defect, :question]}
        output :urgency, :probability
        output :phrases, {:list, :string}, max_items: 5
      end

  The module's `@moduledoc` becomes the instructions. Where fields need no options, three shorter
  forms mean the same; in a string the types are those of the wire, and a bare name is a `str`:

      use DSPex.Signature, "question, context: list[str] -> answer, confidence: float"

      signature do
        (question: :string, context: {:list, :string}) -> [answer: :string, confidence: :float]
      end

      signature [question: :string, context: {:list, :string}] ~>
                  [answer: :string, confidence: :float]

  (`signature "question -> answer"` after a bare `use` is the first once more.) What is wrong is a
  compile error at the line of the field, which names it and says what is allowed.

  Such a module has:

    * `__signature__/0`, `input_fields/0` and `output_fields/0`;
    * `validate_inputs/1` and `validate_outputs/1`, which convert what is safe and tell everything
      that is wrong (see `DSPex.Signature.Validator`);
    * `to_json_schema/1` (see `DSPex.Signature.JsonSchema`) and `describe/0`, a text for people;
    * the structs `Triage.Inputs` and `Triage.Outputs`, each with `t:t/0` and `new/1`, which
      `DSPex.execute/4` takes for inputs, and which are types for fields of other signatures.

  At run time `new/2` makes a signature of a string, a map or two keyword lists. `DSPex.create/3`
  takes all of these.

  Outputs come back under the names that the signature has: atoms where it was written in Elixir
  (only those atoms, never others), strings where it was a string at run time.

  The types are those of `DSPex.Signature.TypeConverter`. The options of a field:

  '''

  alias DSPex.{Error, ModuleOutputs, Options}

  alias DSPex.Signature.{
    Compiler,
    Field,
    JsonSchema,
    MapReader,
    Struct,
    TypeConverter,
    TypeParser,
    TypeSpec,
    TypeText,
    Validator,
    Values
  }

  @moduledoc @moduledoc <> Field.docs()

  @type t :: %__MODULE__{
          name: String.t() | nil,
          instructions: String.t() | nil,
          inputs: [Field.t(), ...],
          outputs: [Field.t(), ...]
        }

  @enforce_keys [:inputs, :outputs]
  defstruct [:name, :instructions, :inputs, :outputs]

  @new_schema [
    name: {:string, "the name of the signature."},
    instructions: {:string, "what the program is to do."}
  ]

  @doc false
  defmacro __using__(text) do
    add_text = if text != [], do: Compiler.text(text, __CALLER__)

    quote do
      import DSPex.Signature, only: [input: 2, input: 3, output: 2, output: 3, signature: 1]
      Module.register_attribute(__MODULE__, :dspex_fields, accumulate: true)
      @before_compile DSPex.Signature.Compiler
      unquote(add_text)
    end
  end

  @doc "Declares an input; see the module's documentation for the options."
  defmacro input(name, type, options \\ []),
    do: Compiler.field(:input, name, type, options, __CALLER__)

  @doc "Declares an output; see the module's documentation for the options."
  defmacro output(name, type, options \\ []),
    do: Compiler.field(:output, name, type, options, __CALLER__)

  @doc "Declares all inputs and outputs at once; see the module's documentation for the forms."
  defmacro signature(form), do: Compiler.signature(form, __CALLER__)

  @doc """
  Makes a signature at run time, of a string with the wire's types, of a map
  `%{inputs: [%{name: :question, type: :string}], outputs: [...]}`, or of two keyword lists of names
  and types. Defaults have to fit their fields.

      iex> {:ok, signature} = DSPex.Signature.new({[question: :string], [answer: :string]},
      ...>   instructions: "Answer in one sentence.")
      iex> {to_string(signature), signature.instructions}
      {"question: str -> answer: str", "Answer in one sentence."}

      iex> {:error, error} = DSPex.Signature.new({[question: :strng], [answer: :string]})
      iex> error.message =~ "field :question: unknown type :strng (did you mean :string?)"
      true

  Options:

  #{Options.docs(@new_schema)}
  """
  @spec new(
          String.t() | map() | {inputs :: keyword(), outputs :: keyword()} | module() | t(),
          keyword()
        ) :: {:ok, t()} | {:error, Error.t()}
  def new(spec, options \\ []) do
    with {:ok, options} <- options(options),
         {:ok, signature} <- of_spec(spec),
         :ok <- check_defaults(signature.inputs ++ signature.outputs),
         do: {:ok, struct!(signature, options)}
  end

  defp options(options) do
    with {:error, message} <- Options.validate(options, @new_schema), do: invalid(message)
  end

  defp of_spec({[_ | _] = inputs, [_ | _] = outputs}) do
    if Keyword.keyword?(inputs) and Keyword.keyword?(outputs) do
      with {:ok, inputs} <- MapReader.fields(inputs),
           {:ok, outputs} <- MapReader.fields(outputs),
           do: MapReader.distinct(%__MODULE__{inputs: inputs, outputs: outputs})
    else
      fetch(:none)
    end
  end

  defp of_spec(spec), do: fetch(spec)

  defp check_defaults(fields) do
    Enum.find_value(fields, :ok, fn field ->
      with :ok <- Field.check_default(field) do
        nil
      else
        {:error, message} -> invalid("field #{inspect(field.name)}: #{message}")
      end
    end)
  end

  @doc """
  Reads a string signature.

      iex> {:ok, signature} = DSPex.Signature.parse("question, n: int -> answers: list[str]")
      iex> Enum.map(signature.inputs ++ signature.outputs, &{&1.name, &1.type})
      [{"question", :string}, {"n", :integer}, {"answers", {:list, :string}}]

      iex> {:error, error} = DSPex.Signature.parse("question -> answer: strng")
      iex> {error.code, error.data}
      {:signature_error, %{"position" => 20}}
  """
  @spec parse(String.t()) :: {:ok, t()} | {:error, Error.t()}
  def parse(text) when is_binary(text) do
    with {:ok, {inputs, outputs}} <- TypeParser.signature(text, &check_name/3),
         {:ok, inputs} <- MapReader.fields(inputs),
         {:ok, outputs} <- MapReader.fields(outputs) do
      {:ok, %__MODULE__{inputs: inputs, outputs: outputs}}
    end
  end

  defp check_name(name, _side, names) do
    if name in names,
      do: {:error, "it stands twice; names are distinct over both sides"},
      else: Field.check_name(name)
  end

  @doc """
  The signature of a module, a string, a map or a signature.
  """
  @spec fetch(t() | module() | String.t() | map()) :: {:ok, t()} | {:error, Error.t()}
  def fetch(%__MODULE__{} = signature), do: {:ok, signature}
  def fetch(text) when is_binary(text), do: parse(text)

  def fetch(module) when is_atom(module) and module not in [nil, true, false, :none] do
    if Struct.signature?(module),
      do: {:ok, module.__signature__()},
      else: invalid("#{inspect(module)} is no module that uses DSPex.Signature")
  end

  def fetch(map) when is_map(map) and not is_struct(map), do: MapReader.read(map)

  def fetch(_other),
    do: invalid("a signature is a module that uses DSPex.Signature, a string or a map")

  defp invalid(message), do: {:error, Error.new(:signature_error, message)}

  @doc """
  The signature as the wire has it. Inputs that are variables are parameters of the program, and not
  in it.
  """
  @spec to_wire(t()) :: map()
  def to_wire(%__MODULE__{} = signature) do
    %{
      "inputs" =>
        for(field <- signature.inputs, is_nil(field.variable), do: Field.to_wire(field)),
      "outputs" => Enum.map(signature.outputs, &Field.to_wire/1)
    }
    |> put("name", signature.name)
    |> put("instructions", signature.instructions)
  end

  defp put(map, _key, nil), do: map
  defp put(map, key, value), do: Map.put(map, key, value)

  @doc "The inputs that are no variables, which are those that the LM sees."
  @spec prompt_inputs(t()) :: [Field.t()]
  def prompt_inputs(%__MODULE__{inputs: inputs}), do: Enum.filter(inputs, &is_nil(&1.variable))

  @doc "The variables among the inputs by name, as the wire has them; see the option `:variable`."
  @spec variables(t()) :: %{optional(String.t()) => map()}
  def variables(%__MODULE__{inputs: inputs}) do
    for %{variable: %{} = variable} = field <- inputs,
        into: %{},
        do: {to_string(field.name), variable}
  end

  @doc """
  Values of the inputs in two: those of the prompt, and the LM's parameters among the variables by
  the names that the LM has for them.
  """
  @spec split_variables(t(), map()) :: {inputs :: map(), config :: map()}
  def split_variables(%__MODULE__{} = signature, values) do
    variables = variables(signature)

    Enum.reduce(values, {%{}, %{}}, fn {key, value}, {inputs, config} ->
      case variables[if(is_atom(key), do: Atom.to_string(key), else: key)] do
        %{"applies_to" => "config." <> name} -> {inputs, Map.put(config, name, value)}
        _no_variable -> {Map.put(inputs, key, value), config}
      end
    end)
  end

  @doc """
  Values held to the inputs: converted where nothing is lost, with all that is wrong in the error.
  See `DSPex.Signature.Validator`.

      iex> {:ok, signature} = DSPex.Signature.parse("n: int -> a")
      iex> DSPex.Signature.validate_inputs(signature, n: "3")
      {:ok, %{"n" => 3}}
  """
  @spec validate_inputs(t(), map() | keyword()) :: {:ok, map()} | {:error, Error.t()}
  def validate_inputs(%__MODULE__{inputs: fields}, values),
    do: Validator.validate(fields, :inputs, values)

  @doc "Values held to the outputs, as `validate_inputs/2` does with the inputs."
  @spec validate_outputs(t(), map() | keyword()) :: {:ok, map()} | {:error, Error.t()}
  def validate_outputs(%__MODULE__{outputs: fields}, values),
    do: Validator.validate(fields, :outputs, values)

  @doc "The signature as JSON Schema; see `DSPex.Signature.JsonSchema.of_signature/2`."
  @spec to_json_schema(t(), JsonSchema.format()) :: map()
  def to_json_schema(%__MODULE__{} = signature, format \\ :generic),
    do: JsonSchema.of_signature(signature, format)

  @doc """
  The signature as a text for people.

      iex> {:ok, signature} = DSPex.Signature.new("question -> score: float")
      iex> signature |> DSPex.Signature.describe() |> String.split("\\n")
      ["Inputs:", "  * `question` (`str`)", "Outputs:", "  * `score` (`float`)"]
  """
  @spec describe(t()) :: String.t()
  def describe(%__MODULE__{} = signature) do
    head = for text <- [signature.name, signature.instructions], text, do: [text, "\n\n"]
    inputs = Enum.map_join(signature.inputs, "\n", &TypeSpec.line/1)
    outputs = Enum.map_join(signature.outputs, "\n", &TypeSpec.line/1)
    IO.iodata_to_binary([head, "Inputs:\n", inputs, "\nOutputs:\n", outputs])
  end

  @doc """
  Values under the names of fields, each as the codec writes it by its field's type. Keys are atoms
  or strings; a key that is no field's is left for the bridge to refuse.
  """
  @spec dump([Field.t()], map()) :: map()
  def dump(fields, values), do: Values.dump_fields(fields, values)

  @doc "The name of an output, of the signature or of the module, as outputs come under it."
  @spec output_name(t(), String.t()) :: atom() | String.t()
  def output_name(%__MODULE__{outputs: [first | _] = fields}, text) do
    case Enum.find(fields, &(to_string(&1.name) == text)) do
      nil -> if is_atom(first.name), do: Map.get(ModuleOutputs.names(), text, text), else: text
      field -> field.name
    end
  end

  @doc "Outputs from the wire, under the names and of the types that the signature has."
  @spec load_outputs(t(), map()) :: {:ok, map()} | {:error, Error.t()}
  def load_outputs(%__MODULE__{outputs: [first | _] = fields}, outputs) do
    by_text = Map.new(fields, &{to_string(&1.name), &1})
    added = if is_atom(first.name), do: ModuleOutputs.names(), else: %{}

    Enum.reduce_while(outputs, {:ok, %{}}, fn {text, value}, {:ok, loaded} ->
      with {:ok, field} <- Map.fetch(by_text, text),
           {:ok, value} <- TypeConverter.load(field.type, value) do
        {:cont, {:ok, Map.put(loaded, field.name, value)}}
      else
        :error -> {:cont, {:ok, Map.put(loaded, Map.get(added, text, text), value)}}
        {:error, path, expected} -> {:halt, misfit([text | path], expected, value)}
      end
    end)
  end

  defp misfit(path, expected, value) do
    got = inspect(value, limit: 5, printable_limit: 80)

    error = %{
      "path" => path,
      "type" => "type",
      "message" => "expected #{expected}, got #{got}",
      "expected" => expected,
      "got" => got
    }

    {:error,
     Error.new(:output_validation, "an output does not fit the signature",
       data: %{"errors" => [error]}
     )}
  end

  defimpl String.Chars do
    # The string form, without descriptions and the like.
    def to_string(signature),
      do: "#{side(signature.inputs)} -> #{side(signature.outputs)}"

    defp side(fields), do: Enum.map_join(fields, ", ", &"#{&1.name}: #{type(&1.type)}")

    defp type({:json_schema, _schema}), do: "(JSON Schema)"
    defp type(type), do: TypeText.text(type)
  end

  defimpl Inspect do
    def inspect(signature, _opts), do: "#DSPex.Signature<#{signature}>"
  end
end
