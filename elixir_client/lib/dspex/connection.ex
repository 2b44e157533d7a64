defmodule DSPex.Connection do
  @moduledoc false
  # One Python process and the calls on it.
  #
  # The connection owns the port and routes, no more: callers encode and decode (see `Caller`), and
  # the client's functions that Python asks for run in tasks (see `Callbacks`).
  #
  # Python comes and goes under it:
  #
  #     starting --(initialize, configure, every program of the journal)--> ready
  #        ^  |                                                              |
  #        |  +-- failed: waits, longer each time ----> down                 |
  #        |  +-- refused: waits for a configure -----> down                 |
  #        +--------------------------------------------- Python ended ------+
  #
  # While starting, requests wait. While down they are refused at once with the reason. A request
  # that was written when Python ended is answered with :connection_lost; one that was not just
  # waits for the next Python.

  use GenServer

  require Logger

  alias DSPex.{Error, Journal}
  alias DSPex.Connection.{Callbacks, Calls, Failure, Handshake, Inbox, Outbox, Python}
  alias DSPex.Connection.Calls.Call
  alias DSPex.Protocol.{Framing, Message}

  # After a failed start. The longest is what a person who mends the cause may have to wait.
  @first_backoff_ms 100
  @max_backoff_ms 10_000

  @enforce_keys [:command, :journal, :max_frame_bytes, :start_timeout, :outbox, :callbacks]
  defstruct @enforce_keys ++
              [
                phase: :down,
                failures: 0,
                failure: nil,
                python: nil,
                handshake: nil,
                calls: %Calls{}
              ]

  @type option ::
          {:name, atom()}
          | {:server, atom()}
          | {:command, {String.t(), [String.t()]}}
          | {:journal, atom()}
          | {:tasks, atom()}
          | {:max_frame_bytes, pos_integer()}
          | {:start_timeout, timeout()}
          | {:max_queued_bytes, pos_integer()}
          | {:max_callbacks, pos_integer()}

  @spec start_link([option()]) :: GenServer.on_start()
  def start_link(options) do
    {name, options} = Keyword.pop!(options, :name)
    GenServer.start_link(__MODULE__, options, name: name)
  end

  @impl true
  def init(options) do
    # A port that fails must not take the connection with it, and terminate/2 has to run.
    Process.flag(:trap_exit, true)
    journal = Keyword.fetch!(options, :journal)
    server = Keyword.fetch!(options, :server)
    tasks = Keyword.fetch!(options, :tasks)

    state = %__MODULE__{
      command: Keyword.fetch!(options, :command),
      journal: journal,
      max_frame_bytes: Keyword.fetch!(options, :max_frame_bytes),
      start_timeout: Keyword.fetch!(options, :start_timeout),
      outbox: Outbox.new(Keyword.fetch!(options, :max_queued_bytes)),
      callbacks: Callbacks.new(server, tasks, journal, Keyword.fetch!(options, :max_callbacks))
    }

    {:ok, state, {:continue, :start}}
  end

  @impl true
  def handle_continue(:start, state), do: {:noreply, start(state)}

  @impl true
  def handle_cast({:request, request}, state) do
    cond do
      # It may mend what was refused.
      state.phase == :down and refused?(state) and request.method == "configure" ->
        {:noreply, state |> enqueue(request) |> start()}

      state.phase == :down ->
        answer(request.ref, {:error, state.failure})
        {:noreply, state}

      state.phase == :ready and request.size > peer_limit(state) ->
        answer(request.ref, {:error, Failure.too_large(request.size, peer_limit(state))})
        {:noreply, state}

      true ->
        {:noreply, enqueue(state, request)}
    end
  end

  # The caller no longer waits.
  def handle_cast({:abandon, ref}, state), do: {:noreply, abandon(state, ref)}

  # The caller waits for what comes of it.
  def handle_cast({:cancel, ref}, state), do: {:noreply, cancel(state, ref)}

  def handle_cast({:grant, ref, n}, state) do
    case Calls.id(state.calls, ref) do
      {:ok, id} -> {:noreply, notify(state, "grant", %{id: id, n: n})}
      # It has been answered, and there is no more.
      :error -> {:noreply, state}
    end
  end

  @impl true
  def handle_info({port, {:data, bytes}}, %{python: %{port: port}} = state) do
    {events, decoder} = Framing.feed(state.python.decoder, bytes)

    # One event may be the end of this Python; those after it are then nobody's.
    state =
      Enum.reduce(events, put_in(state.python.decoder, decoder), fn
        event, %{python: %{port: ^port}} = state -> event(event, state)
        _event, state -> state
      end)

    {:noreply, state}
  end

  # The usual end. It is told once the process has ended and its end of the pipe is closed.
  def handle_info({port, {:exit_status, status}}, %{python: %{port: port}} = state),
    do: {:noreply, python_ended(state, Python.exit_text(status))}

  # The end without a status: writing failed because nobody reads.
  def handle_info({:EXIT, port, reason}, %{python: %{port: port}} = state),
    do: {:noreply, python_ended(state, "its pipe failed (#{inspect(reason)})")}

  def handle_info({:written, writer}, %{python: %{writer: writer}} = state),
    do: {:noreply, transmit(put_in(state.python.writing?, false))}

  def handle_info({:EXIT, writer, reason}, %{python: %{writer: writer}} = state),
    do: {:stop, {:writer_failed, reason}, state}

  def handle_info(:start, %{phase: :down} = state), do: {:noreply, start(state)}

  def handle_info({:start_timeout, port}, %{python: %{port: port}, phase: :starting} = state) do
    Python.kill(state.python)
    text = "Python was not ready within #{state.start_timeout} ms"
    {:noreply, start_failed(state, text)}
  end

  # What a function of the client answered.
  def handle_info({ref, response}, state) when is_reference(ref) and is_binary(response),
    do: {:noreply, called_back(state, ref, fn _id -> response end)}

  # The end of a task, or of a caller.
  def handle_info({:DOWN, ref, :process, _pid, _reason}, state) do
    error = Error.new(:tool_error, "the client's function ended before it answered")
    state = called_back(state, ref, &Message.error_response(&1, error))
    {:noreply, abandon(state, ref)}
  end

  # News of a port, writer, timer, task or call that is no more.
  def handle_info(_stale, state), do: {:noreply, state}

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

  # --- starting Python ---

  defp start(state) do
    case Python.open(state.command, state.max_frame_bytes) do
      {:ok, python} ->
        if state.start_timeout != :infinity,
          do: Process.send_after(self(), {:start_timeout, python.port}, state.start_timeout)

        shake_hands(
          %{state | phase: :starting, python: python},
          Handshake.start(state.journal, state.max_frame_bytes)
        )

      {:error, reason} ->
        start_failed(state, reason)
    end
  end

  defp shake_hands(state, {:ask, questions, handshake}),
    do: Enum.reduce(questions, %{state | handshake: handshake}, &ask/2)

  defp shake_hands(state, {:ready, handshake}) do
    transmit(%{state | phase: :ready, failures: 0, failure: nil, handshake: handshake})
  end

  defp shake_hands(state, {:failed, why}) do
    Python.kill(state.python)
    start_failed(state, why)
  end

  defp shake_hands(state, {:refused, why}) do
    Python.kill(state.python)
    start_refused(state, why)
  end

  # What came before may have ended in a failure.
  defp ask(_question, %{python: nil} = state), do: state

  defp ask({step, method, body}, state) do
    call = %Call{reply: step, method: method, written?: true}
    {id, calls} = Calls.add(state.calls, call)
    control(%{state | calls: calls}, fn -> Message.request(id, body.()) end, byte_size(body.()))
  end

  # The configuration that was refused would be refused again, without what callers want changed.
  defp wanted(state) do
    if refused?(state), do: Calls.wanted_configurations(state.calls), else: []
  end

  defp peer_limit(state), do: state.handshake.peer_max_frame_bytes

  # --- ends of Python ---

  defp python_ended(%{phase: :starting} = state, how) do
    start_failed(state, "it ended before it was ready: #{how}")
  end

  defp python_ended(%{phase: :ready} = state, how) do
    Logger.warning("DSPex: Python (pid #{state.python.os_pid}) ended: #{how}; starting another")
    state |> disconnect("Python ended before it answered (#{how})") |> start()
  end

  # The bytes on its stdout are no longer frames, and there is no way back to them.
  defp desynchronised(state, head) do
    shown = inspect(head, printable_limit: 64, limit: 64)
    {executable, args} = state.command

    how =
      "something else than the bridge wrote to its stdout; it went on with #{shown}. " <>
        "Does #{Enum.join([executable | args], " ")} print by itself?"

    Python.kill(state.python)
    python_ended(state, how)
  end

  defp start_failed(state, why) do
    delay = backoff_ms(state.failures + 1)
    text = "Python could not be made ready: #{why}"
    Logger.error("DSPex: #{text}; trying again in #{delay} ms")

    Process.send_after(self(), :start, delay)
    go_down(state, Error.new(:start_failed, text, retryable: true))
  end

  # No timer: only another configuration, or another bridge, can make a difference.
  defp start_refused(state, why) do
    text =
      "Python could not be made ready: #{why}; it stays down until DSPex.configure/2 gives " <>
        "another configuration or the instance is restarted"

    Logger.error("DSPex: #{text}")
    go_down(state, Error.new(:start_failed, text, retryable: false))
  end

  defp refused?(state), do: match?(%Error{retryable: false}, state.failure)

  defp go_down(state, failure) do
    state = disconnect(state, "Python ended before it answered")
    state = %{state | phase: :down, failures: state.failures + 1, failure: failure}

    Enum.reduce(Calls.ids(state.calls, fn _call -> true end), state, fn id, state ->
      {:dropped, outbox} = Outbox.drop(state.outbox, id)
      finish(%{state | outbox: outbox}, id, {:error, failure})
    end)
  end

  defp backoff_ms(failures) do
    # The exponent is bounded because the failures are not.
    min(@first_backoff_ms * Integer.pow(2, min(failures - 1, 10)), @max_backoff_ms)
  end

  # Answers what was written, and forgets the process that it was written to.
  defp disconnect(state, why) do
    Python.close(state.python)

    state =
      state.calls
      |> Calls.ids(& &1.written?)
      |> Enum.reduce(state, fn id, state ->
        {:ok, call} = Calls.fetch(state.calls, id)
        finish(state, id, {:error, Failure.lost(call.method, why)})
      end)

    %{
      state
      | python: nil,
        handshake: nil,
        callbacks: Callbacks.clear(state.callbacks),
        outbox: Outbox.clear_control(state.outbox)
    }
  end

  # --- requests ---

  defp enqueue(state, request) do
    case Outbox.put_request(state.outbox, state.calls.next_id, request.body, request.size) do
      {:ok, outbox} ->
        call = %Call{
          reply: request.ref,
          method: request.method,
          monitor: Process.monitor(request.caller),
          entry: request.entry,
          listens?: request.listens?
        }

        {id, calls} = Calls.add(state.calls, call)
        Callbacks.put_functions(state.callbacks, id, request.functions)
        transmit(%{state | outbox: outbox, calls: calls})

      :full ->
        answer(request.ref, {:error, Failure.overloaded(state.outbox.bytes, state.phase)})
        state
    end
  end

  # By the alias of a caller that gave up, or the monitor of one that died.
  defp abandon(state, key) do
    case Calls.id(state.calls, key) do
      {:ok, id} ->
        state = forget(state, id)

        case Outbox.drop(state.outbox, id) do
          {:dropped, outbox} -> %{state | outbox: outbox}
          :absent -> notify(state, "cancel", %{id: id})
        end

      :error ->
        state
    end
  end

  defp cancel(state, key) do
    with {:ok, id} <- Calls.id(state.calls, key),
         {:dropped, outbox} <- Outbox.drop(state.outbox, id) do
      error = Error.new(:cancelled, "the request was cancelled before it was sent")
      finish(%{state | outbox: outbox}, id, {:error, error})
    else
      :absent ->
        {:ok, id} = Calls.id(state.calls, key)
        notify(state, "cancel", %{id: id})

      # It has been answered.
      :error ->
        state
    end
  end

  defp finish(state, id, answer) do
    {:ok, call} = Calls.fetch(state.calls, id)
    if is_reference(call.reply), do: answer(call.reply, answer)
    forget(state, id)
  end

  defp forget(state, id) do
    {_call, calls} = Calls.pop(state.calls, id)
    Callbacks.drop_functions(state.callbacks, id)
    %{state | calls: calls}
  end

  defp answer(ref, answer) do
    send(ref, {ref, answer})
    :ok
  end

  # --- writing ---

  defp notify(state, method, params) do
    {:ok, body} = Message.body(method, params)
    control(state, fn -> Message.notification(body) end, byte_size(body))
  end

  defp respond(state, response), do: control(state, fn -> response end, byte_size(response))

  defp control(state, message, size) do
    case Outbox.put_control(state.outbox, message, size) do
      {:ok, outbox} ->
        transmit(%{state | outbox: outbox})

      :full ->
        Python.kill(state.python)
        python_ended(state, "it asks much and reads nothing")
    end
  end

  # Writes as much as Python takes.
  defp transmit(%{python: nil} = state), do: state
  defp transmit(%{python: %{writing?: true}} = state), do: state

  defp transmit(state) do
    which = if state.phase == :ready, do: :requests, else: :control

    case Outbox.next(state.outbox, which) do
      {{:control, message}, outbox} ->
        write(state, %{state | outbox: outbox}, message.())

      {{:request, id, body, size}, outbox} ->
        state_without = %{state | outbox: outbox}

        if size > peer_limit(state) do
          error = Failure.too_large(size, peer_limit(state))
          transmit(finish(state_without, id, {:error, error}))
        else
          written = %{state_without | calls: Calls.written(state.calls, id)}
          write(state, written, Message.request(id, body.()))
        end

      :none ->
        state
    end
  end

  defp write(unwritten, written, message) do
    case Python.write(unwritten.python, message) do
      {:written, python} -> transmit(%{written | python: python})
      {:writing, python} -> %{written | python: python}
      :closed -> unwritten
    end
  end

  # --- reading ---

  defp event(event, state) do
    case Inbox.read(event, state.max_frame_bytes, state.python.os_pid) do
      {:answer, id, outcome, answer} -> answered(state, id, outcome, answer)
      {:asked, id, frame} -> asked(state, id, frame)
      {:cancel, id} -> cancelled(state, id)
      {:about, id, frame} -> hand_on(state, id, frame)
      {:respond, response} -> respond(state, response)
      {:no_frames, head} -> desynchronised(state, head)
      :nothing -> state
    end
  end

  defp answered(state, id, outcome, answer) do
    case Calls.fetch(state.calls, id) do
      {:ok, %Call{reply: ref} = call} when is_reference(ref) ->
        # Before the answer is known it is written down.
        if outcome == :ok and call.entry, do: record(state.journal, call.entry, answer)
        finish(state, id, answer)

      {:ok, %Call{reply: step}} ->
        answer = with {:ok, frame} <- answer, do: Handshake.read(step, frame)
        state = forget(state, id)

        shake_hands(
          state,
          Handshake.answer(state.handshake, step, answer, fn -> wanted(state) end)
        )

      # It was given up, and crossed its cancel.
      :error ->
        state
    end
  end

  # What cannot be read confirms nothing.
  defp record(journal, entry, {:ok, frame}) do
    with {:ok, entry} <- Inbox.result(frame, &Journal.entry(entry, &1)),
         do: Journal.record(journal, entry)
  end

  # To whoever made the request; after its answer there is nobody.
  defp hand_on(state, id, frame) do
    case Calls.fetch(state.calls, id) do
      {:ok, %Call{reply: ref, listens?: true}} -> answer(ref, {:notification, frame})
      _nobody -> :ok
    end

    state
  end

  # --- functions of the client ---

  defp asked(state, id, frame) do
    case Callbacks.start(state.callbacks, id, frame, peer_limit(state)) do
      {:ok, callbacks} ->
        %{state | callbacks: callbacks}

      # The id is that of a request which has an answer of its own to come.
      {:error, %Error{code: :invalid_request} = error} ->
        respond(state, Message.error_response(nil, error))

      {:error, error} ->
        respond(state, Message.error_response(id, error))
    end
  end

  defp called_back(state, ref, response) do
    case Callbacks.finish(state.callbacks, ref) do
      {:ok, id, callbacks} -> respond(%{state | callbacks: callbacks}, response.(id))
      :error -> state
    end
  end

  defp cancelled(state, id) do
    case Callbacks.cancel(state.callbacks, id) do
      {:ok, callbacks} ->
        error = Error.new(:cancelled, "the bridge cancelled the request")
        respond(%{state | callbacks: callbacks}, Message.error_response(id, error))

      # It crossed with the answer.
      :error ->
        state
    end
  end
end
