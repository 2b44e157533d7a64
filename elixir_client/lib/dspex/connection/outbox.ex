defmodule DSPex.Connection.Outbox do
  @moduledoc false
  # What is to be written and is not yet: Python reads slowly, or is not ready. Bounded in bytes.
  # Control messages (the handshake, cancels, refusals) go first and are never held back; requests
  # follow in the order of their ids and can be dropped until they are written.

  # What a message costs beside its own bytes: its place here, and where it is a request the call with
  # its monitor. Many small ones would otherwise take many times what they are counted for.
  @overhead_bytes 512

  @enforce_keys [:limit]
  defstruct [:limit, control: :queue.new(), requests: :gb_trees.empty(), bytes: 0]

  @type t :: %__MODULE__{
          limit: pos_integer(),
          control: :queue.queue(),
          requests: :gb_trees.tree(),
          bytes: non_neg_integer()
        }

  # Opaque to inspect: a request can have a key in it.
  @type body :: (... -> binary())

  @spec new(pos_integer()) :: t()
  def new(limit), do: %__MODULE__{limit: limit}

  @doc "Adds a request; `:full` where it does not fit, which one alone always does."
  @spec put_request(t(), non_neg_integer(), body(), pos_integer()) :: {:ok, t()} | :full
  def put_request(outbox, id, body, size) do
    if outbox.bytes > 0 and outbox.bytes + cost(size) > outbox.limit do
      :full
    else
      requests = :gb_trees.insert(id, {body, size}, outbox.requests)
      {:ok, %{outbox | requests: requests, bytes: outbox.bytes + cost(size)}}
    end
  end

  @doc "Adds a control message, which has a function for what is to be written."
  @spec put_control(t(), (... -> iodata()), pos_integer()) :: {:ok, t()} | :full
  def put_control(outbox, message, size) do
    # Twice the room of requests: a cancel is wanted most when the requests are many. A peer that
    # fills this too asks and never reads.
    if outbox.bytes + cost(size) > 2 * outbox.limit do
      :full
    else
      control = :queue.in({message, size}, outbox.control)
      {:ok, %{outbox | control: control, bytes: outbox.bytes + cost(size)}}
    end
  end

  @doc "Takes back a request that is not yet written."
  @spec drop(t(), non_neg_integer()) :: {:dropped, t()} | :absent
  def drop(outbox, id) do
    case :gb_trees.take_any(id, outbox.requests) do
      {{_body, size}, requests} ->
        {:dropped, %{outbox | requests: requests, bytes: outbox.bytes - cost(size)}}

      :error ->
        :absent
    end
  end

  @doc "Takes what is to be written next. Without `:requests` only control messages are."
  @spec next(t(), :requests | :control) ::
          {{:control, (... -> iodata())} | {:request, non_neg_integer(), body(), pos_integer()},
           t()}
          | :none
  def next(outbox, which) do
    case :queue.out(outbox.control) do
      {{:value, {message, size}}, control} ->
        {{:control, message}, %{outbox | control: control, bytes: outbox.bytes - cost(size)}}

      {:empty, _control} ->
        if which == :control or :gb_trees.is_empty(outbox.requests),
          do: :none,
          else: next_request(outbox)
    end
  end

  defp next_request(outbox) do
    {id, {body, size}, requests} = :gb_trees.take_smallest(outbox.requests)
    {{:request, id, body, size}, %{outbox | requests: requests, bytes: outbox.bytes - cost(size)}}
  end

  @doc "Forgets the control messages, which were for a Python that is gone."
  @spec clear_control(t()) :: t()
  def clear_control(outbox) do
    sizes = for {_message, size} <- :queue.to_list(outbox.control), do: cost(size)
    %{outbox | control: :queue.new(), bytes: outbox.bytes - Enum.sum(sizes)}
  end

  defp cost(size), do: size + @overhead_bytes
end
