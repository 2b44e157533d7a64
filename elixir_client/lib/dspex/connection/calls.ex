defmodule DSPex.Connection.Calls do
  @moduledoc false
  # The requests that are not answered yet, by their ids, and by what else names them: the alias
  # that their callers wait on, and the monitor of the caller.

  defmodule Call do
    @moduledoc false
    # A request of a caller (`reply` is its alias) or of the connection itself (`reply` is a step of
    # the handshake or of `Told`). `entry` is for the journal, once it has succeeded. One that listens
    # is handed the notifications about it. `since` is when it came, `logger` its caller's metadata. Of
    # one whose programs could not be made, `failure` says why.
    @enforce_keys [:reply, :method]
    defstruct [
      :reply,
      :method,
      :monitor,
      :entry,
      :failure,
      :since,
      logger: [],
      needs: [],
      listens?: false,
      written?: false
    ]

    @type t :: %__MODULE__{
            reply: reference() | term(),
            method: String.t() | atom(),
            monitor: reference() | nil,
            entry: DSPex.Journal.entry() | nil,
            since: integer() | nil,
            logger: keyword(),
            failure: DSPex.Error.t() | nil,
            needs: DSPex.Connection.Told.needs(),
            listens?: boolean(),
            written?: boolean()
          }

    @spec needs?(t(), String.t()) :: boolean()
    def needs?(call, program), do: call.needs == :all or program in call.needs
  end

  # `written` is how many of them Python has.
  defstruct next_id: 0, by_id: %{}, by_key: %{}, written: 0

  @type id :: non_neg_integer()

  @type t :: %__MODULE__{
          next_id: id(),
          by_id: %{optional(id()) => Call.t()},
          by_key: %{optional(reference()) => id()},
          written: non_neg_integer()
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
         by_key: Map.merge(calls.by_key, keys),
         written: calls.written + if(call.written?, do: 1, else: 0)
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

    {call,
     %{
       calls
       | by_id: by_id,
         by_key: Map.drop(calls.by_key, [call.reply, call.monitor]),
         written: calls.written - if(call.written?, do: 1, else: 0)
     }}
  end

  @doc "Notes that a request has been written: Python may have begun with it."
  @spec written(t(), id()) :: t()
  def written(calls, id) do
    by_id = Map.update!(calls.by_id, id, &%{&1 | written?: true})
    %{calls | by_id: by_id, written: calls.written + 1}
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

  @spec ids(t(), (Call.t() -> boolean())) :: [id()]
  def ids(calls, which), do: for({id, call} <- calls.by_id, which.(call), do: id)

  @doc "The configurations that callers want to have changed, in their order."
  @spec wanted_configurations(t()) :: [DSPex.Config.t()]
  def wanted_configurations(calls),
    do: for({_id, %Call{entry: {:configure, params}}} <- Enum.sort(calls.by_id), do: params)
end
