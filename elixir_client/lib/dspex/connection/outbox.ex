defmodule DSPex.Connection.Outbox do
  @moduledoc false
  # What is to be written and is not yet: the connection has more to do first, Python reads slowly, or
  # is not ready. Bounded in bytes. Control messages (the handshake, cancels, refusals) go first and
  # are never held back; requests follow in the order of their ids and can be dropped until they are
  # written.

  # What a message costs beside its own bytes: its place here, and where it is a request the call with
  # its monitor. Many small ones would otherwise take many times what they are counted for.
  @overhead_bytes 512

  # Requests come and go in the order of their ids, so those from `first` on are here, but for the
  # `dropped`, which their turn takes out of the queue.
  @enforce_keys [:limit]
  defstruct [
    :limit,
    first: 0,
    control: :queue.new(),
    requests: :queue.new(),
    waiting: 0,
    dropped: %{},
    dropped_bytes: 0,
    bytes: 0
  ]

  @type t :: %__MODULE__{
          limit: pos_integer(),
          first: non_neg_integer(),
          control: :queue.queue(),
          requests: :queue.queue(),
          waiting: non_neg_integer(),
          dropped: %{optional(non_neg_integer()) => true},
          dropped_bytes: non_neg_integer(),
          bytes: non_neg_integer()
        }

  # Opaque to inspect: a request can have a key in it.
  @type body :: (... -> binary())

  @typedoc "A request: its id, its body, the size of that, and the programs that it needs."
  @type request :: {non_neg_integer(), body(), pos_integer(), DSPex.Connection.Told.needs()}

  @spec new(pos_integer()) :: t()
  def new(limit), do: %__MODULE__{limit: limit}

  @doc """
  Adds a request, with a higher id than all before it; `:full` where it does not fit, which one alone
  always does.
  """
  @spec put_request(t(), request()) :: {:ok, t()} | :full
  def put_request(outbox, {_id, _body, size, _needs} = request) do
    if outbox.bytes > 0 and outbox.bytes + cost(size) > outbox.limit do
      :full
    else
      {:ok,
       %{
         outbox
         | requests: :queue.in(request, outbox.requests),
           waiting: outbox.waiting + 1,
           bytes: outbox.bytes + cost(size)
       }}
    end
  end

  @doc """
  Adds a control message, which has a function for what is to be written; `id` is that of a question of
  the connection's own.
  """
  @spec put_control(t(), (... -> iodata()), pos_integer(), non_neg_integer() | nil) ::
          {:ok, t()} | :full
  def put_control(outbox, message, size, id) do
    # Twice the room of requests: a cancel is wanted most when the requests are many. A peer that
    # fills this too asks and never reads.
    if outbox.bytes + cost(size) > 2 * outbox.limit do
      :full
    else
      control = :queue.in({id, message, size}, outbox.control)
      {:ok, %{outbox | control: control, bytes: outbox.bytes + cost(size)}}
    end
  end

  @doc """
  Takes back a request of this size, where it is not yet written. Here and for `waits?/2` the id is that
  of one that was put here and not taken back.
  """
  @spec drop(t(), non_neg_integer(), pos_integer()) :: {:dropped, t()} | :absent
  def drop(outbox, id, size) do
    if waits?(outbox, id) do
      outbox = %{
        outbox
        | dropped: Map.put(outbox.dropped, id, true),
          dropped_bytes: outbox.dropped_bytes + cost(size),
          waiting: outbox.waiting - 1,
          bytes: outbox.bytes - cost(size)
      }

      # The queue holds what was dropped, too, until that is more than all else.
      {:dropped, if(outbox.dropped_bytes > outbox.bytes, do: sweep(outbox), else: outbox)}
    else
      :absent
    end
  end

  defp sweep(%{dropped: dropped} = outbox) when dropped == %{}, do: outbox

  defp sweep(outbox) do
    kept =
      :queue.filter(
        fn {id, _body, _size, _needs} -> not is_map_key(outbox.dropped, id) end,
        outbox.requests
      )

    %{outbox | requests: kept, dropped: %{}, dropped_bytes: 0}
  end

  @doc "Whether the request with this id is not yet written."
  @spec waits?(t(), non_neg_integer()) :: boolean()
  def waits?(outbox, id), do: id >= outbox.first and not is_map_key(outbox.dropped, id)

  @doc "Whether the question of the connection's own with this id is not yet written."
  @spec asks?(t(), non_neg_integer()) :: boolean()
  def asks?(outbox, id),
    do: :queue.any(fn {asked, _message, _size} -> asked == id end, outbox.control)

  @doc "How many requests are not yet written."
  @spec waiting(t()) :: non_neg_integer()
  def waiting(outbox), do: outbox.waiting

  @doc "Takes the control message that is to be written next."
  @spec next_control(t()) :: {(... -> iodata()), t()} | :none
  def next_control(outbox) do
    case :queue.out(outbox.control) do
      {{:value, {_id, message, size}}, control} ->
        {message, %{outbox | control: control, bytes: outbox.bytes - cost(size)}}

      {:empty, _control} ->
        :none
    end
  end

  @doc "Takes the request that is to be written next."
  @spec next_request(t()) :: {request(), t()} | :none
  def next_request(outbox) do
    case :queue.out(outbox.requests) do
      {{:value, {id, _body, size, _needs} = request}, requests} ->
        case outbox.dropped do
          %{^id => true} ->
            left = outbox.dropped_bytes - cost(size)
            dropped = Map.delete(outbox.dropped, id)
            next_request(%{outbox | requests: requests, dropped: dropped, dropped_bytes: left})

          %{} ->
            outbox = %{
              outbox
              | requests: requests,
                first: id + 1,
                waiting: outbox.waiting - 1,
                bytes: outbox.bytes - cost(size)
            }

            # After the last one there is no turn in which those behind it would go.
            {request, if(outbox.waiting == 0, do: sweep(outbox), else: outbox)}
        end

      {:empty, _requests} ->
        :none
    end
  end

  @doc "Forgets the requests, which are refused."
  @spec clear_requests(t()) :: t()
  def clear_requests(outbox) do
    empty = new(outbox.limit)
    %{empty | control: outbox.control, bytes: control_bytes(outbox)}
  end

  @doc "Forgets the control messages, which were for a Python that is gone."
  @spec clear_control(t()) :: t()
  def clear_control(outbox),
    do: %{outbox | control: :queue.new(), bytes: outbox.bytes - control_bytes(outbox)}

  defp control_bytes(outbox) do
    sizes = for {_id, _message, size} <- :queue.to_list(outbox.control), do: cost(size)
    Enum.sum(sizes)
  end

  defp cost(size), do: size + @overhead_bytes
end
