defmodule DSPex.Instance do
  @moduledoc false
  # The processes of an instance, and how they are found by its name.
  #
  #     Supervisor, named as the instance (rest for one)
  #       Journal           what a new Python has to be told
  #       Task.Supervisor   the application's functions, while Python calls them
  #       Pool              which workers there are, and how busy they are
  #       ForkServer        where Pythons are forked: the process that forks them
  #       Supervisor        (one for one)
  #         Connection      a worker: one Python
  #         ...
  #
  # A connection without its journal would forget, and without its tasks not know of them; both
  # outlive connections.

  alias DSPex.{Cluster, Connection, Deadline, Error, Journal, Pool, Retry}
  alias DSPex.Connection.{Caller, ForkServer}

  # A worker that cannot go on is started again; a pool of many may lose many at one time.
  @restarts_per_worker 3

  # What a journal takes that reads a long file, and waits for the lock of the one before.
  @journal_restart_ms 5_000
  @look_again_ms 2

  @spec start_link(atom(), DSPex.Config.t(), keyword()) :: Supervisor.on_start()
  def start_link(name, configuration, options) do
    {size, options} = Keyword.pop!(options, :pool_size)
    {journal, options} = Keyword.pop!(options, :journal)
    {cluster?, options} = Keyword.pop!(options, :cluster)
    names = names(name)

    # Never erased, which would cost every process of the node a collection: names are few, and the
    # same for an instance that is started again.
    :persistent_term.put({__MODULE__, name}, names)
    own = [server: name] ++ Map.to_list(names)

    workers =
      for worker <- 1..size do
        Supervisor.child_spec({Connection, [worker: worker] ++ own ++ options}, id: worker)
      end

    children = [
      {Journal,
       name: names.journal,
       configuration: configuration,
       journal: journal,
       cluster: if(cluster?, do: name)},
      {Task.Supervisor, name: names.tasks},
      {Pool, name: names.pool, size: size, cluster?: cluster?}
    ]

    workers = %{
      id: :workers,
      type: :supervisor,
      start:
        {Supervisor, :start_link,
         [workers, [strategy: :one_for_one, max_restarts: size * @restarts_per_worker]]}
    }

    children = children ++ fork_server(names, options) ++ [workers] ++ cluster(cluster?, name)

    case Supervisor.start_link(children,
           strategy: :rest_for_one,
           name: name
         ) do
      # The journal's file cannot be used, and the error says why.
      {:error, {:shutdown, {:failed_to_start_child, _child, %Error{} = error}}} -> {:error, error}
      other -> other
    end
  end

  defp fork_server(names, options) do
    if options[:fork],
      do: [{ForkServer, [name: names.fork_server, tasks: names.tasks] ++ options}],
      else: []
  end

  defp cluster(false, _name), do: []

  defp cluster(true, name) do
    scope = Cluster.scope(name)

    [
      %{id: :pg, start: {:pg, :start_link, [scope]}},
      {Cluster, name: name, pool: names(name).pool, journal: names(name).journal}
    ]
  end

  @typedoc "Those of `DSPex.Connection.Caller`, and `:retry`, how often a call may be made again."
  @type option :: Caller.option() | {:retry, non_neg_integer()}

  @doc """
  Makes a request; see `DSPex.Connection.Caller.request/5`. One that a worker has not sent goes to
  another where there is one; one that was sent is made again only where `:retry` says so.
  """
  @spec request(term(), String.t(), map(), timeout(), [option()]) :: Caller.result()
  def request(server, method, params, timeout, options \\ []) do
    {retries, options} = Keyword.pop(options, :retry, 0)

    with {:ok, pool} <- pool_of(server),
         {:ok, result} <-
           Retry.run(pool, retries, timeout, fn worker, timeout ->
             Caller.request(worker, method, params, timeout, options)
           end),
         do: {:ok, revised(method, result, server)}
  end

  # A Python that is new counts revisions from 1 again; the journal does not.
  defp revised("list", %{"programs" => programs} = result, server) when is_list(programs),
    do: %{result | "programs" => Enum.map(programs, &revised("describe", &1, server))}

  defp revised(method, %{"program" => id} = about, server)
       when method in ["create", "load", "describe"] and is_binary(id) do
    case program(server, id) do
      nil -> about
      program -> Map.put(about, "revision", program.revision)
    end
  end

  defp revised(_method, result, _server), do: result

  @doc "Begins a request, which may listen; see `DSPex.Connection.Caller.open/6`."
  @spec open(term(), String.t(), map(), timeout(), boolean(), [Caller.option()]) ::
          {:ok, Caller.t()} | {:error, Error.t()}
  def open(server, method, params, timeout, listens?, options) do
    with {:ok, pool} <- pool_of(server),
         {:ok, worker} <- Retry.route(pool, []),
         do: Caller.open(worker, method, params, timeout, listens?, options)
  end

  @doc "The workers there are."
  @spec workers(term()) :: {:ok, [Pool.worker()]} | {:error, Error.t()}
  def workers(server) do
    with {:ok, pool} <- pool_of(server), do: {:ok, Pool.workers(pool)}
  end

  @doc "Replaces the Python of every worker, one after the other."
  @spec restart(term(), timeout()) :: :ok | {:error, Error.t()}
  def restart(server, drain_timeout) do
    with {:ok, workers} <- workers(server) do
      # What is forked by one that is there already would be no newer than that.
      ForkServer.renew(names(server).fork_server)

      with :ok <- replace(workers, drain_timeout),
           do: ForkServer.close_old(names(server).fork_server)
    end
  end

  defp replace([], _drain_timeout), do: :ok

  defp replace([%{pid: pid} | others], drain_timeout) do
    with :ok <- Connection.replace(pid, drain_timeout), do: replace(others, drain_timeout)
  end

  @doc """
  Writes down what no answer of the bridge confirms by itself: functions for a program's tools, or that
  it is gone.
  """
  @spec record(atom(), DSPex.Adapter.entry()) :: :ok | {:error, Error.t()}
  def record(server, entry) do
    with {:ok, pool} <- pool_of(server),
         {:ok, _before, _version} <- Journal.record(names(server).journal, entry) do
      Pool.tell(pool, :journal_changed)
      :ok
    end
  end

  @doc "A program as the instance's journal knows it, `nil` where it does not."
  @spec program(term(), String.t()) :: Journal.Program.t() | nil
  def program(server, id), do: in_journal(server, &Journal.program(&1, id))

  defp in_journal(server, read) do
    if is_atom(server), do: in_journal(server, read, Deadline.from_now(@journal_restart_ms))
  end

  defp in_journal(server, read, deadline) do
    read.(names(server).journal)
  rescue
    # There is no table: no instance, or one whose journal is just being started again.
    ArgumentError ->
      if Process.whereis(server) != nil and not Deadline.passed?(deadline) do
        Deadline.pause(deadline, @look_again_ms)
        in_journal(server, read, deadline)
      end
  end

  @doc "The tools of a program as the instance's journal knows them."
  @spec tools(term(), String.t()) :: [DSPex.Tool.t()]
  def tools(server, id) do
    case program(server, id) do
      nil -> []
      program -> Map.values(program.tools)
    end
  end

  @doc "The tools of a program that a restart has left without their functions; see `DSPex.Adapter`."
  @spec lost_tools(term(), String.t()) :: Journal.Program.lost_tools()
  def lost_tools(server, id), do: in_journal(server, &Journal.lost_tools(&1, id)) || %{}

  @doc "The revision of a program that is made of a state, `nil` of one that is not."
  @spec state_revision(term(), String.t()) :: pos_integer() | nil
  def state_revision(server, id) do
    with %Journal.Program{} = program <- program(server, id),
         do: if(Journal.Program.of_state?(program), do: program.revision)
  end

  @doc "The signature of a program as the instance's journal knows it, `nil` where it does not."
  @spec signature(term(), String.t()) :: DSPex.Signature.t() | nil
  def signature(server, id) do
    with %Journal.Program{signature: signature} <- program(server, id), do: signature
  end

  defp pool_of(server) when is_atom(server) and server not in [nil, true, false] do
    case Pool.fetch(names(server).pool) do
      nil ->
        {:error, if(Process.whereis(server), do: Pool.no_worker(), else: not_started(server))}

      pool ->
        {:ok, pool}
    end
  end

  defp pool_of(_other) do
    text = "the first argument is the name of a DSPex instance, an atom"
    {:error, Error.new(:invalid_params, text)}
  end

  defp not_started(server) do
    text =
      "no DSPex instance named #{inspect(server)} is running; " <>
        "add {DSPex, name: #{inspect(server)}} to the children of a supervisor"

    Error.new(:not_started, text)
  end

  # Asked with every call, and always the same: making atoms costs more than all else that finds a
  # worker.
  defp names(name) do
    with nil <- :persistent_term.get({__MODULE__, name}, nil) do
      %{
        journal: Module.concat(name, "Journal"),
        fork_server: Module.concat(name, "ForkServer"),
        tasks: Module.concat(name, "Tasks"),
        pool: Module.concat(name, "Pool")
      }
    end
  end
end
