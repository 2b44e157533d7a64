defmodule DSPex.Connection.ForkServer do
  @moduledoc false
  # One Python that has imported DSPy, and forks those of the workers. A worker asks for one and is told
  # where it is; everything else, their ends included, is between the two.
  #
  # It is started with the first that is asked for. Its end is the end of all that it forked, and so of
  # what they do: each worker asks for another, and what was asked and not answered is asked again, of
  # the next server. A restart of the instance takes a new one; the old one ends with the last of its own.

  use GenServer

  alias DSPex.Connection.{Diagnosis, Failure, Health, Python, Writer}
  alias DSPex.Deadline
  alias DSPex.Protocol.{Framing, Message}

  require Logger

  # What it says is short.
  @max_frame_bytes 64 * 1024

  @argument "--fork-server"

  defmodule Server do
    @moduledoc false
    # `asked`: who waits, by the id of the request; `alive`: what it forked; `proven?`: it has answered.
    @enforce_keys [:python]
    defstruct [:python, :health, next: 0, asked: %{}, alive: MapSet.new(), proven?: false]
  end

  @typedoc "Where a Python that was forked waits for one connection."
  @type forked :: %{path: String.t(), os_pid: pos_integer()}

  @typedoc "What a worker is sent, as `{:forked, answer}`."
  @type answer :: {:ok, forked()} | {:error, Failure.cause(), String.t()}

  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, name: Keyword.fetch!(options, :name))

  @doc "Asks for a Python. The calling process is sent one `{:forked, answer}`."
  @spec fork(GenServer.server()) :: :ok
  def fork(server), do: GenServer.cast(server, {:fork, self()})

  @doc "Has those that are asked for from here on forked by a new server; `:ok` where there is none."
  @spec renew(atom()) :: :ok
  def renew(server) do
    if Process.whereis(server), do: GenServer.call(server, :renew), else: :ok
  catch
    # Whoever starts it again starts a new one.
    :exit, _reason -> :ok
  end

  @doc """
  Ends those that fork no more, when nobody needs what they forked. One that stands still would not tell
  that it has nothing left.
  """
  @spec close_old(atom()) :: :ok
  def close_old(server), do: GenServer.cast(server, :close_old)

  @impl true
  def init(options) do
    # A port that fails must not take this process with it.
    Process.flag(:trap_exit, true)
    {executable, args} = Keyword.fetch!(options, :command)

    {:ok,
     %{
       command: {executable, args ++ [@argument]},
       tasks: Keyword.fetch!(options, :tasks),
       start_timeout: Keyword.fetch!(options, :start_timeout),
       health_options: Health.options(options),
       servers: %{},
       current: nil,
       diagnosis: nil,
       waiting: []
     }}
  end

  @impl true
  def handle_cast({:fork, worker}, state), do: {:noreply, want(state, [worker])}

  def handle_cast(:close_old, state) do
    {_current, old} = Map.split(state.servers, [state.current])
    Enum.each(old, fn {_port, server} -> Python.close(server.python) end)
    workers = for {_port, server} <- old, {_id, worker} <- server.asked, do: worker
    {:noreply, want(%{state | servers: Map.drop(state.servers, Map.keys(old))}, workers)}
  end

  @impl true
  def handle_call(:renew, _from, state),
    do: {:reply, :ok, close_if_left(%{state | current: nil}, state.current)}

  @impl true
  def handle_info({port, {:data, bytes}}, %{servers: servers} = state)
      when is_map_key(servers, port),
      do: {:noreply, data(state, port, bytes)}

  def handle_info({port, {:exit_status, status}}, %{servers: servers} = state)
      when is_map_key(servers, port),
      do: {:noreply, exited(state, port, status)}

  # The end without a status: writing failed because nobody reads.
  def handle_info({:EXIT, port, reason}, %{servers: servers} = state)
      when is_map_key(servers, port),
      do: {:noreply, left(state, port, "its pipe failed (#{inspect(reason)})")}

  def handle_info({:start_timeout, port}, %{servers: servers} = state) do
    case servers do
      %{^port => %{proven?: false}} ->
        how = "it was not ready within #{state.start_timeout} ms"
        {:noreply, kill(state, port, how, :passing)}

      _ready_or_gone ->
        {:noreply, state}
    end
  end

  # Its start has a limit of its own, which may have been later.
  def handle_info({:fork_timeout, port, id}, %{servers: servers} = state) do
    case servers do
      %{^port => %{proven?: true, asked: asked}} when is_map_key(asked, id) ->
        how = "it did not fork within #{state.start_timeout} ms"
        {:noreply, kill(state, port, how, :passing)}

      _forked_or_gone ->
        {:noreply, state}
    end
  end

  def handle_info({:look, port}, %{servers: servers} = state) when is_map_key(servers, port),
    do: {:noreply, look(state, port, servers[port])}

  def handle_info({ref, {cause, said}}, %{diagnosis: {ref, _how}} = state),
    do: {:noreply, diagnosed(state, cause, said)}

  def handle_info({:DOWN, ref, :process, _pid, _reason}, %{diagnosis: {ref, _how}} = state),
    do: {:noreply, diagnosed(state, :passing, nil)}

  # News of a port, writer, timer or task that is no more.
  def handle_info(_stale, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, state),
    do: Enum.each(state.servers, fn {_port, server} -> Python.close(server.python) end)

  # --- asking ---

  defp want(state, []), do: state

  defp want(%{diagnosis: {_ref, _how}} = state, workers),
    do: %{state | waiting: workers ++ state.waiting}

  defp want(%{current: nil} = state, workers) do
    case Python.open(state.command, @max_frame_bytes) do
      {:ok, python} ->
        Deadline.send_after({:start_timeout, python.port}, state.start_timeout)
        servers = Map.put(state.servers, python.port, %Server{python: python})
        want(%{state | servers: servers, current: python.port}, workers)

      {:error, cause, why} ->
        tell(workers, {:error, cause, why})
        state
    end
  end

  defp want(state, workers) do
    server = Enum.reduce(workers, state.servers[state.current], &ask(&1, &2, state.start_timeout))
    put(state, attended(server, state.health_options))
  end

  defp ask(worker, server, start_timeout) do
    {:ok, body} = Message.body("fork", %{})
    message = Message.request(server.next, body)
    frame = [Framing.prefix(IO.iodata_length(message)) | message]
    # A server that is stopped takes nothing, and this process is not to wait for it.
    Writer.write(server.python.writer, frame)
    Deadline.send_after({:fork_timeout, server.python.port, server.next}, start_timeout)
    %{server | next: server.next + 1, asked: Map.put(server.asked, server.next, worker)}
  end

  # While it imports it answers nothing, and there is another limit.
  defp attended(%{proven?: true, health: nil} = server, options) when server.asked != %{} do
    Deadline.send_after({:look, server.python.port}, options.interval)
    # What it has been asked is as good as a ping.
    %{server | health: %{Health.new(options, server.python.os_pid, now()) | asked_at: now()}}
  end

  defp attended(server, _options), do: server

  defp look(state, _port, %{asked: asked} = server) when asked == %{},
    do: put(state, %{server | health: nil})

  defp look(state, port, server) do
    case Health.look(server.health, now()) do
      {:stuck, why} ->
        kill(state, port, "it was stuck and has been killed: #{why}", :passing)

      {_how, health} ->
        Deadline.send_after({:look, port}, health.options.interval)
        put(state, %{server | health: health})
    end
  end

  # --- answers ---

  defp data(state, port, bytes) do
    server = state.servers[port]
    {events, decoder} = Framing.feed(server.python.decoder, bytes)
    python = %{server.python | decoder: decoder, spoke?: true}
    health = server.health && Health.heard(server.health, now())
    state = put(state, %{server | python: python, health: health})

    # One event may be the end of this server; those after it are then nobody's.
    Enum.reduce(events, state, fn event, state ->
      case state.servers do
        %{^port => server} -> event(event, server, state)
        _gone -> state
      end
    end)
  end

  defp event({:frame, frame}, server, state) do
    case Message.parse(frame) do
      {:ok, {:response, id, outcome}} when is_map_key(server.asked, id) ->
        {worker, asked} = Map.pop(server.asked, id)
        server = %{server | asked: asked, proven?: true}
        {answer, server} = answer(outcome, server)
        tell([worker], answer)
        state |> put(server) |> close_if_left(server.python.port)

      {:ok, {:notification, "exited", %{"pid" => os_pid} = params}} ->
        told(params)
        server = %{server | alive: MapSet.delete(server.alive, os_pid)}
        state |> put(server) |> close_if_left(server.python.port)

      {:ok, _other} ->
        state

      {:error, _error, _id} ->
        desynchronised(state, server)
    end
  end

  defp event({:too_large, _size, _head}, server, state), do: desynchronised(state, server)

  defp answer({:ok, %{"pid" => os_pid, "path" => path}}, server)
       when is_integer(os_pid) and os_pid > 1 and is_binary(path) do
    server = %{server | alive: MapSet.put(server.alive, os_pid)}
    {{:ok, %{os_pid: os_pid, path: path}}, server}
  end

  defp answer({:ok, _other}, server),
    do: {{:error, :lasting, "what was to fork it answered something else"}, server}

  defp answer({:error, error}, server) do
    cause = if error.retryable, do: :passing, else: :lasting
    {{:error, cause, "it could not be forked: #{Exception.message(error)}"}, server}
  end

  # What its connection sees is only that it is closed.
  defp told(%{"status" => status} = params) when is_integer(status) and status != 0 do
    how = if status < 0, do: "killed by signal #{-status}", else: "exit status #{status}"
    Logger.warning("DSPex: a forked Python (pid #{inspect(params["pid"])}) ended: #{how}")
  end

  defp told(_params), do: :ok

  defp desynchronised(state, server) do
    how = "something else than the bridge wrote to its stdout"
    kill(state, server.python.port, how, :lasting)
  end

  # --- ends ---

  # A server that forks no more, and has nothing left.
  defp close_if_left(%{servers: servers, current: current} = state, port)
       when port != current and is_map_key(servers, port) do
    case servers[port] do
      %{asked: asked, alive: alive, python: python} when asked == %{} ->
        if MapSet.size(alive) == 0 do
          Python.close(python)
          %{state | servers: Map.delete(servers, port)}
        else
          state
        end

      _busy ->
        state
    end
  end

  defp close_if_left(state, _port), do: state

  defp kill(state, port, how, cause) do
    Python.kill(state.servers[port].python)
    ended(state, port, how, cause)
  end

  defp exited(state, port, status) do
    how = Python.exit_text(status)
    if Python.by_itself?(status), do: left(state, port, how), else: ended(state, port, how)
  end

  # By itself, as far as is known.
  defp left(state, port, how) do
    case state do
      %{current: ^port, servers: %{^port => %{python: %{spoke?: false}} = server}} ->
        # Only its stderr, which went elsewhere, says why.
        task = Task.Supervisor.async_nolink(state.tasks, fn -> Diagnosis.run(state.command) end)
        waiting = Map.values(server.asked)
        %{forget(state, port) | diagnosis: {task.ref, how}, waiting: waiting}

      _spoke ->
        ended(state, port, how)
    end
  end

  defp diagnosed(%{diagnosis: {ref, how}, waiting: waiting} = state, cause, said) do
    Process.demonitor(ref, [:flush])
    how = if said in [nil, ""], do: how, else: "#{how}: #{said}"
    tell(waiting, failure(how, cause))
    %{state | diagnosis: nil, waiting: []}
  end

  defp ended(state, port, how, cause \\ :passing) do
    server = state.servers[port]
    workers = Map.values(server.asked)
    state = forget(state, port)

    # One that has not answered anything would be started for ever.
    if server.proven? do
      Logger.warning(
        "DSPex: the fork server (pid #{server.python.os_pid}) ended: #{how}; what it forked ends " <>
          "with it"
      )

      want(state, workers)
    else
      tell(workers, failure(how, cause))
      state
    end
  end

  defp failure(how, cause), do: {:error, cause, "what was to fork it ended: #{how}"}

  defp forget(state, port) do
    {server, servers} = Map.pop(state.servers, port)
    Python.close(server.python)
    current = if state.current == port, do: nil, else: state.current
    %{state | servers: servers, current: current}
  end

  defp put(state, server), do: put_in(state.servers[server.python.port], server)

  defp tell(workers, answer), do: Enum.each(workers, &send(&1, {:forked, answer}))

  defp now, do: System.monotonic_time(:millisecond)
end
