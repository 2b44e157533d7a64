defmodule DSPex.Connection.Batch do
  @moduledoc false
  # What is written to Python at one time: control messages, then what has changed, then requests, each
  # after what it needs (see `Told`). Nothing here is done but once it is written.

  alias DSPex.Connection.{Callbacks, Calls, Failure, Outbox, State, Told}
  alias DSPex.Connection.Calls.Call
  alias DSPex.Protocol.{Framing, Message}

  # As many bytes as Linux has in a pipe: more does not leave at one time.
  @most_bytes 64 * 1024

  # The frames, the requests among them, and the size. It is taken apart where it grows.
  @nothing {[], [], 0}

  @doc "Whether there may be something to write."
  @spec any?(State.t()) :: boolean()
  def any?(%{outbox: %{bytes: 0}, phase: :ready} = state),
    do: Told.behind?(state.told, state.journal)

  def any?(state), do: state.outbox.bytes > 0

  @doc """
  What is written next, with the state once it is written, and whether there may be `:more`. Or
  `:refused`: a request has been answered, which no write that fails may undo.
  """
  @spec gather(State.t()) ::
          {:all | :more, State.t(), frames :: iodata(), requests :: [Calls.id()]}
          | {:refused, State.t()}
  def gather(state) do
    {outbox, batch} = control(state.outbox, @nothing)

    with {rest, state, {frames, requests, _size}} <- rest(%{state | outbox: outbox}, batch),
         do: {rest, state, frames, Enum.reverse(requests)}
  end

  defp room?({_frames, _requests, size}), do: size < @most_bytes

  defp add({frames, requests, size}, message) do
    bytes = IO.iodata_length(message)
    {[frames, Framing.prefix(bytes) | message], requests, size + bytes}
  end

  defp control(outbox, batch) do
    with true <- room?(batch),
         {message, outbox} <- Outbox.next_control(outbox) do
      control(outbox, add(batch, message.()))
    else
      _full_or_none -> {outbox, batch}
    end
  end

  defp rest(%{phase: :ready} = state, batch) do
    if Outbox.waiting(state.outbox) > stay(state) or open?(state) do
      {state, batch} = changes(state, batch)
      requests(state, state.outbox, batch, stay(state))
    else
      done(state, batch)
    end
  end

  defp rest(starting, batch), do: done(starting, batch)

  defp done(state, batch), do: {if(room?(batch), do: :all, else: :more), state, batch}

  defp changes(state, batch) do
    with true <- room?(batch) and (open?(state) or Callbacks.any?(state.callbacks)),
         {_step, _body, _told} = step <- Told.change(state.told, state.journal) do
      {state, batch} = step(state, batch, step)
      changes(state, batch)
    else
      false -> {state, batch}
      {:unchanged, told} -> {%{state | told: told}, batch}
    end
  end

  defp requests(state, outbox, batch, stay) do
    if room?(batch) and Outbox.waiting(outbox) > stay,
      do: request(state, outbox, batch, stay),
      else: done(%{state | outbox: outbox}, batch)
  end

  defp request(state, outbox, batch, stay) do
    {{id, body, size, needs}, left} = Outbox.next_request(outbox)
    limit = State.peer_limit(state)

    cond do
      size <= limit ->
        case Told.load(state.told, state.journal, needs) do
          nil ->
            {frames, requests, size} = add(batch, Message.request(id, body.()))
            requests(state, left, {frames, [id | requests], size}, stay)

          step ->
            {state, batch} = step(state, batch, step)
            requests(state, outbox, batch, stay(state))
        end

      # What is gathered may yet prove to be unwritten, an answer is given once.
      batch != @nothing ->
        {:more, %{state | outbox: outbox}, batch}

      true ->
        {:ok, call} = Calls.fetch(state.calls, id)
        error = {:error, Failure.too_large(size, limit)}
        {:refused, State.finish(%{state | outbox: left}, id, call, error)}
    end
  end

  # How many requests have to wait. A program that calls back may need an answer before it can go on:
  # what it asks for must not.
  defp stay(state) do
    cond do
      Callbacks.any?(state.callbacks) -> 0
      state.draining -> Outbox.waiting(state.outbox)
      State.peer_max_in_flight(state) == :infinity -> 0
      true -> max(0, Calls.count(state.calls) - State.peer_max_in_flight(state))
    end
  end

  # What no request needs is told, but not by more messages than Python takes at one time.
  defp open?(state),
    do: state.draining == nil and State.written(state) < State.peer_max_in_flight(state)

  defp step(state, batch, {step, body, told}) do
    id = Calls.next_id(state.calls)
    calls = Calls.add(state.calls, %Call{reply: step, method: elem(step, 0)})
    {%{state | calls: calls, told: told}, add(batch, Message.request(id, body))}
  end
end
