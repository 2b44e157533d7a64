defmodule DSPex.Program do
  @moduledoc """
  Programs: those that are modules, and what stands for one that an instance has.

  A program that is a module has its inputs and outputs, and how it is run, in one place:

      defmodule QABot do
        @moduledoc "Answer in one sentence."
        use DSPex.Program, module: :chain_of_thought, server: MyApp.DSPex

        defschema InputSchema do
          field :question, :string, required: true
          field :context, :string
          field :temperature, :probability, default: 0.7, variable: true
        end

        defschema OutputSchema do
          field :answer, :string
        end
      end

      {:ok, prediction} = QABot.predict(%{question: "Why is the sky blue?"})
      prediction[:answer]
      QABot.predict(%{question: "Why?"}, timeout: 10_000)

  The types and options of a field are those of `DSPex.Signature`. An input without a default may be
  left out unless it is `required: true`; an output may not, unless it is `required: false`.

  What is `variable: true` is a parameter of the program rather than a part of the prompt: here the
  LM's temperature, which is 0.7 until a call gives another one or an optimizer finds a better one.

  The module is a signature, too, with all functions of one; its structs are `QABot.InputSchema` and
  `QABot.OutputSchema`. `predict/1` may be overridden, and the generated one called with `super`:

      @impl true
      def predict(inputs) do
        with {:ok, prediction} <- super(inputs), do: {:ok, prediction[:answer]}
      end

  `DSPex.execute/3`, `DSPex.create/3` and the others take the module where they take a program. It is
  made when it is first needed, under its name as the id. A state of it, such as that of an optimized
  one, stands in for it where it is loaded so:

      {:ok, optimization} = DSPex.optimize(QABot, trainset)
      {:ok, _} = DSPex.load(MyApp.DSPex, optimization.state, program: QABot, replace: true)

  It is of this definition: where the signature is another later, be it by a word of the `@moduledoc`, the
  program is made anew of that, and a warning says that the state is no longer used.

  ## Options

    * `:server` - the name of the instance that runs it. Default: `DSPex`.
    * `:program` - the id of the program. Default: the name of the module.
    * all options of `DSPex.create/3`, but for `:replace` and `:timeout`: `:module`, `:options`, `:lm`,
      `:adapter`, `:config`, `:instructions`, `:demos`, `:tools`…

  ## The struct

  `DSPex.create/3` and `DSPex.load/3` give what stands for a program:

    * `:id` - its name in the bridge; wherever a program is asked for, the id alone will do.
    * `:module` - what runs it, such as `"predict"`.
    * `:signature` - a `DSPex.Signature`.
    * `:revision` - 1, and more with every replacement under the same id in one Python.
    * `:input_schema`, `:output_schema` - JSON Schemas of its inputs and outputs.
  """

  alias DSPex.Program.Compiler
  alias DSPex.{Signature, Tool}

  @type t :: %__MODULE__{
          id: String.t(),
          module: String.t(),
          signature: Signature.t(),
          revision: pos_integer(),
          input_schema: map(),
          output_schema: map()
        }

  @typedoc """
  What `__program__/0` of a module says: how it is made, and what an optimizer may vary, as the wire
  has it.
  """
  @type definition :: %{
          server: atom(),
          program: String.t(),
          signature: Signature.t(),
          options: keyword(),
          variables: %{optional(String.t()) => map()}
        }

  @doc "Runs the program; the generated one gives what `DSPex.execute/4` does."
  @callback predict(inputs :: map() | keyword()) :: term()

  @enforce_keys [:id, :module, :signature, :revision, :input_schema, :output_schema]
  defstruct @enforce_keys

  @doc false
  defmacro __using__(options) do
    Compiler.check_options!(options, __CALLER__)

    quote do
      @behaviour DSPex.Program
      @before_compile DSPex.Program.Compiler
      import DSPex.Program, only: [defschema: 2]
      Module.register_attribute(__MODULE__, :dspex_fields, accumulate: true)

      # At run time, because tools are functions.
      @doc false
      def __program__, do: DSPex.Program.define(__MODULE__, unquote(options))

      @doc "Runs the program."
      @impl DSPex.Program
      def predict(inputs), do: DSPex.execute(__MODULE__, inputs)

      @doc "Runs the program, with the options of `DSPex.execute/4`, such as `timeout:`."
      @spec predict(map() | keyword(), keyword()) ::
              {:ok, DSPex.Prediction.t()} | {:error, DSPex.Error.t()}
      def predict(inputs, options), do: DSPex.execute(__MODULE__, inputs, options)

      defoverridable predict: 1, predict: 2
    end
  end

  @doc """
  Declares the inputs or the outputs: `defschema InputSchema do ... end` and `defschema OutputSchema
  do ... end`, with a line `field name, type, options` for each.
  """
  defmacro defschema(name, do: block), do: Compiler.schema(name, block, __CALLER__)

  @doc false
  defmacro field(name, type, options \\ []),
    do: Compiler.field(name, type, options, __CALLER__)

  @doc false
  @spec define(module(), keyword()) :: definition()
  def define(module, options) do
    {own, options} = Keyword.split(options, [:server, :program])
    signature = module.__signature__()

    %{
      server: Keyword.get(own, :server, DSPex),
      program: own |> Keyword.get(:program, inspect(module)) |> to_string(),
      signature: signature,
      options: with_defaults(options, signature),
      variables: Signature.variables(signature)
    }
  end

  # A parameter of the LM has its default from the start.
  defp with_defaults(options, signature) do
    defaults =
      for field <- signature.inputs, field.variable, into: %{}, do: {field.name, default(field)}

    case Signature.split_variables(signature, defaults) do
      {_others, none} when none == %{} -> options
      {_others, config} -> Keyword.update(options, :config, config, &merge_config(config, &1))
    end
  end

  defp default(%{default: {:value, value}}), do: value

  @doc false
  @spec merge_config(map(), map() | keyword()) :: map()
  def merge_config(config, over),
    do: Map.merge(config, Map.new(over, fn {name, value} -> {to_string(name), value} end))

  @doc "What a module that uses `DSPex.Program` says of itself; `nil` for anything else."
  @spec definition(term()) :: definition() | nil
  def definition(module) do
    if is_atom(module) and Signature.Struct.exports?(module, :__program__),
      do: module.__program__()
  end

  @doc false
  # The tools that a module declares. They know whose they are: what is restored of a journal takes
  # them from there.
  @spec tools(definition()) :: {:ok, [Tool.t()]} | {:error, String.t()}
  def tools(definition) do
    with {:ok, tools} <- Tool.list(Keyword.get(definition.options, :tools, [])),
         do: {:ok, Enum.map(tools, &%{&1 | module: definition.signature.name})}
  end

  defimpl Inspect do
    def inspect(program, _opts),
      do: "#DSPex.Program<#{inspect(program.id)}, #{program.module}, #{program.signature}>"
  end
end
