defmodule DSPex.Tool do
  @moduledoc """
  A function of the application's own that a program may call: what `:react` chooses from.

      iex> search = DSPex.Tool.new(:search, "Searches the manual.",
      ...>   [query: :string, limit: {:integer, default: 3, description: "how many pages"}],
      ...>   fn %{query: query, limit: limit} -> ["page 1 of " <> query] |> Enum.take(limit) end)
      iex> {search.name, Enum.map(search.parameters, & &1.name)}
      {"search", [:query, :limit]}

  It is given to `DSPex.create/3`, or to `DSPex.load/3` for a state that has tools:

      DSPex.create(MyApp.DSPex, "question -> answer", module: :react, tools: [search])

  After a restart with a journal in a file, `DSPex.put_tools/3` gives it again, but for a program that is a
  module and declares its tools. In all of these a map with the keys `:name`, `:description`, `:parameters` and `:run` will do as well.

  ## The function

  It runs in a process of its own under the instance, beside others, and takes the arguments as a map
  or, with two parameters, the arguments and a context:

    * `:server` - the name of the instance, for calls of its own: they nest.
    * `:program` - the id of the program that called it.
    * `:request` - the id of the execution that it belongs to.
    * `:tool` - its name.
    * `:meta` - the execution's own map, empty where it has none.

  Arguments are checked and converted to their types before it is called: what is declared under an
  atom is found under that atom, and nothing else ever becomes one.

  What it returns is what the program observes: any value with a form on the wire, or `{:ok, value}`.
  `{:error, reason}` and an exception are a failure, which the program observes too and goes on; of an
  exception it sees the message alone, the rest is logged. The process is killed where the program no
  longer waits for it: the execution is cancelled, or Python ends.

  ## Parameters

  A keyword list of `name: type` or `name: {type, options}`, with the types and options of
  `DSPex.Signature`; or a map, the JSON Schema of an object, whose arguments come under strings.
  """

  alias DSPex.{Error, Options}
  alias DSPex.Signature.{Field, TypeConverter}

  @type arguments :: %{optional(atom() | String.t()) => term()}

  @type context :: %{
          server: atom(),
          program: String.t(),
          request: non_neg_integer(),
          tool: String.t(),
          meta: map()
        }

  @type run :: (arguments() -> term()) | (arguments(), context() -> term())

  @type t :: %__MODULE__{
          name: String.t(),
          description: String.t(),
          parameters: [Field.t()] | map(),
          run: run(),
          module: String.t() | nil
        }

  @keys [:name, :description, :parameters, :run]

  @enforce_keys @keys
  # The program that is a module and declares it, which has it again after a restart.
  defstruct @keys ++ [:module]

  # Types that have types in them: what follows is no list of options.
  @composite [:tuple, :union, :one_of]

  @doc "Makes a tool. Raises `ArgumentError` where it cannot be one."
  @spec new(atom() | String.t(), String.t(), keyword() | map(), run()) :: t()
  def new(name, description, parameters, run) do
    case build(name, description, parameters, run) do
      {:ok, tool} -> tool
      {:error, message} -> raise ArgumentError, message
    end
  end

  @doc false
  @spec fetch(term()) :: {:ok, t()} | {:error, String.t()}
  def fetch(%__MODULE__{} = tool), do: {:ok, tool}

  def fetch(map) when is_map(map) and not is_struct(map) do
    case Map.keys(map) -- @keys do
      [] ->
        build(map[:name], map[:description], Map.get(map, :parameters, []), map[:run])

      [unknown | _] ->
        {:error,
         "a tool has the keys #{inspect(@keys)}, not " <>
           inspect(unknown, limit: 5, printable_limit: 60) <> Options.did_you_mean(unknown, @keys)}
    end
  end

  def fetch(_other), do: {:error, "expected a DSPex.Tool, or a map of #{inspect(@keys)}"}

  @doc false
  @spec list(term()) :: {:ok, [t()]} | {:error, String.t()}
  def list(tools) when is_list(tools) do
    with {:ok, tools} <- collect(tools, &fetch/1) do
      names = Enum.map(tools, & &1.name)

      case names -- Enum.uniq(names) do
        [] -> {:ok, tools}
        [name | _] -> {:error, "two tools are named #{inspect(name)}"}
      end
    end
  end

  def list(_other), do: {:error, "expected a list of tools"}

  @doc false
  # Whether a program that has tools of these names, `nil` where there is no such program, may be given
  # these.
  @spec check_known([t()], program :: String.t(), [String.t()] | nil) :: :ok | {:error, Error.t()}
  def check_known(_tools, program, nil) do
    data = %{"kind" => "program", "name" => program}
    {:error, Error.new(:not_found, "there is no program #{program}", data: data)}
  end

  def check_known(tools, program, known) do
    case Enum.map(tools, & &1.name) -- known do
      [] ->
        :ok

      [name | _] ->
        own = if known == [], do: "it has none", else: "its tools are #{Enum.join(known, ", ")}"
        {:error, Error.new(:invalid_params, "the program #{program} has no tool #{name}: #{own}")}
    end
  end

  defp build(name, description, parameters, run) do
    with {:ok, name} <- check_name(name),
         :ok <- check(is_binary(description), name, "its description is a string"),
         :ok <- check(is_function(run, 1) or is_function(run, 2), name, run_text()),
         {:ok, parameters} <- fields(name, parameters) do
      {:ok, %__MODULE__{name: name, description: description, parameters: parameters, run: run}}
    end
  end

  defp run_text, do: "its function takes the arguments, or the arguments and a context"

  defp check(true, _name, _text), do: :ok
  defp check(false, name, text), do: {:error, "the tool #{name}: #{text}"}

  defp check_name(name) when (is_atom(name) and name != nil) or is_binary(name) do
    text = to_string(name)

    cond do
      not Regex.match?(~r/\A[A-Za-z_][A-Za-z0-9_]*\z/, text) ->
        {:error, "a tool's name has ASCII letters, digits and _, not #{inspect(text)}"}

      text == "finish" ->
        {:error, "no tool is named finish: DSPy's ReAct has one of its own"}

      true ->
        {:ok, text}
    end
  end

  defp check_name(_other), do: {:error, "a tool has a name: an atom or a string"}

  defp fields(_name, schema) when is_map(schema) and not is_struct(schema), do: {:ok, schema}

  defp fields(name, parameters) do
    if Keyword.keyword?(parameters),
      do: collect(parameters, &field(name, &1)),
      else: {:error, "the tool #{name}: its parameters are a keyword list, or a JSON Schema map"}
  end

  defp field(tool, {name, spec}) do
    {type, options} = type_and_options(spec)

    with {:error, message} <- Field.new(name, type, options),
         do: {:error, "the tool #{tool}: parameter #{inspect(name)}: #{message}"}
  end

  defp type_and_options({type, options} = spec) do
    if type not in @composite and Keyword.keyword?(options),
      do: {type, options},
      else: {spec, []}
  end

  defp type_and_options(type), do: {type, []}

  @doc false
  @spec to_wire(t()) :: map()
  def to_wire(%__MODULE__{} = tool) do
    parameters =
      if is_list(tool.parameters),
        do: Enum.map(tool.parameters, &Field.to_wire/1),
        else: tool.parameters

    %{"name" => tool.name, "description" => tool.description, "parameters" => parameters}
  end

  @doc false
  @spec load_args(t(), map()) :: {:ok, arguments()} | {:error, Error.t()}
  def load_args(%__MODULE__{parameters: schema}, args) when is_map(schema), do: {:ok, args}

  def load_args(%__MODULE__{} = tool, args) do
    fields = Map.new(tool.parameters, &{to_string(&1.name), &1})

    Enum.reduce_while(args, {:ok, %{}}, fn {text, value}, {:ok, loaded} ->
      with {:ok, field} <- Map.fetch(fields, text),
           {:ok, value} <- TypeConverter.load(field.type, value) do
        {:cont, {:ok, Map.put(loaded, field.name, value)}}
      else
        # The bridge knows no others; one of a later version stays as it is.
        :error -> {:cont, {:ok, Map.put(loaded, text, value)}}
        {:error, path, expected} -> {:halt, misfit([text | path], expected)}
      end
    end)
  end

  defp misfit(path, expected) do
    text = "args.#{Enum.join(path, ".")}: expected #{expected}"
    {:error, Error.new(:invalid_params, text, data: %{"param" => Enum.join(path, ".")})}
  end

  @doc false
  @spec call(t(), arguments(), context()) :: term()
  def call(%__MODULE__{run: run}, args, _context) when is_function(run, 1), do: run.(args)
  def call(%__MODULE__{run: run}, args, context), do: run.(args, context)

  defp collect(items, fun) do
    Enum.reduce_while(items, {:ok, []}, fn item, {:ok, done} ->
      case fun.(item) do
        {:ok, made} -> {:cont, {:ok, [made | done]}}
        {:error, message} -> {:halt, {:error, message}}
      end
    end)
    |> case do
      {:ok, done} -> {:ok, Enum.reverse(done)}
      error -> error
    end
  end

  defimpl Inspect do
    # What a function has closed over is its own affair.
    def inspect(tool, _opts), do: "#DSPex.Tool<#{tool.name}>"
  end
end
