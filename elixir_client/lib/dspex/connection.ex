defmodule DSPex.Connection do
  @moduledoc false
  # A worker: one Python process and the calls on it.
  #
  # The connection owns the port and routes, no more: callers encode and decode (see `Caller`), and
  # the client's functions that Python asks for run in tasks (see `Callbacks`). Python comes and goes
  # under it (see `Lifecycle`).

  use GenServer

  alias DSPex.Connection.{
    Callbacks,
    Health,
    Incoming,
    Lifecycle,
    Outbox,
    Outgoing,
    Python,
    Request,
    State
  }

  alias DSPex.{Error, Pool}
  alias DSPex.Connection.Failure
  alias DSPex.Protocol.Message

  # Room for what some hundred calls leave behind: it is collected once for many of them.
  @heap_words 50_000

  # Messages, each of which takes microseconds.
  @burst 64

  @type option ::
          {:server, atom()}
          | {:worker, pos_integer()}
          | {:pool, atom()}
          | {:command, {String.t(), [String.t()]}}
          | {:fork, boolean()}
          | {:fork_server, atom()}
          | {:journal, atom()}
          | {:tasks, atom()}
          | {:max_frame_bytes, pos_integer()}
          | {:start_timeout, timeout()}
          | {:log_level, String.t() | nil}
          | {:drain_timeout, timeout()}
          | {:heartbeat_interval, timeout()}
          | {:heartbeat_timeout, timeout()}
          | {:busy_timeout, timeout()}
          | {:max_queued_bytes, pos_integer()}
          | {:max_callbacks, pos_integer()}

  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(options),
    do: GenServer.start_link(__MODULE__, options, spawn_opt: [min_heap_size: @heap_words])

  @doc """
  Has the worker's Python replaced by another once its calls are answered, or after `drain_timeout`;
  answers when that is ready.
  """
  @spec replace(pid(), timeout()) :: :ok | {:error, Error.t()}
  def replace(worker, drain_timeout) do
    GenServer.call(worker, {:replace, drain_timeout}, :infinity)
  catch
    # Its supervisor starts another, with a Python of its own.
    :exit, _reason -> {:error, Failure.not_running()}
  end

  @impl true
  def init(options) do
    # A port that fails must not take the connection with it, and terminate/2 has to run.
    Process.flag(:trap_exit, true)
    fetch = &Keyword.fetch!(options, &1)
    Logger.metadata(dspex_server: fetch.(:server))
    pool = Pool.fetch(fetch.(:pool))

    state = %State{
      command: fetch.(:command),
      fork_server: if(fetch.(:fork), do: fetch.(:fork_server)),
      journal: fetch.(:journal),
      pool: pool,
      worker: fetch.(:worker),
      max_frame_bytes: fetch.(:max_frame_bytes),
      start_timeout: fetch.(:start_timeout),
      log_level: fetch.(:log_level),
      drain_timeout: fetch.(:drain_timeout),
      health_options: Health.options(options),
      outbox: Outbox.new(fetch.(:max_queued_bytes)),
      callbacks:
        Callbacks.new(fetch.(:server), fetch.(:tasks), fetch.(:journal), fetch.(:max_callbacks))
    }

    Pool.join(pool, state.worker)
    {:ok, state, {:continue, :start}}
  end

  @impl true
  def handle_continue(:start, state), do: noreply(Lifecycle.start(state))

  @impl true
  def handle_call({:replace, timeout}, from, state),
    do: noreply(Lifecycle.replace(state, "a restart was asked for", timeout, from))

  # Nobody of DSPex asks this; whoever does is not to end it.
  def handle_call(_unknown, from, state) do
    GenServer.reply(from, {:error, :unknown_call})
    noreply(state)
  end

  @impl true
  def handle_cast({:request, %Request{} = request}, state) do
    # Who is on another node has counted there.
    if node(request.caller) != node(), do: Pool.count({self(), state.pool, state.worker})

    cond do
      # It may mend what was refused.
      state.phase == :down and state.refused != nil and request.method == "configure" ->
        noreply(state |> Outgoing.enqueue(request) |> Lifecycle.start())

      state.phase == :down ->
        noreply(Outgoing.refuse(state, request, state.failure))

      state.phase == :ready and request.size > State.peer_limit(state) ->
        error = Failure.too_large(request.size, State.peer_limit(state))
        noreply(Outgoing.refuse(state, request, error))

      true ->
        noreply(Outgoing.enqueue(state, request))
    end
  end

  # The caller no longer waits.
  def handle_cast({:abandon, ref}, state) when is_reference(ref),
    do: noreply(Outgoing.abandon(state, ref))

  # The caller waits for what comes of it.
  def handle_cast({:cancel, ref}, state) when is_reference(ref),
    do: noreply(Outgoing.cancel(state, ref))

  def handle_cast({:grant, ref, n}, state) when is_reference(ref) and is_integer(n),
    do: noreply(Outgoing.grant(state, ref, n))

  def handle_cast(_unknown, state), do: noreply(state)

  @impl true
  def handle_info({port, {:data, bytes}}, %{python: %{port: port}} = state),
    do: noreply(Incoming.data(state, bytes))

  def handle_info({:tcp, port, bytes}, %{python: %{port: port}} = state),
    do: noreply(Incoming.data(state, bytes))

  def handle_info({:tcp_passive, port}, %{python: %{port: port}} = state) do
    Python.go_on(state.python)
    noreply(state)
  end

  # The usual end. It is told once the process has ended and its end of the pipe is closed.
  def handle_info({port, {:exit_status, status}}, %{python: %{port: port}} = state),
    do: noreply(Lifecycle.exited(state, status))

  # The end without a status: writing failed because nobody reads.
  def handle_info({:EXIT, port, reason}, %{python: %{port: port}} = state),
    do: noreply(Lifecycle.pipe_failed(state, reason))

  def handle_info({:tcp_closed, port}, %{python: %{port: port}} = state),
    do: noreply(Lifecycle.ended(state, "its connection was closed"))

  def handle_info({:forked, answer}, %{asks?: true} = state),
    do: noreply(Lifecycle.forked(state, answer))

  def handle_info({:written, writer}, %{python: %{writer: writer}} = state),
    do: noreply(put_in(state.python.writing?, false))

  def handle_info({:EXIT, writer, reason}, %{python: %{writer: writer}} = state),
    do: {:stop, {:writer_failed, reason}, state}

  def handle_info({:unusable, port, why}, %{python: %{port: port}} = state),
    do: noreply(Lifecycle.kill(state, why))

  def handle_info(:start, %{phase: phase, python: nil, diagnosis: nil, asks?: false} = state)
      when phase in [:down, :starting],
      do: noreply(Lifecycle.start(state))

  def handle_info({:start_timeout, port}, %{python: %{port: port}, phase: :starting} = state),
    do: noreply(Lifecycle.start_timeout(state))

  def handle_info({:drain_timeout, port}, %{python: %{port: port}} = state) do
    why = "it was to be replaced (#{state.draining}), and its calls did not end in time"
    noreply(Lifecycle.kill(state, why))
  end

  def handle_info({:look, port}, %{python: %{port: port}, phase: :ready} = state),
    do: noreply(Lifecycle.look(state))

  # There is something to tell to Python.
  def handle_info(:journal_changed, state), do: noreply(Lifecycle.journal_changed(state))

  # Nothing has come meanwhile.
  def handle_info(:timeout, state), do: noreply(state)

  def handle_info({ref, found}, %{diagnosis: {ref, _how}} = state),
    do: noreply(Lifecycle.diagnosed(state, found))

  def handle_info({:DOWN, ref, :process, _pid, _reason}, %{diagnosis: {ref, _how}} = state),
    do: noreply(Lifecycle.diagnosed(state, {:passing, nil}))

  # What a function of the client answered.
  def handle_info({ref, response}, state) when is_reference(ref) and is_binary(response),
    do: noreply(Incoming.called_back(state, ref, fn _id -> response end))

  def handle_info({:DOWN, ref, :process, _pid, _reason}, state) do
    error = Error.new(:tool_error, "the client's function ended before it answered")
    noreply(Incoming.called_back(state, ref, &Message.error_response(&1, error)))
  end

  def handle_info(:watch_callers, state), do: noreply(Outgoing.watch_callers(state))

  def handle_info({{:caller_down, id}, _ref, :process, _pid, _reason}, state),
    do: noreply(Outgoing.caller_down(state, id))

  # News of a port, writer, timer, task or call that is no more.
  def handle_info(_stale, state), do: noreply(state)

  # What is to be written waits for what the messages that are there already have to be written, but
  # not for more of them than @burst. With a timeout of 0 there is no end without a `:timeout`.
  defp noreply(%{burst: burst} = state) do
    case Process.info(self(), :message_queue_len) do
      {:message_queue_len, more} when more > 0 and burst < @burst ->
        {:noreply, %{state | burst: burst + 1}, 0}

      {:message_queue_len, more} ->
        state = state |> Lifecycle.replace_if_drained() |> Outgoing.transmit()
        state = if more == 0, do: Outgoing.settle_count(state), else: state
        {:noreply, %{state | burst: 0}}
    end
  end

  @impl true
  def terminate(_reason, state) do
    Callbacks.clear(state.callbacks)
    Python.close(state.python)
  end

  # No @impl where the behaviour does not know it yet (it is OTP 25's, Elixir's later).
  if {:format_status, 1} in GenServer.behaviour_info(:callbacks), do: @impl(true)
  @doc false
  def format_status(status) do
    Map.replace_lazy(status, :state, fn state ->
      %{
        state
        | calls: map_size(state.calls.by_id),
          callbacks: map_size(state.callbacks.by_id),
          outbox: state.outbox.bytes
      }
    end)
  end
end
