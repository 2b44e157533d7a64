defmodule DSPex.Journal do
  @moduledoc false
  # What a new Python has to be told to be like the one before: the configuration, and the request
  # that made each program, without its deadline. Beside that what Elixir alone knows of a program:
  # its signature and its tools. It outlives connections, and lives in memory only. What is secret is
  # in functions, which nothing shows.

  use GenServer

  alias DSPex.{Config, Signature, Tool}
  alias DSPex.Protocol.Message

  @type body :: (... -> binary())

  @type entry ::
          {:configure, Config.t()}
          | {:put, program :: String.t(), body(), Signature.t() | nil, [Tool.t()]}
          | {:derived, program :: String.t(), Signature.t() | nil, [Tool.t()]}
          | {:delete, program :: String.t()}

  @spec start_link(name: atom(), configuration: Config.t()) :: GenServer.on_start()
  def start_link(options) do
    GenServer.start_link(__MODULE__, options)
  end

  @doc "An entry with what only the answer to its request tells: the state that an optimizer found."
  @spec entry(entry(), term()) :: {:ok, entry()} | {:error, DSPex.Error.t()}
  def entry({:derived, program, signature, tools}, %{"state" => state}) do
    with {:ok, body} <- Message.body("load", %{program: program, state: state, replace: true}),
         do: {:ok, {:put, program, fn -> body end, signature, tools}}
  end

  def entry(entry, _result), do: {:ok, entry}

  @doc "Writes down what the bridge has confirmed."
  @spec record(atom(), entry()) :: :ok
  def record(journal, {:configure, params}) do
    :ets.insert(journal, {:configuration, Config.merge(configuration(journal), params)})
    :ok
  end

  def record(journal, {:put, program, body, signature, tools}) do
    tools = Map.new(tools, &{&1.name, &1})
    :ets.insert(journal, {{:program, program}, body, signature, tools})
    :ok
  end

  def record(journal, {:delete, program}) do
    :ets.delete(journal, {:program, program})
    :ok
  end

  @spec configuration(atom()) :: Config.t()
  def configuration(journal), do: :ets.lookup_element(journal, :configuration, 2)

  @doc "The requests that make every program again."
  @spec programs(atom()) :: [{String.t(), body()}]
  def programs(journal) do
    :ets.select(journal, [{{{:program, :"$1"}, :"$2", :_, :_}, [], [{{:"$1", :"$2"}}]}])
  end

  @doc "The tools of a program."
  @spec tools(atom(), String.t()) :: [Tool.t()]
  def tools(journal, program) do
    case :ets.lookup(journal, {:program, program}) do
      [{_key, _body, _signature, tools}] -> Map.values(tools)
      [] -> []
    end
  end

  @doc "The signature of a program as Elixir knows it, `nil` where it does not."
  @spec signature(atom(), String.t()) :: Signature.t() | nil
  def signature(journal, program) do
    case :ets.lookup(journal, {:program, program}) do
      [{_key, _body, signature, _tools}] -> signature
      [] -> nil
    end
  end

  @doc "A tool of a program, `nil` where there is none of that name."
  @spec tool(atom(), term(), term()) :: Tool.t() | nil
  def tool(journal, program, name) do
    case :ets.lookup(journal, {:program, program}) do
      [{_key, _body, _signature, tools}] -> tools[name]
      [] -> nil
    end
  end

  @impl true
  def init(options) do
    configuration = Keyword.fetch!(options, :configuration)

    # Public: a connection writes to it as it hands an answer on, so that no answer is known before
    # it is written down.
    table =
      :ets.new(Keyword.fetch!(options, :name), [:named_table, :public, read_concurrency: true])

    :ets.insert(table, {:configuration, configuration})
    {:ok, table}
  end
end
