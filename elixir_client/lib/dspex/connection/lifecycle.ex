defmodule DSPex.Connection.Lifecycle do
  @moduledoc false
  # Python's coming and going, and what that means to the calls of a connection:
  #
  #     starting --(initialize, configure)--> ready --(draining, all answered)--+
  #        ^  |                                 |                               |
  #        |  +-- failed: waits, longer each    |                               |
  #        |  |   time ----------------> down   |                               |
  #        |  +-- refused: waits for a          |                               |
  #        |      configure -----------> down   |                               |
  #        +------------------------------------+-- ended ----------------------+
  #
  # While starting, requests wait. While down they are refused at once with the reason. A request
  # that was written when Python ended is answered with :connection_lost; one that was not just
  # waits for the next Python.

  require Logger

  alias DSPex.Connection.{
    Callbacks,
    Calls,
    Diagnosis,
    Failure,
    ForkServer,
    Handshake,
    Health,
    News,
    Outbox,
    Outgoing,
    Python,
    State,
    Told
  }

  alias DSPex.{Deadline, Error, Journal, Pool}

  # After a failed start. The longest is what a person who mends the cause may have to wait.
  @first_backoff_ms 100
  @max_backoff_ms 10_000

  # So often a Python may end as soon as it is ready before calls are refused rather than kept
  # waiting: it may have been killed, and once more.
  @early_ends 3

  # And so long it takes at most until another is started: this one could start, after all.
  @early_backoff_ms 1000

  # --- starting ---

  @spec start(State.t()) :: State.t()
  def start(state) do
    state = State.publish(%{state | phase: :starting, proven?: false, draining: nil}, :starting)

    if state.fork_server do
      ForkServer.fork(state.fork_server)
      %{state | asks?: true}
    else
      started(state, Python.open(state.command, state.max_frame_bytes))
    end
  end

  @doc "What the fork server was asked for, or why there is none."
  @spec forked(State.t(), ForkServer.answer()) :: State.t()
  def forked(state, answer) do
    python = with {:ok, forked} <- answer, do: Python.connect(forked, state.max_frame_bytes)

    started(%{state | asks?: false}, python)
  end

  defp started(state, {:ok, python}) do
    Deadline.send_after({:start_timeout, python.port}, state.start_timeout)
    Pool.put_os_pid(state.pool, state.worker, python.os_pid)

    state = %{state | python: python}
    News.started(state)
    shake_hands(state, Handshake.start(state.journal, state.max_frame_bytes, state.log_level))
  end

  defp started(state, {:error, cause, reason}), do: start_failed(state, cause, reason)

  @doc "Goes on with the answer to a question of the handshake."
  @spec handshake_answer(State.t(), Handshake.step(), {:ok, term()} | {:error, Error.t()}) ::
          State.t()
  def handshake_answer(state, step, answer),
    do:
      shake_hands(state, Handshake.answer(state.handshake, step, answer, fn -> wanted(state) end))

  defp shake_hands(state, {:ask, {step, method, body}, handshake}),
    do: Outgoing.ask(%{state | handshake: handshake}, step, method, body)

  defp shake_hands(state, {:ready, handshake}) do
    health = Health.new(state.health_options, state.python.os_pid, now())
    Deadline.send_after({:look, state.python.port}, health.options.interval)
    told = %Told{generation: handshake.generation, configuration: handshake.configuration}
    State.publish(state, :ready)
    News.ready(state)
    # Last: who waited finds it ready, and told.
    Enum.each(state.waiting, &GenServer.reply(&1, :ok))

    %{
      state
      | phase: :ready,
        failure: nil,
        refused: nil,
        waiting: [],
        handshake: handshake,
        health: health,
        told: told
    }
  end

  defp shake_hands(state, {{:failed, cause}, why}) do
    Python.kill(state.python)
    start_failed(state, cause, why)
  end

  defp shake_hands(state, {:refused, why}) do
    Python.kill(state.python)
    start_refused(state, why)
  end

  # The configuration that was refused would be refused again, without what callers want changed.
  defp wanted(state) do
    if state.refused, do: Calls.wanted_configurations(state.calls), else: []
  end

  @doc "Python has answered: what ends it from now on is not its start."
  @spec proven(State.t()) :: State.t()
  def proven(%{proven?: true} = state), do: state
  def proven(state), do: %{state | proven?: true, failures: 0}

  # --- ends ---

  @doc "Python has ended, or is of no more use and has been killed; before it was ready, for this cause."
  @spec ended(State.t(), String.t(), Failure.cause()) :: State.t()
  def ended(state, how, cause \\ :passing)

  def ended(%{phase: :starting} = state, how, cause),
    do: start_failed(state, cause, "it ended before it was ready: #{how}")

  # One that dies as soon as it is ready would be started for ever.
  def ended(%{phase: :ready, proven?: false, failures: failures} = state, how, _cause)
      when failures >= @early_ends do
    News.ended(state, how)
    why = "it ended before it answered anything: #{how}"
    start_failed(state, :passing, why, @early_backoff_ms)
  end

  def ended(%{phase: :ready, proven?: false, failures: failures} = state, how, _cause)
      when failures > 0 do
    delay = min(backoff_ms(failures), @early_backoff_ms)
    text = "Python ended before it answered anything (#{how})"
    Logger.warning("DSPex: #{text}; starting another in #{delay} ms")
    News.ended(state, how)
    Process.send_after(self(), :start, delay)
    %{disconnect(state, text) | phase: :starting, failures: failures + 1}
  end

  def ended(%{phase: :ready} = state, how, _cause) do
    Logger.warning("DSPex: Python (pid #{state.python.os_pid}) ended: #{how}; starting another")
    News.ended(state, how)
    failures = if state.proven?, do: 0, else: 1

    start(%{disconnect(state, "Python ended before it answered (#{how})") | failures: failures})
  end

  @doc "Python has ended by itself, with this status."
  @spec exited(State.t(), non_neg_integer()) :: State.t()
  def exited(state, status) do
    how = Python.exit_text(status)

    if Python.by_itself?(status),
      do: ended_by_itself(state, how),
      else: ended(state, how)
  end

  @doc "Python has ended, and what was written to it found that before its status came."
  @spec pipe_failed(State.t(), term()) :: State.t()
  def pipe_failed(state, reason),
    do: ended_by_itself(state, "its pipe failed (#{inspect(reason)})")

  defp ended_by_itself(%{phase: :starting, python: %{spoke?: false}} = state, how) do
    # Only its stderr, which went elsewhere, says why.
    task = Callbacks.run(state.callbacks, fn -> Diagnosis.run(state.command) end)
    Python.close(state.python)
    %{state | python: nil, diagnosis: {task.ref, how}}
  end

  defp ended_by_itself(state, how), do: ended(state, how)

  @doc "What a diagnosis found: the last that such a Python says."
  @spec diagnosed(State.t(), Diagnosis.t()) :: State.t()
  def diagnosed(%{diagnosis: {ref, how}} = state, {cause, said}) do
    Process.demonitor(ref, [:flush])
    how = if said in [nil, ""], do: how, else: "#{how}: #{said}"
    ended(%{state | diagnosis: nil}, how, cause)
  end

  @doc "Python does not answer, or not in frames: it is killed."
  @spec kill(State.t(), String.t()) :: State.t()
  def kill(state, why) do
    Python.kill(state.python)
    # What writes something else than frames to begin with is no bridge.
    ended(state, why, :lasting)
  end

  @doc "Python was not ready in time."
  @spec start_timeout(State.t()) :: State.t()
  def start_timeout(state) do
    Python.kill(state.python)
    start_failed(state, :passing, "Python was not ready within #{state.start_timeout} ms")
  end

  # Tried again whatever the cause: a person mends it elsewhere, and tells nobody here.
  defp start_failed(state, cause, why, longest \\ @max_backoff_ms) do
    delay = min(backoff_ms(state.failures + 1), longest)
    failure = Failure.start_failed(why, cause)
    Logger.error("DSPex: #{failure.message}; trying again in #{delay} ms")
    News.failed(state, why, delay)

    Process.send_after(self(), :start, delay)
    go_down(%{state | refused: nil}, failure)
  end

  # No timer: only another configuration, or another bridge, can make a difference.
  defp start_refused(state, why) do
    text =
      "#{why}; it stays down until DSPex.configure/2 gives another configuration or the instance is " <>
        "restarted"

    failure = Failure.start_failed(text, :lasting)
    Logger.error("DSPex: #{failure.message}")
    News.failed(state, why, nil)
    refused = state.handshake.configuration || :handshake
    # It may have been changed meanwhile.
    send(self(), :journal_changed)
    go_down(%{state | refused: refused}, failure)
  end

  @doc "What was refused may have been mended at another worker."
  @spec journal_changed(State.t()) :: State.t()
  def journal_changed(%{phase: :down, refused: version} = state) when is_integer(version) do
    case Journal.configuration(state.journal) do
      {_configuration, ^version} -> state
      _another -> start(state)
    end
  end

  def journal_changed(state), do: state

  defp go_down(state, failure) do
    state = State.publish(disconnect(state, "Python ended before it answered"), :down)
    Enum.each(state.waiting, &GenServer.reply(&1, {:error, failure}))
    failures = state.failures + 1
    state = %{state | phase: :down, failures: failures, failure: failure, waiting: []}

    state = %{state | outbox: Outbox.clear_requests(state.outbox)}

    Enum.reduce(Calls.all(state.calls), state, fn {id, call}, state ->
      State.finish(state, id, call, {:error, failure})
    end)
  end

  defp backoff_ms(failures) do
    # The exponent is bounded because the failures are not.
    min(@first_backoff_ms * Integer.pow(2, min(failures - 1, 10)), @max_backoff_ms)
  end

  # Answers what was written, and forgets the process that it was written to.
  defp disconnect(state, why) do
    State.publish(state, :starting)
    Python.close(state.python)
    Pool.put_os_pid(state.pool, state.worker, nil)

    state =
      state.calls
      |> Calls.all()
      |> Enum.reduce(state, fn {id, call}, state ->
        if Outgoing.waits?(state, id, call),
          do: state,
          else: State.finish(state, id, call, {:error, Failure.lost(call.method, why)})
      end)

    %{
      state
      | python: nil,
        handshake: nil,
        health: nil,
        told: nil,
        callbacks: Callbacks.clear(state.callbacks),
        outbox: Outbox.clear_control(state.outbox)
    }
  end

  # --- health ---

  @doc "Time to see how Python is."
  @spec look(State.t()) :: State.t()
  def look(state) do
    Deadline.send_after({:look, state.python.port}, state.health.options.interval)

    case Health.look(state.health, now()) do
      {:stuck, why} -> kill(state, "it was stuck and has been killed: #{why}")
      {:ask, health} -> Outgoing.heartbeat(%{state | health: health})
      {:ok, health} -> %{state | health: health}
      {:suspect, health} -> suspect(%{state | health: health})
    end
  end

  defp suspect(%{draining: nil} = state), do: State.publish(state, :suspect)
  defp suspect(state), do: state

  @doc "Python has written something."
  @spec heard(State.t()) :: State.t()
  def heard(%{health: nil} = state), do: state

  def heard(state) do
    if state.health.asked_at != nil and state.draining == nil, do: State.publish(state, :ready)
    %{state | health: Health.heard(state.health, now())}
  end

  # --- replacement ---

  @doc """
  Has Python replaced once what it works on is done, at the latest after `timeout`. Who is `from` is
  told when the next one is ready, or that it could not be made so.
  """
  @spec replace(State.t(), String.t(), timeout(), GenServer.from() | nil) :: State.t()
  def replace(state, why, timeout, from) do
    state = %{state | waiting: List.wrap(from) ++ state.waiting}

    case state do
      %{phase: :ready, draining: nil} ->
        Deadline.send_after({:drain_timeout, state.python.port}, timeout)
        State.publish(%{state | draining: why}, :draining)

      %{phase: :down} ->
        start(state)

      _under_way ->
        state
    end
  end

  @doc "Replaces a Python that is to be replaced and has nothing more to do."
  @spec replace_if_drained(State.t()) :: State.t()
  def replace_if_drained(%{draining: why, phase: :ready} = state) when why != nil do
    if State.written(state) == 0 do
      Logger.info("DSPex: Python (pid #{state.python.os_pid}) is replaced: #{why}")
      News.ended(state, why)
      state |> disconnect("Python was replaced") |> start()
    else
      state
    end
  end

  def replace_if_drained(state), do: state

  defp now, do: System.monotonic_time(:millisecond)
end
