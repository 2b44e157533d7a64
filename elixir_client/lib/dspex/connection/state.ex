defmodule DSPex.Connection.State do
  @moduledoc false
  # What a connection knows, and the end of a call, which every part of it comes to.

  alias DSPex.Connection.{Callbacks, Calls, Handshake, Health, Outbox, Python}
  alias DSPex.Connection.Calls.Call
  alias DSPex.{Error, Journal, Pool}

  @enforce_keys [
    :command,
    :journal,
    :pool,
    :worker,
    :max_frame_bytes,
    :start_timeout,
    :log_level,
    :drain_timeout,
    :health_options,
    :outbox,
    :callbacks
  ]
  defstruct @enforce_keys ++
              [
                phase: :down,
                fork_server: nil,
                asks?: false,
                failures: 0,
                failure: nil,
                refused: nil,
                python: nil,
                handshake: nil,
                health: nil,
                proven?: false,
                draining: nil,
                diagnosis: nil,
                waiting: [],
                told: nil,
                burst: 0,
                calls: %Calls{}
              ]

  @typedoc """
    * `:fork_server` - what this worker's Pythons are forked by; `nil` where each is started by itself.
    * `:asks?` - whether it has been asked for one, and has not answered.
    * `:proven?` - whether this Python has answered anything since it was ready.
    * `:draining` - why this Python is to be replaced once its calls have ended.
    * `:refused` - what Python refused at its start: the configuration of this version, or the handshake.
    * `:diagnosis` - the task that finds out why Python cannot start.
    * `:waiting` - who waits for the next Python.
    * `:burst` - how many messages have been taken since something was last written.
    * `:told` - what this Python has been told of the journal (see `DSPex.Connection.Told`).
  """
  @type t :: %__MODULE__{
          command: {String.t(), [String.t()]},
          fork_server: atom() | nil,
          journal: atom(),
          pool: Pool.t(),
          worker: pos_integer(),
          max_frame_bytes: pos_integer(),
          start_timeout: timeout(),
          log_level: String.t() | nil,
          drain_timeout: timeout(),
          health_options: Health.options(),
          outbox: Outbox.t(),
          callbacks: Callbacks.t(),
          phase: :down | :starting | :ready,
          asks?: boolean(),
          failures: non_neg_integer(),
          failure: Error.t() | nil,
          refused: nil | Journal.version() | :handshake,
          python: Python.t() | nil,
          handshake: Handshake.t() | nil,
          health: Health.t() | nil,
          proven?: boolean(),
          draining: String.t() | nil,
          diagnosis: {reference(), how :: String.t()} | nil,
          waiting: [GenServer.from()],
          told: DSPex.Connection.Told.t() | nil,
          burst: non_neg_integer(),
          calls: Calls.t()
        }

  @spec peer_limit(t()) :: pos_integer()
  def peer_limit(state), do: state.handshake.peer_max_frame_bytes

  @doc "How many requests Python takes at one time."
  @spec peer_max_in_flight(t()) :: pos_integer() | :infinity
  def peer_max_in_flight(state), do: state.handshake.peer_max_in_flight

  @doc "How many requests Python has."
  @spec written(t()) :: non_neg_integer()
  def written(state), do: Calls.count(state.calls) - Outbox.waiting(state.outbox)

  @doc "Has callers see how this worker is."
  @spec publish(t(), Pool.status()) :: t()
  def publish(state, status) do
    Pool.put_status(state.pool, state.worker, status)
    state
  end

  @doc "Answers a call, and forgets it."
  @spec finish(t(), Calls.id(), Call.t(), {:ok, binary()} | {:error, Error.t()}) :: t()
  def finish(state, id, call, answer) do
    # Who has its answer sees that this worker has one call less.
    state = forget(state, id, call)
    if is_reference(call.reply), do: answer(call.reply, answer)
    state
  end

  @spec forget(t(), Calls.id(), Call.t()) :: t()
  def forget(state, id, call) do
    if call.functions?, do: Callbacks.drop_functions(state.callbacks, id)
    if is_reference(call.reply), do: done(state)
    %{state | calls: Calls.delete(state.calls, id, call)}
  end

  @doc "A call that was counted for this worker has ended."
  @spec done(t()) :: :ok
  def done(state), do: Pool.done(state.pool, state.worker)

  @doc "Sends a caller what it waits for."
  @spec answer(reference(), term()) :: :ok
  def answer(ref, answer) do
    send(ref, {ref, answer})
    :ok
  end
end
