defmodule DSPex.Journal do
  @moduledoc false
  # What a new Python has to be told to be like the one before: the configuration, and the request
  # that made each program, without its deadline. Beside that what Elixir alone knows of a program:
  # its signature, its tools and how often it was replaced. It outlives connections, and lives in
  # memory, or in a file too (see `DSPex.Journal.File`). What is secret is in functions, which
  # nothing shows, and in no file.
  #
  # Everybody reads the table; one process writes it, so that versions are in one order. A version
  # tells a worker whether what it was told is still so.

  use GenServer

  require Logger

  alias DSPex.{Cluster, Config, Error, Fallbacks, Signature, Tool}
  alias DSPex.Journal.{File, Program}
  alias DSPex.Protocol.Message

  @type body :: (... -> binary())
  @type version :: pos_integer()

  @type entry ::
          {:configure, Config.t()}
          | {:put, program :: String.t(), body(), Signature.t() | nil, [Tool.t()]}
          | {:add, program :: String.t(), body(), Signature.t() | nil, [Tool.t()]}
          | {:derived, program :: String.t(), Signature.t() | nil, [Tool.t()]}
          | {:tools, program :: String.t(), [Tool.t()]}
          | {:delete, program :: String.t()}

  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  @doc "An entry with what only the answer to its request tells: the state that an optimizer found."
  @spec entry(entry(), term()) :: {:ok, entry()} | {:error, Error.t()}
  def entry({:derived, program, signature, tools}, %{"state" => state}) do
    with {:ok, body} <- Message.body("load", %{program: program, state: state, replace: true}),
         do: {:ok, {:put, program, fn -> body end, signature, tools}}
  end

  def entry(entry, _result), do: {:ok, entry}

  @doc """
  Writes down what the bridge has confirmed. `{:add, ...}` is refused where another worker has made a
  program of that id meanwhile, and a configuration where fallbacks would lead back by what another has
  taken meanwhile; `{:tools, ...}` gives a program functions for its tools. Gives the version that it replaced, and its own.
  """
  @spec record(atom(), entry()) ::
          {:ok, before :: version() | nil, version()} | {:error, Error.t()}
  def record(journal, entry) do
    with {:ok, before, version, spread} <-
           GenServer.call(pid(journal), {:record, entry}, :infinity) do
      # Here, and not in the journal's process: two that tell each other would wait for each other.
      if spread, do: Cluster.spread(spread.cluster, [spread.change])
      {:ok, before, version}
    end
  end

  @typedoc "What a part of the journal is since a moment: those of several nodes are in one order."
  @type stamped :: {part :: term(), {clock :: pos_integer(), node()}, value :: term()}

  @doc "All that was changed, for a node that is new."
  @spec everything(atom()) :: [stamped()]
  def everything(journal) do
    for {{:stamp, part}, stamp} <- :ets.match_object(journal, {{:stamp, :_}, :_}),
        do: {part, stamp, value(journal, part)}
  end

  defp value(journal, :configuration), do: journal |> configuration() |> elem(0)
  defp value(journal, {:program, id}), do: program(journal, id)

  @doc "Takes what other nodes have changed, but for what has been changed later here."
  @spec take(atom(), [stamped()]) :: :ok
  def take(journal, changes), do: GenServer.call(pid(journal), {:take, changes}, :infinity)

  @doc "The number of changes so far."
  @spec generation(atom()) :: non_neg_integer()
  def generation(journal), do: :ets.lookup_element(journal, :generation, 2)

  @doc "The configuration and its version."
  @spec configuration(atom()) :: {Config.t(), version()}
  def configuration(journal) do
    [{:configuration, configuration, version}] = :ets.lookup(journal, :configuration)
    {configuration, version}
  end

  @doc "The ids of all programs."
  @spec programs(atom()) :: [String.t()]
  def programs(journal),
    do: :ets.select(journal, [{{{:program, :"$1"}, :_, :_, :_}, [], [:"$1"]}])

  @doc "The version of a program, `nil` where there is none."
  @spec version(atom(), String.t()) :: version() | nil
  def version(journal, program) do
    # Without copying the program itself.
    :ets.lookup_element(journal, {:program, program}, 2)
  rescue
    ArgumentError -> nil
  end

  @doc "A program as the journal knows it."
  @spec program(atom(), term()) :: Program.t() | nil
  def program(journal, program) do
    case :ets.lookup(journal, {:program, program}) do
      [{_key, _version, program, _lost_tools}] -> program
      [] -> nil
    end
  end

  @doc "The tools of a program that it has no functions for."
  @spec lost_tools(atom(), String.t()) :: Program.lost_tools()
  def lost_tools(journal, program) do
    # Asked with every call: without copying the program itself.
    if :ets.member(journal, {:program, program}),
      do: :ets.lookup_element(journal, {:program, program}, 4),
      else: %{}
  end

  defp pid(journal), do: :ets.lookup_element(journal, :owner, 2)

  @impl true
  def init(options) do
    table = Keyword.fetch!(options, :name)
    configuration = Keyword.fetch!(options, :configuration)

    with {:ok, file, past} <- open(Keyword.get(options, :journal, :memory), configuration) do
      # Under its own name when all is in it: who reads it finds all or no table.
      unready = Module.concat(table, "Unready")
      # Protected: all changes go through this process.
      :ets.new(unready, [:named_table, :protected, read_concurrency: true])
      configuration = Config.merge(past.configuration, configuration)
      cluster = Keyword.get(options, :cluster)

      :ets.insert(unready, [
        {:owner, self()},
        {:generation, 1},
        {:configuration, configuration, 1}
      ])

      :ets.insert(unready, [{:cluster, cluster}, {:clock, 0}])
      Enum.each(past.programs, fn {id, program} -> write(unready, {:program, id, program}) end)
      {:ok, {:ets.rename(unready, table), file}}
    else
      {:error, error} -> {:stop, error}
    end
  end

  defp open(:memory, _configuration), do: {:ok, nil, %{configuration: %{}, programs: %{}}}
  defp open({:file, path}, configuration), do: File.open(path, configuration)

  @impl true
  def handle_call({:record, entry}, _from, {table, file}) do
    case change(table, entry) do
      {:error, error} ->
        {:reply, {:error, error}, {table, file}}

      # No change that a file, Python or another node has to know of.
      {:restored, id, program} ->
        version = version(table, id)
        put(table, id, version, program)
        {:reply, {:ok, version, version, nil}, {table, file}}

      change ->
        case keep(file, change) do
          {:ok, file} ->
            {before, version} = write(table, change)
            spread = stamp(table, change, :ets.lookup_element(table, :cluster, 2))
            {:reply, {:ok, before, version, spread}, {table, file}}

          {:error, error, file} ->
            {:reply, {:error, error}, {table, file}}
        end
    end
  end

  def handle_call({:take, changes}, _from, {table, file}) do
    file =
      for {part, stamp, value} <- changes, later?(table, part, stamp), reduce: file do
        file ->
          change = taken(table, part, value)
          write(table, change)
          put_stamp(table, part, stamp)
          # What cannot be written here is on the disk where it was made.
          file |> keep(change) |> Tuple.to_list() |> List.last()
      end

    {:reply, :ok, {table, file}}
  end

  # Both have been confirmed, each on its node.
  defp taken(table, :configuration, later) do
    {earlier, _version} = configuration(table)
    {later, cut} = Fallbacks.reconcile(earlier, later)

    if cut != [] do
      Logger.warning(
        "DSPex: the LMs #{Enum.join(cut, ", ")} are without their fallbacks, which would lead back by " <>
          "what another node has configured: give them with DSPex.configure/2"
      )
    end

    {:configure, later}
  end

  defp taken(_table, {:program, id}, nil), do: {:delete, id}
  defp taken(_table, {:program, id}, program), do: {:program, id, program}

  defp later?(table, part, stamp) do
    case :ets.lookup(table, {:stamp, part}) do
      [{_key, known}] -> stamp > known
      [] -> true
    end
  end

  defp stamp(_table, _change, nil), do: nil

  defp stamp(table, change, cluster) do
    part = part(change)
    stamp = {:ets.lookup_element(table, :clock, 2) + 1, node()}
    put_stamp(table, part, stamp)
    %{cluster: cluster, change: {part, stamp, value(table, part)}}
  end

  defp put_stamp(table, part, {clock, _node} = stamp) do
    now = max(clock, :ets.lookup_element(table, :clock, 2))
    :ets.insert(table, [{{:stamp, part}, stamp}, {:clock, now}])
  end

  defp part({:configure, _params}), do: :configuration
  defp part({:program, id, _program}), do: {:program, id}
  defp part({:delete, id}), do: {:program, id}

  defp keep(nil, _change), do: {:ok, nil}
  defp keep(file, change), do: File.append(file, change)

  defp change(table, {:configure, params}) do
    {configuration, _version} = configuration(table)
    with {:ok, _merged} <- Fallbacks.merge(configuration, params), do: {:configure, params}
  end

  defp change(_table, {:delete, program}), do: {:delete, program}

  defp change(table, {:tools, id, tools}) do
    program = program(table, id)

    with :ok <- Tool.check_known(tools, id, program && Map.keys(Program.tools_of(program))) do
      if Program.restored_by?(program, tools),
        do: {:restored, id, Program.with_tools(program, tools)},
        else: {:program, id, Program.with_tools(program, tools)}
    end
  end

  defp change(table, {kind, id, body, signature, tools}) when kind in [:put, :add] do
    case {kind, program(table, id)} do
      {:add, %Program{}} ->
        {:error, Error.new(:already_exists, "there is a program #{id} already")}

      {_kind, before} ->
        revision = if before, do: before.revision + 1, else: 1
        tools = Map.new(tools, &{&1.name, &1})
        program = %Program{body: body, signature: signature, tools: tools, revision: revision}
        {:program, id, program}
    end
  end

  defp write(table, change) do
    version = generation(table) + 1
    before = write(table, change, version)
    # Last: who sees the number sees the change.
    :ets.insert(table, {:generation, version})
    {before, version}
  end

  defp write(table, {:configure, params}, version) do
    {configuration, before} = configuration(table)
    :ets.insert(table, {:configuration, Config.merge(configuration, params), version})
    before
  end

  defp write(table, {:program, id, program}, version) do
    before = version(table, id)
    put(table, id, version, program)
    before
  end

  defp write(table, {:delete, id}, _version) do
    before = version(table, id)
    :ets.delete(table, {:program, id})
    before
  end

  defp put(table, id, version, program),
    do: :ets.insert(table, {{:program, id}, version, program, program.lost_tools})
end
