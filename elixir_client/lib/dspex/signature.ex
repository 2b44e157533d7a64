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

  The module's `@moduledoc` becomes the instructions. The short form takes a string, with the types
  of the wire; a bare name is a `str`:

      defmodule Answer do
        @moduledoc "Answer in one sentence."
        use DSPex.Signature, "question, context: list[str] -> answer, confidence: float"
      end

  Such a module has `__signature__/0`, `input_fields/0` and `output_fields/0`. `DSPex.create/3` takes
  the module; the same string at run time; or a map `%{inputs: [%{name: :question, type: :string}],
  outputs: [...], instructions: "..."}`.

  Outputs come back under the names that the signature has: atoms where it was written in Elixir
  (only those atoms, never others), strings where it was a string at run time.

  The types are those of `DSPex.Signature.TypeConverter`. The options of a field:

  '''

  alias DSPex.{Error, Options}
  alias DSPex.Signature.{Compiler, Field, TypeConverter, TypeParser}

  @moduledoc @moduledoc <> Field.docs()

  @type t :: %__MODULE__{
          name: String.t() | nil,
          instructions: String.t() | nil,
          inputs: [Field.t(), ...],
          outputs: [Field.t(), ...]
        }

  @enforce_keys [:inputs, :outputs]
  defstruct [:name, :instructions, :inputs, :outputs]

  # What modules add to the outputs of the signature.
  @module_outputs %{"reasoning" => :reasoning, "trajectory" => :trajectory}

  @doc false
  defmacro __using__(text) do
    add_text =
      case text do
        [] ->
          nil

        text ->
          quote do: Compiler.text!(__MODULE__, unquote(text), unquote(at(__CALLER__)))
      end

    quote do
      import DSPex.Signature, only: [input: 2, input: 3, output: 2, output: 3]
      alias DSPex.Signature.Compiler, warn: false
      Module.register_attribute(__MODULE__, :dspex_fields, accumulate: true)
      @before_compile DSPex.Signature.Compiler
      unquote(add_text)
    end
  end

  @doc "Declares an input; see the module's documentation for the options."
  defmacro input(name, type, options \\ []), do: field(:input, name, type, options, __CALLER__)

  @doc "Declares an output; see the module's documentation for the options."
  defmacro output(name, type, options \\ []), do: field(:output, name, type, options, __CALLER__)

  defp field(side, name, type, options, env) do
    quote do
      DSPex.Signature.Compiler.field!(
        __MODULE__,
        unquote(side),
        unquote(name),
        unquote(type),
        unquote(options),
        unquote(at(env))
      )
    end
  end

  defp at(env), do: Macro.escape(%{file: env.file, line: env.line})

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
         {:ok, inputs} <- typed_fields(inputs),
         {:ok, outputs} <- typed_fields(outputs) do
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

  def fetch(module) when is_atom(module) and module not in [nil, true, false] do
    if Code.ensure_loaded?(module) and function_exported?(module, :__signature__, 0),
      do: {:ok, module.__signature__()},
      else: invalid("#{inspect(module)} is no module that uses DSPex.Signature")
  end

  def fetch(map) when is_map(map) and not is_struct(map), do: from_map(map)

  def fetch(_other),
    do: invalid("a signature is a module that uses DSPex.Signature, a string or a map")

  @map_keys ~w(name instructions inputs outputs)
  @field_keys ~w(name type description default constraints)

  # Keys are atoms or strings; types are Elixir's or the wire's.
  defp from_map(map) do
    with {:ok, map} <- string_keys(map, @map_keys, "a signature"),
         {:ok, name} <- text_or_nil(map, "name"),
         {:ok, instructions} <- text_or_nil(map, "instructions"),
         {:ok, inputs} <- side(map, "inputs"),
         {:ok, outputs} <- side(map, "outputs") do
      distinct(%__MODULE__{
        name: name,
        instructions: instructions,
        inputs: inputs,
        outputs: outputs
      })
    end
  end

  defp side(map, side) do
    case map do
      %{^side => [_ | _] = fields} -> collect(fields, &field_from_map(&1, side))
      %{} -> invalid("a signature has a list of #{side}, one at least")
    end
  end

  defp field_from_map(field, side) when is_map(field) and not is_struct(field) do
    with {:ok, field} <- string_keys(field, @field_keys, "a field of the #{side}"),
         {:ok, type} <- map_type(Map.get(field, "type", :string)),
         {:ok, options} <- map_options(field),
         {:ok, field} <- named(field["name"], Field.new(field["name"], type, options)) do
      {:ok, field}
    end
  end

  defp field_from_map(_other, side), do: invalid("a field of the #{side} is a map")

  defp map_type(text) when is_binary(text), do: TypeParser.type(text)
  defp map_type(schema) when is_map(schema), do: {:ok, {:json_schema, schema}}
  defp map_type(type), do: {:ok, type}

  defp map_options(field) do
    constraints = field["constraints"] || %{}
    names = ~w(min max multiple_of min_length max_length pattern format one_of unique dimensions
               min_items max_items)

    with true <- is_map(constraints) or Keyword.keyword?(constraints),
         {:ok, constraints} <- string_keys(constraints, names, "constraints") do
      options = for {key, value} <- constraints, do: {String.to_existing_atom(key), value}

      own =
        for key <- [:description, :default],
            is_map_key(field, "#{key}"),
            do: {key, field["#{key}"]}

      {:ok, Enum.reject(own, &(&1 == {:description, nil})) ++ options}
    else
      false -> invalid("constraints are a map")
      error -> error
    end
  end

  defp string_keys(map, known, what) do
    map =
      Map.new(map, fn {key, value} ->
        {if(is_atom(key), do: Atom.to_string(key), else: key), value}
      end)

    case Enum.find(Map.keys(map), &(&1 not in known)) do
      nil ->
        {:ok, map}

      unknown ->
        hint = Options.did_you_mean(unknown, known)
        shown = inspect(unknown, limit: 5, printable_limit: 60)
        invalid("unknown key #{shown}#{hint} in #{what}; the keys are #{Enum.join(known, ", ")}")
    end
  end

  defp text_or_nil(map, key) do
    case Map.get(map, key) do
      value when is_binary(value) or is_nil(value) -> {:ok, value}
      _other -> invalid("the #{key} of a signature is a string")
    end
  end

  defp typed_fields(pairs),
    do: collect(pairs, fn {name, type} -> named(name, Field.new(name, type, [])) end)

  defp named(_name, {:ok, field}), do: {:ok, field}

  defp named(name, {:error, message}),
    do: invalid("field #{inspect(name, limit: 5, printable_limit: 60)}: #{message}")

  defp collect(items, fun) do
    Enum.reduce_while(items, {:ok, []}, fn item, {:ok, done} ->
      case fun.(item) do
        {:ok, made} -> {:cont, {:ok, [made | done]}}
        error -> {:halt, error}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, Enum.reverse(done)}
      error -> error
    end
  end

  defp distinct(signature) do
    names = Enum.map(signature.inputs ++ signature.outputs, &to_string(&1.name))

    case names -- Enum.uniq(names) do
      [] ->
        {:ok, signature}

      [name | _] ->
        invalid("the field #{inspect(name)} stands twice; names are distinct over both sides")
    end
  end

  defp invalid(message), do: {:error, Error.new(:signature_error, message)}

  @doc "The signature as the wire has it."
  @spec to_wire(t()) :: map()
  def to_wire(%__MODULE__{} = signature) do
    %{
      "inputs" => Enum.map(signature.inputs, &Field.to_wire/1),
      "outputs" => Enum.map(signature.outputs, &Field.to_wire/1)
    }
    |> put("name", signature.name)
    |> put("instructions", signature.instructions)
  end

  defp put(map, _key, nil), do: map
  defp put(map, key, value), do: Map.put(map, key, value)

  @doc """
  Values under the names of fields, each as the codec writes it by its field's type. Keys are atoms
  or strings; a key that is no field's is left for the bridge to refuse.
  """
  @spec dump([Field.t()], map()) :: map()
  def dump(fields, values) do
    types = Map.new(fields, &{to_string(&1.name), &1.type})

    Map.new(values, fn {key, value} ->
      case types do
        %{^key => type} -> {key, TypeConverter.dump(type, value)}
        %{} when is_atom(key) -> {key, dump_atom_key(types, key, value)}
        %{} -> {key, value}
      end
    end)
  end

  defp dump_atom_key(types, key, value) do
    case Map.fetch(types, Atom.to_string(key)) do
      {:ok, type} -> TypeConverter.dump(type, value)
      :error -> value
    end
  end

  @doc "The name of an output, of the signature or of the module, as outputs come under it."
  @spec output_name(t(), String.t()) :: atom() | String.t()
  def output_name(%__MODULE__{outputs: [first | _] = fields}, text) do
    case Enum.find(fields, &(to_string(&1.name) == text)) do
      nil -> if is_atom(first.name), do: Map.get(@module_outputs, text, text), else: text
      field -> field.name
    end
  end

  @doc "Outputs from the wire, under the names and of the types that the signature has."
  @spec load_outputs(t(), map()) :: {:ok, map()} | {:error, Error.t()}
  def load_outputs(%__MODULE__{outputs: [first | _] = fields}, outputs) do
    by_text = Map.new(fields, &{to_string(&1.name), &1})
    added = if is_atom(first.name), do: @module_outputs, else: %{}

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
    alias DSPex.Signature.{Field, TypeConverter}

    # The string form, without descriptions and the like.
    def to_string(signature),
      do: "#{side(signature.inputs)} -> #{side(signature.outputs)}"

    defp side(fields), do: Enum.map_join(fields, ", ", &"#{&1.name}: #{type(&1)}")

    defp type(%Field{type: type}), do: TypeConverter.to_text(type)
  end

  defimpl Inspect do
    def inspect(signature, _opts), do: "#DSPex.Signature<#{signature}>"
  end
end
