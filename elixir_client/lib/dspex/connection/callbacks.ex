defmodule DSPex.Connection.Callbacks do
  @moduledoc false
  # The requests of the bridge that are being answered, each in a task of its own under the
  # instance's Task.Supervisor. Everything slow happens in the task; the connection only starts it,
  # kills it, and writes what it answers.

  alias DSPex.Connection.Callback
  alias DSPex.Error

  @enforce_keys [:supervisor, :limit, :context, :functions]
  defstruct @enforce_keys ++ [by_id: %{}, by_ref: %{}]

  @type t :: %__MODULE__{
          supervisor: atom(),
          limit: pos_integer(),
          context: Callback.context(),
          functions: :ets.table(),
          by_id: %{optional(non_neg_integer()) => Task.t()},
          by_ref: %{optional(reference()) => non_neg_integer()}
        }

  @doc "None as yet; at most `limit` at one time. The process that calls this owns what requests bring."
  @spec new(atom(), atom(), atom(), pos_integer()) :: t()
  def new(server, supervisor, journal, limit) do
    functions = :ets.new(__MODULE__, [:protected, read_concurrency: true])
    context = %{server: server, journal: journal, functions: functions}
    %__MODULE__{supervisor: supervisor, limit: limit, context: context, functions: functions}
  end

  @doc "Runs what is no answer to Python beside them: `{ref, result}` comes of it, or the `:DOWN` of `ref`."
  @spec run(t(), (() -> term())) :: Task.t()
  def run(callbacks, fun), do: Task.Supervisor.async_nolink(callbacks.supervisor, fun)

  @doc "Whether Python waits for any."
  @spec any?(t()) :: boolean()
  def any?(callbacks), do: callbacks.by_id != %{}

  @doc """
  Begins to answer a request of the bridge. What comes of it is told by `{ref, response}`, or by the
  `:DOWN` of `ref` where the task has died: both are for `finish/2`.
  """
  @spec start(t(), non_neg_integer(), binary(), pos_integer()) :: {:ok, t()} | {:error, Error.t()}
  def start(callbacks, id, frame, max_frame_bytes) do
    cond do
      is_map_key(callbacks.by_id, id) ->
        {:error, Error.new(:invalid_request, "the id #{id} is in flight", data: %{"id" => id})}

      map_size(callbacks.by_id) >= callbacks.limit ->
        text = "#{callbacks.limit} functions of the client are running already"
        {:error, Error.new(:overloaded, text, retryable: true)}

      true ->
        context = callbacks.context

        task =
          Task.Supervisor.async_nolink(callbacks.supervisor, fn ->
            Callback.answer(id, frame, max_frame_bytes, context)
          end)

        {:ok,
         %{
           callbacks
           | by_id: Map.put(callbacks.by_id, id, task),
             by_ref: Map.put(callbacks.by_ref, task.ref, id)
         }}
    end
  end

  @doc "Forgets the task with this `ref`; gives the id of the request that it was to answer."
  @spec finish(t(), reference()) :: {:ok, non_neg_integer(), t()} | :error
  def finish(callbacks, ref) do
    case callbacks.by_ref do
      %{^ref => id} ->
        Process.demonitor(ref, [:flush])
        {:ok, id, forget(callbacks, id, ref)}

      %{} ->
        :error
    end
  end

  @doc "Kills what answers a request; `:error` where nothing does (any more)."
  @spec cancel(t(), term()) :: {:ok, t()} | :error
  def cancel(callbacks, id) do
    case callbacks.by_id do
      %{^id => task} ->
        kill(task)
        {:ok, forget(callbacks, id, task.ref)}

      %{} ->
        :error
    end
  end

  @doc "Kills all of them, unanswered: who asked is gone."
  @spec clear(t()) :: t()
  def clear(callbacks) do
    Enum.each(callbacks.by_id, fn {_id, task} -> kill(task) end)
    %{callbacks | by_id: %{}, by_ref: %{}}
  end

  # Not by the supervisor, which would wait for it to end.
  defp kill(task) do
    Process.demonitor(task.ref, [:flush])
    Process.exit(task.pid, :kill)
  end

  defp forget(callbacks, id, ref) do
    %{
      callbacks
      | by_id: Map.delete(callbacks.by_id, id),
        by_ref: Map.delete(callbacks.by_ref, ref)
    }
  end

  @doc "Has the functions that came with a request found by its id; whether there are any."
  @spec put_functions(t(), non_neg_integer(), Callback.functions()) :: boolean()
  def put_functions(_callbacks, _id, %{metrics: none, tools: none, logger: []})
      when none == %{},
      do: false

  def put_functions(callbacks, id, functions),
    do: :ets.insert(callbacks.functions, {id, functions})

  @spec drop_functions(t(), non_neg_integer()) :: :ok
  def drop_functions(callbacks, id) do
    :ets.delete(callbacks.functions, id)
    :ok
  end
end
