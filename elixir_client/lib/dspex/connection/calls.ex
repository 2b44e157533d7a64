defmodule DSPex.Connection.Calls do
  @moduledoc false
  # The requests that are not answered yet, by their ids, and by what else names them: the alias
  # that their callers wait on, and the monitor of the caller.

  defmodule Call do
    @moduledoc false
    # A request of a caller (`reply` is its alias) or of the connection itself (`reply` is a step of
    # the handshake). `entry` is for the journal, once it has succeeded. One that listens is handed
    # the notifications about it.
    @enforce_keys [:reply, :method]
    defstruct [:reply, :method, :monitor, :entry, listens?: false, written?: false]

    @type t :: %__MODULE__{
            reply: reference() | term(),
            method: String.t(),
            monitor: reference() | nil,
            entry: DSPex.Journal.entry() | nil,
            listens?: boolean(),
            written?: boolean()
          }
  end

  defstruct next_id: 0, by_id: %{}, by_key: %{}

  @type id :: non_neg_integer()

  @type t :: %__MODULE__{
          next_id: id(),
          by_id: %{optional(id()) => Call.t()},
          by_key: %{optional(reference()) => id()}
        }

  @doc "Adds a call under an id that none has had before."
  @spec add(t(), Call.t()) :: {id(), t()}
  def add(calls, call) do
    id = calls.next_id
    keys = for key <- [call.reply, call.monitor], is_reference(key), into: %{}, do: {key, id}

    {id,
     %{
       calls
       | next_id: id + 1,
         by_id: Map.put(calls.by_id, id, call),
         by_key: Map.merge(calls.by_key, keys)
     }}
  end

  @spec fetch(t(), id()) :: {:ok, Call.t()} | :error
  def fetch(calls, id), do: Map.fetch(calls.by_id, id)

  @doc "The id of the call with this alias or monitor."
  @spec id(t(), reference()) :: {:ok, id()} | :error
  def id(calls, key), do: Map.fetch(calls.by_key, key)

  @doc "Forgets a call, and no longer watches its caller."
  @spec pop(t(), id()) :: {Call.t(), t()}
  def pop(calls, id) do
    {call, by_id} = Map.pop!(calls.by_id, id)
    if call.monitor, do: Process.demonitor(call.monitor, [:flush])
    {call, %{calls | by_id: by_id, by_key: Map.drop(calls.by_key, [call.reply, call.monitor])}}
  end

  @doc "Notes that a request has been written: Python may have begun with it."
  @spec written(t(), id()) :: t()
  def written(calls, id),
    do: %{calls | by_id: Map.update!(calls.by_id, id, &%{&1 | written?: true})}

  @spec ids(t(), (Call.t() -> boolean())) :: [id()]
  def ids(calls, which), do: for({id, call} <- calls.by_id, which.(call), do: id)

  @doc "The configurations that callers want to have changed, in their order."
  @spec wanted_configurations(t()) :: [DSPex.Config.t()]
  def wanted_configurations(calls),
    do: for({_id, %Call{entry: {:configure, params}}} <- Enum.sort(calls.by_id), do: params)
end
