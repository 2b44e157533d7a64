defmodule DSPex.Connection.Outgoing do
  @moduledoc false
  # What goes to Python: requests of callers, and what is to be written beside them.
  #
  # Requests are written as fast as Python reads them and as long as it takes more at one time; the
  # others wait, and can be taken back. Before a request Python is told what that needs (see `Told`).
  #
  # A write costs the system as much as all that is done here for a request, so what has come together
  # is written together: everything here only puts into the outbox, and the connection has it
  # transmitted once it has nothing else to do.

  alias DSPex.Connection.{
    Batch,
    Callbacks,
    Calls,
    Failure,
    News,
    Outbox,
    Python,
    Request,
    State,
    Told
  }

  alias DSPex.Connection.Calls.Call
  alias DSPex.{Error, Pool, Telemetry}
  alias DSPex.Protocol.Message

  # Watching a caller costs both processes a tenth of a call that is answered at once; for one that takes
  # longer, this much more is nothing.
  @watch_after_ms 50

  # What the ping that is no caller's carries: for whoever reads along.
  @heartbeat "heartbeat"

  @doc "Takes a request, to be written in its turn."
  @spec enqueue(State.t(), Request.t()) :: State.t()
  def enqueue(state, request) do
    # One burst may bring more than there is room for, to a Python that reads it all.
    with :full <- put(state, request),
         state = transmit(state),
         :full <- put(state, request) do
      News.full(state, request.method)
      refuse(state, request, Failure.overloaded(state.outbox.bytes, waits_for(state)))
    else
      {:ok, state} -> state
    end
  end

  defp put(state, request) do
    id = Calls.next_id(state.calls)

    with {:ok, outbox} <-
           Outbox.put_request(state.outbox, {id, request.body, request.size, request.needs}) do
      call = %Call{
        reply: request.ref,
        method: request.method,
        caller: request.caller,
        entry: request.entry,
        needs: request.needs,
        since: Telemetry.now(),
        logger: request.functions.logger,
        size: request.size,
        listens?: request.listens?,
        functions?: Callbacks.put_functions(state.callbacks, id, request.functions)
      }

      {:ok, %{state | outbox: outbox, calls: watch_later(Calls.add(state.calls, call))}}
    end
  end

  defp watch_later(%{watch_due?: true} = calls), do: calls

  defp watch_later(calls) do
    Process.send_after(self(), :watch_callers, @watch_after_ms)
    %{calls | watch_due?: true}
  end

  @doc "Calls that are not answered at once are ended where their caller dies."
  @spec watch_callers(State.t()) :: State.t()
  def watch_callers(state), do: %{state | calls: Calls.watch(%{state.calls | watch_due?: false})}

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

  @doc "Ends a call whose caller gave it up."
  @spec abandon(State.t(), reference()) :: State.t()
  def abandon(state, ref), do: with_call(state, ref, &drop/3)

  @doc "Ends a call whose caller has died."
  @spec caller_down(State.t(), Calls.id()) :: State.t()
  def caller_down(state, id) do
    case Calls.fetch(state.calls, id) do
      {:ok, call} -> drop(state, id, call)
      # It has been answered.
      :error -> state
    end
  end

  defp drop(state, id, call) do
    state = State.forget(state, id, call)

    case Outbox.drop(state.outbox, id, call.size) do
      {:dropped, outbox} -> %{state | outbox: outbox}
      :absent -> state |> unsure(call.entry) |> notify("cancel", %{id: id})
    end
  end

  # What it was to change may have been changed all the same, which nobody is told: a program that the
  # journal has is told again before the next call that needs it.
  defp unsure(%{told: %Told{}} = state, entry)
       when is_tuple(entry) and elem(entry, 0) != :configure,
       do: %{state | told: Told.refused(state.told, {:load, elem(entry, 1)})}

  defp unsure(state, _entry), do: state

  @doc "Has a call cancelled whose caller waits for what comes of that."
  @spec cancel(State.t(), reference()) :: State.t()
  def cancel(state, ref) do
    with_call(state, ref, fn state, id, call ->
      case Outbox.drop(state.outbox, id, call.size) do
        {:dropped, outbox} ->
          error = Error.new(:cancelled, "the request was cancelled before it was sent")
          State.finish(%{state | outbox: outbox}, id, call, {:error, error})

        :absent ->
          notify(state, "cancel", %{id: id})
      end
    end)
  end

  @doc "Lets Python send more chunks to who made a call."
  @spec grant(State.t(), reference(), pos_integer()) :: State.t()
  def grant(state, ref, n),
    do: with_call(state, ref, fn state, id, _call -> notify(state, "grant", %{id: id, n: n}) end)

  defp with_call(state, ref, fun) do
    case Calls.id(state.calls, ref) do
      {{:ok, id}, calls} ->
        {:ok, call} = Calls.fetch(calls, id)
        fun.(%{state | calls: calls}, id, call)

      # It has been answered.
      {:error, calls} ->
        %{state | calls: calls}
    end
  end

  @doc "Asks a question of the connection's own, whose answer comes under this step."
  @spec ask(State.t(), term(), String.t(), (... -> binary())) :: State.t()
  def ask(state, step, method, body) do
    id = Calls.next_id(state.calls)
    calls = Calls.add(state.calls, %Call{reply: step, method: method})
    message = fn -> Message.request(id, body.()) end
    control(%{state | calls: calls}, message, byte_size(body.()), id)
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
  defp control(state, message, size, id \\ nil)
  defp control(%{python: nil} = state, _message, _size, _id), do: state

  defp control(state, message, size, id) do
    case Outbox.put_control(state.outbox, message, size, id) do
      {:ok, outbox} -> %{state | outbox: outbox}
      # One burst may ask for more answers than there is room for, of a Python that reads them all.
      :full -> state |> transmit() |> control_at_last(message, size, id)
    end
  end

  defp control_at_last(state, message, size, id) do
    case Outbox.put_control(state.outbox, message, size, id) do
      {:ok, outbox} ->
        %{state | outbox: outbox}

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
  def transmit(state), do: if(Batch.any?(state), do: write(state), else: state)

  defp write(state) do
    case Batch.gather(state) do
      {:refused, state} ->
        transmit(state)

      {_rest, _state, [], _requests} ->
        state

      {rest, gathered, frames, requests} ->
        case Python.write(state.python, frames) do
          {:written, python} ->
            News.written(gathered, requests)
            state = %{gathered | python: python}
            if rest == :more, do: transmit(state), else: state

          {:writing, python} ->
            News.written(gathered, requests)
            %{gathered | python: python}

          # Nothing of it has been written.
          :closed ->
            state
        end
    end
  end

  @doc "Whether this call is not yet written."
  @spec waits?(State.t(), Calls.id(), Call.t()) :: boolean()
  def waits?(state, id, %Call{reply: ref}) when is_reference(ref),
    do: Outbox.waits?(state.outbox, id)

  def waits?(state, id, _own), do: Outbox.asks?(state.outbox, id)

  @doc "The steps of `Told` that the programs of a call need were refused: that is its answer."
  @spec load_failed(State.t(), String.t(), Error.t()) :: State.t()
  def load_failed(state, program, error) do
    calls = Calls.update(state.calls, &Call.needs?(&1, program), &%{&1 | failure: error})
    %{state | calls: calls}
  end

  @doc "Nothing is counted for a worker that has nothing to do, and no message either."
  @spec settle_count(State.t()) :: State.t()
  def settle_count(state) do
    if Calls.none?(state.calls), do: Pool.idle(state.pool, state.worker)
    state
  end
end
