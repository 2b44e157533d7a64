defmodule DSPex.Cluster do
  @moduledoc false
  # The instances of one name on connected nodes, as one pool. Each node's process here tells the others
  # how its workers are, several times a second, into the table from which callers choose; and its
  # journal's changes reach the other journals before they are confirmed. Who is there is told by `:pg`.

  use GenServer

  alias DSPex.{Deadline, Journal, Pool}

  # What a caller knows of another node's workers is at most so old; its own calls are counted at once.
  @interval_ms 100

  # A node that does not answer is told again when it is back.
  @bound_ms 1000

  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options), do: GenServer.start_link(__MODULE__, options)

  @spec scope(atom()) :: atom()
  def scope(name), do: Module.concat(name, "Cluster")

  @doc "Has every other node's journal take a change that this one has confirmed."
  @spec spread(atom(), [Journal.stamped()]) :: :ok
  def spread(name, changes) do
    if :ets.whereis(scope(name)) != :undefined do
      requests = for pid <- others(name), do: :gen_server.send_request(pid, {:changes, changes})
      ends = Deadline.from_now(@bound_ms)
      for request <- requests, do: :gen_server.receive_response(request, Deadline.left(ends))
    end

    :ok
  end

  defp others(name),
    do: :pg.get_members(scope(name), :nodes) -- :pg.get_local_members(scope(name), :nodes)

  @impl true
  def init(options) do
    name = Keyword.fetch!(options, :name)

    state = %{
      name: name,
      pool: Pool.fetch(options[:pool]),
      journal: options[:journal],
      known: %{}
    }

    {_ref, groups} = :pg.monitor_scope(scope(name))
    :ok = :pg.join(scope(name), :nodes, self())
    Enum.each(Map.get(groups, :nodes, []), &greet(&1, state))
    send(self(), :tell)
    {:ok, state}
  end

  # Whoever is new is told everything; what is older than what it has it leaves.
  defp greet(pid, state), do: GenServer.cast(pid, {:changes, Journal.everything(state.journal)})

  @impl true
  def handle_call({:changes, changes}, _from, state), do: {:reply, take(changes, state), state}

  @impl true
  def handle_cast({:changes, changes}, state) do
    take(changes, state)
    {:noreply, state}
  end

  def handle_cast({:workers, from, workers}, state) do
    Pool.put_remote(state.pool, node(from), workers)
    known = Map.put_new_lazy(state.known, from, fn -> Process.monitor(from) end)
    {:noreply, %{state | known: known}}
  end

  defp take(changes, state) do
    :ok = Journal.take(state.journal, changes)
    Pool.tell(state.pool, :journal_changed)
  end

  @impl true
  def handle_info(:tell, state) do
    Process.send_after(self(), :tell, @interval_ms)
    workers = Pool.workers(state.pool)
    for pid <- others(state.name), do: GenServer.cast(pid, {:workers, self(), workers})
    {:noreply, state}
  end

  def handle_info({_ref, :join, :nodes, pids}, state) do
    for pid <- pids, pid != self(), do: greet(pid, state)
    {:noreply, state}
  end

  def handle_info({:DOWN, _ref, :process, pid, _reason}, state) do
    Pool.drop_remote(state.pool, node(pid))
    {:noreply, %{state | known: Map.delete(state.known, pid)}}
  end

  def handle_info(_other, state), do: {:noreply, state}
end
