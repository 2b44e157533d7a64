defmodule DSPex.Pool do
  @moduledoc false
  # The workers of an instance: who they are, how they are and how much each has to do. All of it is
  # in a table and an array of atomics that callers read and count in themselves, so that no process
  # stands between a caller and its worker. This process only owns the table.

  use GenServer

  alias DSPex.Error

  @typedoc "How a worker is, the worst first: calls go to the best there is."
  @type status :: :down | :draining | :starting | :suspect | :ready

  @statuses {:down, :draining, :starting, :suspect, :ready}

  @enforce_keys [:table, :size, :atomics, :cluster?]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          table: atom(),
          size: pos_integer(),
          atomics: :atomics.atomics_ref(),
          cluster?: boolean()
        }

  @type worker :: %{
          worker: pos_integer(),
          pid: pid(),
          os_pid: pos_integer() | nil,
          node: node(),
          status: status(),
          in_flight: non_neg_integer()
        }

  @spec start_link(name: atom(), size: pos_integer()) :: GenServer.on_start()
  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  @doc "The pool that has this table; `nil` where there is none."
  @spec fetch(atom()) :: t() | nil
  def fetch(table) do
    :ets.lookup_element(table, :pool, 2)
  rescue
    ArgumentError -> nil
  end

  @typedoc "A worker that was chosen for a call."
  @type choice :: {pid(), t(), pos_integer() | :remote}

  @doc "The least loaded of the best workers, but for those in `except`; `nil` where there is none."
  @spec choose(t(), [pid()]) :: choice() | nil
  def choose(pool, except \\ [])

  # Of one there is no choice.
  def choose(%{size: 1, cluster?: false} = pool, []) do
    with pid when is_pid(pid) <- pid(pool, 1), do: {pid, pool, 1}
  end

  def choose(pool, except) do
    excluded = if except == [], do: [], else: numbers(pool, except)

    with worker when is_integer(worker) <- best(pool, pool.size, excluded, nil, nil),
         pid when is_pid(pid) <- pid(pool, worker) do
      if pool.cluster?,
        do: best_of([{rank(pool, worker), pid, worker} | remote(pool, except)], pool),
        else: {pid, pool, worker}
    else
      nil -> if pool.cluster?, do: best_of(remote(pool, except), pool)
    end
  end

  defp numbers(pool, except), do: for({pid, worker} <- pids(pool), pid in except, do: worker)

  # The nearer one of equals: it comes first.
  defp best_of([], _pool), do: nil

  defp best_of(workers, pool) do
    {_rank, pid, worker} = Enum.min_by(workers, &elem(&1, 0))
    {pid, pool, worker}
  end

  defp remote(pool, except) do
    for {{:remote, pid}, _node, status, load} <-
          :ets.match_object(pool.table, {{:remote, :_}, :_, :_, :_}),
        pid not in except,
        do: {{-status, load}, pid, :remote}
  end

  defp rank(pool, worker), do: {-status_number(pool, worker), :atomics.get(pool.atomics, worker)}

  @doc "What another node tells of its workers."
  @spec put_remote(t(), node(), [worker()]) :: :ok
  def put_remote(pool, node, workers) do
    drop_remote(pool, node, Enum.map(workers, & &1.pid))

    for worker <- workers do
      :ets.insert(
        pool.table,
        {{:remote, worker.pid}, node, number(worker.status), worker.in_flight}
      )
    end

    :ok
  end

  @doc "A node is gone, and its workers but for `kept`."
  @spec drop_remote(t(), node(), [pid()]) :: :ok
  def drop_remote(pool, node, kept \\ []) do
    for {{:remote, pid}, _node, _status, _load} <-
          :ets.match_object(pool.table, {{:remote, :_}, node, :_, :_}),
        pid not in kept,
        do: :ets.delete(pool.table, {:remote, pid})

    :ok
  end

  @doc "Counts a call for the worker that it is now handed to; the worker takes it off again."
  @spec count(choice()) :: :ok
  def count({pid, pool, :remote}) do
    # Until its node tells.
    :ets.update_counter(pool.table, {:remote, pid}, {4, 1}, {{:remote, pid}, node(pid), 0, 0})
    :ok
  end

  def count({_pid, pool, worker}), do: :atomics.add(pool.atomics, worker, 1)

  # The best has the highest status, and among those the smallest load.
  defp best(_pool, 0, _excluded, worker, _rank), do: worker

  defp best(pool, worker, excluded, found, found_rank) do
    rank = rank(pool, worker)

    if worker not in excluded and (found == nil or rank <= found_rank),
      do: best(pool, worker - 1, excluded, worker, rank),
      else: best(pool, worker - 1, excluded, found, found_rank)
  end

  @doc "The processes of the workers, and their numbers."
  @spec pids(t()) :: [{pid(), pos_integer()}]
  def pids(pool) do
    :ets.select(pool.table, [{{{:worker, :"$1"}, :"$2", :_}, [], [{{:"$2", :"$1"}}]}])
  end

  @spec workers(t()) :: [worker()]
  def workers(pool) do
    for worker <- 1..pool.size,
        [{_key, pid, os_pid}] <- [:ets.lookup(pool.table, {:worker, worker})] do
      %{
        worker: worker,
        pid: pid,
        os_pid: os_pid,
        node: node(pid),
        status: status(pool, worker),
        in_flight: max(0, :atomics.get(pool.atomics, worker))
      }
    end
  end

  # What workers tell of themselves.

  @doc "The calling process is this worker, with nothing to do yet."
  @spec join(t(), pos_integer()) :: :ok
  def join(pool, worker) do
    :atomics.put(pool.atomics, worker, 0)
    put_status(pool, worker, :starting)
    put_os_pid(pool, worker, nil)
  end

  @spec put_os_pid(t(), pos_integer(), pos_integer() | nil) :: :ok
  def put_os_pid(pool, worker, os_pid) do
    :ets.insert(pool.table, {{:worker, worker}, self(), os_pid})
    :ok
  end

  for {status, number} <- @statuses |> Tuple.to_list() |> Enum.with_index() do
    @spec put_status(t(), pos_integer(), status()) :: :ok
    def put_status(pool, worker, unquote(status)),
      do: :atomics.put(pool.atomics, pool.size + worker, unquote(number))

    defp number(unquote(status)), do: unquote(number)
  end

  @doc "A call of this worker's has ended."
  @spec done(t(), pos_integer()) :: :ok
  def done(pool, worker), do: :atomics.sub(pool.atomics, worker, 1)

  @doc """
  This worker has nothing to do: whatever is still counted was counted by a caller that was killed
  before it could say more, or whose call comes in this very moment. That one is then counted as one too
  few, until the worker is idle again: a load that is compared, and decides nothing else.
  """
  @spec idle(t(), pos_integer()) :: :ok
  def idle(pool, worker), do: :atomics.put(pool.atomics, worker, 0)

  @doc "Sends every worker a message."
  @spec tell(t(), term()) :: :ok
  def tell(pool, message), do: Enum.each(pids(pool), fn {pid, _worker} -> send(pid, message) end)

  @doc "The error of a call to an instance that has no worker."
  @spec no_worker() :: Error.t()
  def no_worker do
    Error.new(:not_started, "the DSPex instance has no worker at this moment", retryable: true)
  end

  defp pid(pool, worker) do
    :ets.lookup_element(pool.table, {:worker, worker}, 2)
  rescue
    # It has not come yet, or the instance has ended.
    error in ArgumentError ->
      if :ets.whereis(pool.table) == :undefined, do: reraise(error, __STACKTRACE__)
  end

  defp status(pool, worker), do: elem(@statuses, status_number(pool, worker))
  defp status_number(pool, worker), do: :atomics.get(pool.atomics, pool.size + worker)

  @impl true
  def init(options) do
    size = Keyword.fetch!(options, :size)
    table = Keyword.fetch!(options, :name)
    atomics = :atomics.new(2 * size, signed: true)

    # Public: workers and callers write in it.
    :ets.new(table, [:named_table, :public, read_concurrency: true])

    :ets.insert(
      table,
      {:pool,
       %__MODULE__{
         table: table,
         size: size,
         atomics: atomics,
         cluster?: Keyword.get(options, :cluster?, false)
       }}
    )

    {:ok, table}
  end
end
