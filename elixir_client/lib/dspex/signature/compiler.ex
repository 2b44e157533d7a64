defmodule DSPex.Signature.Compiler do
  @moduledoc false
  # What the macros of `DSPex.Signature` and `DSPex.Program` expand to, and call while a module
  # compiles. Fields are checked where they are written, the whole at the end.

  alias DSPex.Signature
  alias DSPex.Signature.{Field, Source, Struct}

  # --- code for the macros ---

  @doc "The code that adds the field of one line."
  @spec field(:input | :output, Macro.t(), Macro.t(), Macro.t(), Macro.Env.t()) :: Macro.t()
  def field(side, name, type, options, env) do
    call(quote(do: field!(unquote_splicing([side, name, type, options]))), env)
  end

  @doc "The code that adds the fields of a signature in one of its short forms."
  @spec signature(Macro.t(), Macro.Env.t()) :: Macro.t()
  def signature([do: [{:->, _, [[inputs], outputs]}]], env), do: lists(inputs, outputs, env)
  def signature({:~>, _, [inputs, outputs]}, env), do: lists(inputs, outputs, env)

  def signature([do: _other], env) do
    error!(at(env), "signature do ... end has one line: (question: :string) -> [answer: :string]")
  end

  def signature(text, env), do: text(text, env)

  @doc "The code that adds the fields of a string signature."
  @spec text(Macro.t(), Macro.Env.t()) :: Macro.t()
  def text(text, env), do: call(quote(do: text!(unquote(text))), env)

  defp lists(inputs, outputs, env),
    do: call(quote(do: lists!(unquote(inputs), unquote(outputs))), env)

  # The module and the place go with every call.
  defp call({function, _meta, args}, env) do
    quote do
      DSPex.Signature.Compiler.unquote(function)(
        __MODULE__,
        unquote_splicing(args),
        unquote(Macro.escape(at(env)))
      )
    end
  end

  defp at(env), do: %{file: env.file, line: env.line}

  # --- in the body of the module ---

  @doc false
  def field!(module, side, name, type, options, env) do
    with {:ok, field} <- Field.new(name, type, options),
         :ok <- Field.check_default(field),
         :ok <- check_variable(side, field) do
      Module.put_attribute(module, :dspex_fields, {side, field, env})
    else
      {:error, message} -> error!(env, "#{side} #{inspect(name)}: #{message}")
    end
  end

  defp check_variable(:output, %{variable: %{}}), do: {:error, "an output cannot be a variable"}
  defp check_variable(_side, _field), do: :ok

  @doc false
  def lists!(module, inputs, outputs, env) do
    if not (Keyword.keyword?(inputs) and Keyword.keyword?(outputs)) do
      error!(env, "a signature has keyword lists: [question: :string] ~> [answer: :string]")
    end

    pairs = Enum.map(inputs, &{:input, &1}) ++ Enum.map(outputs, &{:output, &1})

    Enum.reduce(pairs, %{}, fn {side, {name, type}}, seen ->
      nth = Map.get(seen, name, 0)
      # Looked up by need: the file is read for it.
      field!(module, side, name, type, [], Map.put(env, :find, &Source.key(&1, name, nth)))
      Map.put(seen, name, nth + 1)
    end)
  end

  @doc false
  def text!(module, text, env) when is_binary(text) do
    case Signature.parse(text) do
      {:ok, signature} ->
        for {side, fields} <- [input: signature.inputs, output: signature.outputs],
            field <- fields do
          # The text stands in the source: these atoms are as many as the programmer wrote.
          name = String.to_atom(field.name)
          Module.put_attribute(module, :dspex_fields, {side, %{field | name: name}, env})
        end

      {:error, %{data: %{"position" => position}} = error} ->
        error!(Source.character(env, text, position), error.message)

      {:error, error} ->
        error!(env, error.message)
    end
  end

  def text!(_module, other, env) do
    shown = inspect(other, limit: 5, printable_limit: 60)
    error!(env, "a signature is text such as \"question -> answer: str\", not #{shown}")
  end

  # --- at its end ---

  defmacro __before_compile__(env) do
    env.module |> signature!(env, &missing/1) |> definition(env.module, {:Inputs, :Outputs})
  end

  defp missing(side), do: "a signature has at least one #{side}: #{side} :name, :string"

  @doc """
  The signature of the fields that a module has declared; `missing` says what to do about a side
  that has none.
  """
  @spec signature!(module(), Macro.Env.t(), (:input | :output -> String.t())) :: Signature.t()
  def signature!(module, env, missing) do
    fields = module |> Module.get_attribute(:dspex_fields) |> Enum.reverse()
    check_distinct!(fields)
    sides = Enum.group_by(fields, &elem(&1, 0), &elem(&1, 1))

    for side <- [:input, :output], not is_map_key(sides, side) do
      error!(at(env), missing.(side))
    end

    if Enum.all?(sides.input, & &1.variable) do
      error!(at(env), "a signature has at least one input that is no variable")
    end

    %Signature{
      name: inspect(module),
      instructions: instructions(module),
      inputs: sides.input,
      outputs: sides.output
    }
  end

  @doc "The functions of a module with this signature, and its structs of these names."
  @spec definition(Signature.t(), module(), {inputs :: atom(), outputs :: atom()}) :: Macro.t()
  def definition(signature, module, {inputs, outputs}) do
    of = inspect(module)

    quote do
      defmodule unquote(Module.concat(module, inputs)),
        do: unquote(Struct.definition(signature.inputs, of, :inputs))

      defmodule unquote(Module.concat(module, outputs)),
        do: unquote(Struct.definition(signature.outputs, of, :outputs))

      unquote(functions(signature))
    end
  end

  defp functions(signature) do
    quote do
      @doc "The signature that this module defines."
      @spec __signature__() :: DSPex.Signature.t()
      def __signature__, do: unquote(Macro.escape(signature))

      @doc "The inputs, in order."
      @spec input_fields() :: [DSPex.Signature.Field.t()]
      def input_fields, do: __signature__().inputs

      @doc "The outputs, in order."
      @spec output_fields() :: [DSPex.Signature.Field.t()]
      def output_fields, do: __signature__().outputs

      @doc """
      Inputs under atom or string keys, converted where nothing is lost, as a map with atom keys; all
      that is wrong is in the error's `data["errors"]`.
      """
      @spec validate_inputs(map() | keyword()) :: {:ok, map()} | {:error, DSPex.Error.t()}
      def validate_inputs(values), do: DSPex.Signature.validate_inputs(__signature__(), values)

      @doc "Outputs, as `validate_inputs/1` has the inputs."
      @spec validate_outputs(map() | keyword()) :: {:ok, map()} | {:error, DSPex.Error.t()}
      def validate_outputs(values), do: DSPex.Signature.validate_outputs(__signature__(), values)

      @doc "The JSON Schema: `:openai`, `:openai_chat` and `:anthropic` as a tool of theirs, or `:generic`."
      @spec to_json_schema(DSPex.Signature.JsonSchema.format()) :: map()
      def to_json_schema(format \\ :generic),
        do: DSPex.Signature.to_json_schema(__signature__(), format)

      @doc "The signature as a text for people."
      @spec describe() :: String.t()
      def describe, do: DSPex.Signature.describe(__signature__())
    end
  end

  defp check_distinct!(fields) do
    Enum.reduce(fields, %{}, fn {side, field, at}, seen ->
      case Map.fetch(seen, field.name) do
        {:ok, other} -> error!(at, twice(field.name, side, other))
        :error -> Map.put(seen, field.name, side)
      end
    end)
  end

  defp twice(name, side, side), do: "the #{side} #{inspect(name)} stands twice"

  defp twice(name, _side, _other),
    do: "#{inspect(name)} stands among the inputs and the outputs; names are distinct over both"

  defp instructions(module) do
    case Module.get_attribute(module, :moduledoc) do
      {_line, text} when is_binary(text) -> String.trim(text)
      _none -> nil
    end
  end

  @doc "Raises the error at a place of the source."
  @spec error!(map(), String.t()) :: no_return()
  def error!(%{find: find} = env, message),
    do: env |> Map.delete(:find) |> find.() |> error!(message)

  def error!(env, message) do
    raise CompileError, file: env.file, line: env.line, description: message
  end
end
