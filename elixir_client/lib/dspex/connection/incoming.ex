defmodule DSPex.Connection.Incoming do
  @moduledoc false
  # What comes from Python: answers, notifications about calls, and requests for the client's own
  # functions.

  alias DSPex.Connection.{
    Callbacks,
    Calls,
    Handshake,
    Inbox,
    Lifecycle,
    News,
    Outgoing,
    State,
    Told
  }

  alias DSPex.Connection.Calls.Call
  alias DSPex.{Error, Journal, Pool}
  alias DSPex.Protocol.{Framing, Message}

  require Logger

  @spec data(State.t(), binary()) :: State.t()
  def data(%{python: %{port: port}} = state, bytes) do
    {events, decoder} = Framing.feed(state.python.decoder, bytes)
    state = Lifecycle.heard(%{state | python: %{state.python | decoder: decoder, spoke?: true}})

    # One event may be the end of this Python; those after it are then nobody's.
    events(events, port, state)
  end

  defp events([event | events], port, %{python: %{port: port}} = state),
    do: events(events, port, event(event, state))

  defp events(_rest, _port, state), do: state

  defp event(event, state) do
    case Inbox.read(event, state.max_frame_bytes, state.python.os_pid) do
      {:answer, id, outcome, answer} -> answered(state, id, outcome, answer)
      {:asked, id, frame} -> asked(state, id, frame)
      {:cancel, id} -> cancelled(state, id)
      {:about, id, frame} -> hand_on(state, id, frame)
      {:respond, response} -> Outgoing.respond(state, response)
      {:log, params} -> tap(state, &News.log(&1, params))
      {:unhealthy, reason} -> unhealthy(state, reason)
      {:no_frames, head} -> desynchronised(state, head)
      :nothing -> state
    end
  end

  # --- answers ---

  defp answered(state, id, outcome, answer) do
    case Calls.fetch(state.calls, id) do
      {:ok, call} ->
        # What has not been sent has no answer.
        if Outgoing.waits?(state, id, call),
          do: state,
          else: answer(state, id, call, outcome, answer)

      # It was given up, and crossed its cancel.
      :error ->
        state
    end
  end

  defp answer(state, id, %Call{reply: ref} = call, outcome, answer) when is_reference(ref) do
    {state, answer} = state |> Lifecycle.proven() |> settle(call, outcome, answer)
    State.finish(state, id, call, answer)
  end

  defp answer(state, id, %Call{reply: step} = call, _outcome, answer) do
    answer = with {:ok, frame} <- answer, do: Handshake.read(step, frame)
    state |> State.forget(id, call) |> step(step, answer)
  end

  # Before the answer is known it is written down.
  defp settle(state, %Call{entry: entry} = call, :ok, {:ok, frame} = answer) when entry != nil do
    # What cannot be read confirms nothing.
    with {:ok, entry} <- Inbox.result(frame, &Journal.entry(entry, &1)),
         do: record(state, call, entry, answer),
         else: (_unreadable -> {state, answer})
  end

  defp settle(state, %Call{failure: %Error{} = failure}, :error, _answer),
    do: {state, {:error, failure}}

  defp settle(state, _call, _outcome, answer), do: {state, answer}

  defp record(state, _call, entry, answer) do
    case Journal.record(state.journal, entry) do
      {:ok, before, version} ->
        Pool.tell(state.pool, :journal_changed)
        {%{state | told: Told.confirmed(state.told, entry, before, version)}, answer}

      {:error, error} ->
        {unrecorded(state, entry), {:error, error}}
    end
  end

  # What this Python has is not what the journal has. A program is told again; of a configuration nothing
  # can be taken back.
  defp unrecorded(state, {:configure, _params}),
    do: Lifecycle.replace(state, "its configuration was not kept", state.drain_timeout, nil)

  defp unrecorded(state, entry),
    do: %{state | told: Told.refused(state.told, {:load, elem(entry, 1)})}

  defp step(%{phase: :starting} = state, step, answer),
    do: Lifecycle.handshake_answer(state, step, answer)

  defp step(state, :heartbeat, _answer), do: Lifecycle.proven(state)
  defp step(state, _step, {:ok, _result}), do: state

  defp step(state, {:load, program} = step, {:error, error}) do
    Logger.error("DSPex could not make the program #{program} again: #{Exception.message(error)}")

    # Tried again for the next call that needs it.
    %{state | told: Told.refused(state.told, step)}
    |> Outgoing.load_failed(program, error)
  end

  # It was gone before.
  defp step(state, {:forget, _program}, {:error, %Error{code: :not_found}}), do: state

  defp step(state, {kind, _which}, {:error, error}) do
    Logger.error(
      "DSPex: worker #{state.worker} refused a change that another took (#{kind}): " <>
        Exception.message(error)
    )

    state
  end

  # To whoever made the request; after its answer there is nobody.
  defp hand_on(state, id, frame) do
    case Calls.fetch(state.calls, id) do
      {:ok, %Call{reply: ref, listens?: true}} -> State.answer(ref, {:notification, frame})
      _nobody -> :ok
    end

    state
  end

  # --- Python itself ---

  defp unhealthy(state, reason),
    do: Lifecycle.replace(state, "it is unhealthy (#{reason})", state.drain_timeout, nil)

  # The bytes on its stdout are no longer frames, and there is no way back to them.
  defp desynchronised(state, head) do
    shown = inspect(head, printable_limit: 64, limit: 64)
    {executable, args} = state.command

    Lifecycle.kill(
      state,
      "something else than the bridge wrote to its stdout; it went on with #{shown}. " <>
        "Does #{Enum.join([executable | args], " ")} print by itself?"
    )
  end

  # --- functions of the client ---

  defp asked(state, id, frame) do
    limit = if state.handshake, do: State.peer_limit(state), else: state.max_frame_bytes

    case Callbacks.start(state.callbacks, id, frame, limit) do
      {:ok, callbacks} ->
        %{state | callbacks: callbacks}

      # The id is that of a request which has an answer of its own to come.
      {:error, %Error{code: :invalid_request} = error} ->
        Outgoing.respond(state, Message.error_response(nil, error))

      {:error, error} ->
        Outgoing.respond(state, Message.error_response(id, error))
    end
  end

  @doc "A function of the client has answered."
  @spec called_back(State.t(), reference(), (non_neg_integer() -> binary())) :: State.t()
  def called_back(state, ref, response) do
    case Callbacks.finish(state.callbacks, ref) do
      {:ok, id, callbacks} -> Outgoing.respond(%{state | callbacks: callbacks}, response.(id))
      :error -> state
    end
  end

  defp cancelled(state, id) do
    case Callbacks.cancel(state.callbacks, id) do
      {:ok, callbacks} ->
        error = Error.new(:cancelled, "the bridge cancelled the request")
        Outgoing.respond(%{state | callbacks: callbacks}, Message.error_response(id, error))

      # It crossed with the answer.
      :error ->
        state
    end
  end
end
