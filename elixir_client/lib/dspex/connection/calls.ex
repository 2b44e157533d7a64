defmodule DSPex.Connection.Calls do
  @moduledoc false
  # The requests that are not answered yet, by their ids, and by the aliases that their callers wait
  # on.

  defmodule Call do
    @moduledoc false
    # A request of a `caller` (`reply` is its alias) or of the connection itself (`reply` is a step of
    # the handshake or of `Told`). `entry` is for the journal, once it has succeeded. One that listens
    # is handed the notifications about it. `since` is when it came, `logger` its caller's metadata. Of
    # one whose programs could not be made, `failure` says why; one with `functions?` has some in
    # `Callbacks`.
    @enforce_keys [:reply, :method]
    defstruct [
      :reply,
      :method,
      :caller,
      :monitor,
      :entry,
      :failure,
      :since,
      logger: [],
      needs: [],
      size: 0,
      listens?: false,
      functions?: false
    ]

    @type t :: %__MODULE__{
            reply: reference() | term(),
            method: String.t() | atom(),
            caller: pid() | nil,
            monitor: reference() | nil,
            entry: DSPex.Journal.entry() | nil,
            since: integer() | nil,
            logger: keyword(),
            failure: DSPex.Error.t() | nil,
            needs: DSPex.Connection.Told.needs(),
            size: non_neg_integer(),
            listens?: boolean(),
            functions?: boolean()
          }

    @spec needs?(t(), String.t()) :: boolean()
    def needs?(call, program), do: call.needs == :all or program in call.needs
  end

  # Most calls are answered before anybody asks for them by their alias, or their caller dies: those
  # that came since the last `watch/1` are `recent`, and of them alone neither is known yet. Some have
  # been answered. `watch_due?`: a timer will ask for it.
  defstruct next_id: 0, by_id: %{}, by_key: %{}, recent: [], watch_due?: false

  @type id :: non_neg_integer()

  @type t :: %__MODULE__{
          next_id: id(),
          by_id: %{optional(id()) => Call.t()},
          by_key: %{optional(reference()) => id()},
          recent: [id()],
          watch_due?: boolean()
        }

  @doc "The id that the next call will have, which none has had before."
  @spec next_id(t()) :: id()
  def next_id(calls), do: calls.next_id

  @doc "Adds a call, under `next_id/1`."
  @spec add(t(), Call.t()) :: t()
  def add(%{next_id: id} = calls, call) do
    by_id = Map.put(calls.by_id, id, call)
    # The connection's own have no caller to be watched, and nobody to ask for them.
    recent = if call.caller, do: [id | calls.recent], else: calls.recent
    %{calls | next_id: id + 1, by_id: by_id, recent: recent}
  end

  @spec fetch(t(), id()) :: {:ok, Call.t()} | :error
  def fetch(calls, id), do: Map.fetch(calls.by_id, id)

  @doc "The id of the call with this alias, or `:error`; and the calls, where it is found faster."
  @spec id(t(), reference()) :: {{:ok, id()} | :error, t()}
  def id(calls, key) do
    calls = watch(calls)
    {Map.fetch(calls.by_key, key), calls}
  end

  @doc """
  Watches the callers of the `recent` ones that are not answered: one that dies is told by
  `{{:caller_down, id}, ref, :process, pid, reason}`.
  """
  @spec watch(t()) :: t()
  def watch(calls), do: Enum.reduce(calls.recent, %{calls | recent: []}, &watch/2)

  defp watch(id, %{by_id: by_id} = calls) do
    case by_id do
      %{^id => %Call{reply: key, caller: caller} = call} when is_pid(caller) ->
        monitor = :erlang.monitor(:process, caller, tag: {:caller_down, id})
        by_id = %{by_id | id => %{call | monitor: monitor}}
        %{calls | by_id: by_id, by_key: Map.put(calls.by_key, key, id)}

      # It has been answered, or is the connection's own.
      %{} ->
        calls
    end
  end

  @doc "Forgets a call, and no longer watches its caller."
  @spec delete(t(), id(), Call.t()) :: t()
  def delete(calls, id, %Call{monitor: nil}), do: %{calls | by_id: Map.delete(calls.by_id, id)}

  def delete(calls, id, call) do
    # Not flushed, which would look through a mailbox that may be long: what is late finds no call.
    Process.demonitor(call.monitor)
    %{calls | by_id: Map.delete(calls.by_id, id), by_key: Map.delete(calls.by_key, call.reply)}
  end

  @doc "Changes the calls that `which` chooses."
  @spec update(t(), (Call.t() -> boolean()), (Call.t() -> Call.t())) :: t()
  def update(calls, which, change) do
    by_id =
      Map.new(calls.by_id, fn {id, call} ->
        {id, if(which.(call), do: change.(call), else: call)}
      end)

    %{calls | by_id: by_id}
  end

  @spec none?(t()) :: boolean()
  def none?(calls), do: calls.by_id == %{}

  @spec count(t()) :: non_neg_integer()
  def count(calls), do: map_size(calls.by_id)

  @doc "All of them, in no order."
  @spec all(t()) :: [{id(), Call.t()}]
  def all(calls), do: Map.to_list(calls.by_id)

  @doc "The configurations that callers want to have changed, in their order."
  @spec wanted_configurations(t()) :: [DSPex.Config.t()]
  def wanted_configurations(calls),
    do: for({_id, %Call{entry: {:configure, params}}} <- Enum.sort(calls.by_id), do: params)
end
