defmodule DSPex.Connection.Outgoing do
  @moduledoc false
  # What goes to Python: requests of callers, and what is to be written beside them.
  #
  # Requests are written as fast as Python reads them and as long as it takes more at one time; the
  # others wait, and can be taken back. Before a request Python is told what that needs (see `Told`).

  alias DSPex.Connection.{Callbacks, Calls, Failure, News, Outbox, Python, Request, State, Told}
  alias DSPex.Connection.Calls.Call
  alias DSPex.{Error, Pool, Telemetry}
  alias DSPex.Protocol.Message

  # What the ping that is no caller's carries: for whoever reads along.
  @heartbeat "heartbeat"

  @doc "Takes a request, to be written in its turn."
  @spec enqueue(State.t(), Request.t()) :: State.t()
  def enqueue(state, request) do
    case Outbox.put_request(state.outbox, state.calls.next_id, request.body, request.size) do
      {:ok, outbox} ->
        call = %Call{
          reply: request.ref,
          method: request.method,
          monitor: Process.monitor(request.caller),
          entry: request.entry,
          needs: request.needs,
          since: Telemetry.now(),
          logger: request.functions.logger,
          listens?: request.listens?
        }

        {id, calls} = Calls.add(state.calls, call)
        Callbacks.put_functions(state.callbacks, id, request.functions)
        transmit(%{state | outbox: outbox, calls: calls})

      :full ->
        News.full(state, request.method)
        refuse(state, request, Failure.overloaded(state.outbox.bytes, waits_for(state)))
    end
  end

  defp waits_for(%{phase: :ready} = state) do
    cond do
      state.draining -> :replacement
      state.python.writing? -> :reader
      true -> :answers
    end
  end

  defp waits_for(_starting), do: :start

  @doc "Answers a request that is not taken."
  @spec refuse(State.t(), Request.t(), Error.t()) :: State.t()
  def refuse(state, request, error) do
    State.done(state)
    State.answer(request.ref, {:error, error})
    state
  end

  @doc "Ends a call by the alias of a caller that gave up, or the monitor of one that died."
  @spec abandon(State.t(), reference()) :: State.t()
  def abandon(state, key) do
    case Calls.id(state.calls, key) do
      {:ok, id} ->
        state = State.forget(state, id)

        case Outbox.drop(state.outbox, id) do
          {:dropped, outbox} -> %{state | outbox: outbox}
          :absent -> notify(state, "cancel", %{id: id})
        end

      :error ->
        state
    end
  end

  @doc "Has a call cancelled whose caller waits for what comes of that."
  @spec cancel(State.t(), reference()) :: State.t()
  def cancel(state, key) do
    with {:ok, id} <- Calls.id(state.calls, key),
         {:dropped, outbox} <- Outbox.drop(state.outbox, id) do
      error = Error.new(:cancelled, "the request was cancelled before it was sent")
      State.finish(%{state | outbox: outbox}, id, {:error, error})
    else
      :absent ->
        {:ok, id} = Calls.id(state.calls, key)
        notify(state, "cancel", %{id: id})

      # It has been answered.
      :error ->
        state
    end
  end

  @doc "Lets Python send more chunks to who made a call."
  @spec grant(State.t(), reference(), pos_integer()) :: State.t()
  def grant(state, key, n) do
    case Calls.id(state.calls, key) do
      {:ok, id} -> notify(state, "grant", %{id: id, n: n})
      # It has been answered, and there is no more.
      :error -> state
    end
  end

  @doc "Asks a question of the connection's own, whose answer comes under this step."
  @spec ask(State.t(), term(), String.t(), (... -> binary())) :: State.t()
  def ask(state, step, method, body) do
    {id, calls} = Calls.add(state.calls, %Call{reply: step, method: method, written?: true})
    control(%{state | calls: calls}, fn -> Message.request(id, body.()) end, byte_size(body.()))
  end

  @doc "Asks for a sign of life, which is answered whatever Python does."
  @spec heartbeat(State.t()) :: State.t()
  def heartbeat(state) do
    {:ok, body} = Message.body("ping", %{payload: @heartbeat})
    ask(state, :heartbeat, "ping", fn -> body end)
  end

  @spec respond(State.t(), binary()) :: State.t()
  def respond(state, response), do: control(state, fn -> response end, byte_size(response))

  defp notify(state, method, params) do
    {:ok, body} = Message.body(method, params)
    control(state, fn -> Message.notification(body) end, byte_size(body))
  end

  # Of a Python that is gone there is nobody to tell.
  defp control(%{python: nil} = state, _message, _size), do: state

  defp control(state, message, size) do
    case Outbox.put_control(state.outbox, message, size) do
      {:ok, outbox} ->
        transmit(%{state | outbox: outbox})

      :full ->
        # Told by a message: who called this goes on with the Python that it has.
        send(self(), {:unusable, state.python.port, "it asks much and reads nothing"})
        state
    end
  end

  @doc "Writes as much as Python takes."
  @spec transmit(State.t()) :: State.t()
  def transmit(%{python: nil} = state), do: state
  def transmit(%{python: %{writing?: true}} = state), do: state

  def transmit(state) do
    case Outbox.next(state.outbox, which(state)) do
      {{:control, message}, outbox} ->
        write(state, %{state | outbox: outbox}, message.())

      {{:request, id, body, size}, outbox} ->
        {:ok, call} = Calls.fetch(state.calls, id)
        request(state, outbox, {id, call, body, size})

      :none ->
        tell_change(state)
    end
  end

  # A program that calls back may need an answer before it can go on: what it asks for must not
  # wait for it.
  defp which(%{phase: :ready} = state) do
    if open?(state) or Callbacks.any?(state.callbacks), do: :requests, else: :control
  end

  defp which(_starting), do: :control

  defp open?(state),
    do: state.draining == nil and state.calls.written < state.handshake.peer_max_in_flight

  defp request(state, outbox, {id, call, body, size}) do
    limit = State.peer_limit(state)

    if size > limit do
      error = Failure.too_large(size, limit)
      transmit(State.finish(%{state | outbox: outbox}, id, {:error, error}))
    else
      case Told.next(state.told, state.journal, call.needs) do
        nil ->
          written = %{state | outbox: outbox, calls: Calls.written(state.calls, id)}
          News.written(written, id)
          write(state, written, Message.request(id, body.()))

        step ->
          tell(state, step)
      end
    end
  end

  # No request needs it, and so it is told when there is nothing else.
  defp tell_change(%{phase: :ready, draining: nil} = state) do
    case Told.change(state.told, state.journal) do
      nil -> state
      step -> if open?(state), do: tell(state, step), else: state
    end
  end

  defp tell_change(state), do: state

  defp tell(state, {step, body, told}) do
    call = %Call{reply: step, method: elem(step, 0), written?: true}
    {id, calls} = Calls.add(state.calls, call)
    write(state, %{state | calls: calls, told: told}, Message.request(id, body))
  end

  defp write(unwritten, written, message) do
    case Python.write(unwritten.python, message) do
      {:written, python} -> transmit(%{written | python: python})
      {:writing, python} -> %{written | python: python}
      :closed -> unwritten
    end
  end

  @doc "The steps of `Told` that the programs of a call need were refused: that is its answer."
  @spec load_failed(State.t(), String.t(), Error.t()) :: State.t()
  def load_failed(state, program, error) do
    calls = Calls.update(state.calls, &Call.needs?(&1, program), &%{&1 | failure: error})
    %{state | calls: calls}
  end

  @doc "Nothing is counted for a worker that has nothing to do."
  @spec settle_count(State.t()) :: State.t()
  def settle_count(state) do
    if Calls.none?(state.calls) and
         Process.info(self(), :message_queue_len) == {:message_queue_len, 0},
       do: Pool.idle(state.pool, state.worker)

    state
  end
end
