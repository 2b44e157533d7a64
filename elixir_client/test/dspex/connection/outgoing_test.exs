defmodule DSPex.Connection.OutgoingTest do
  # What goes out, at moments that no Python can be brought to.
  use ExUnit.Case, async: true

  alias DSPex.Connection.{
    Batch,
    Callbacks,
    Calls,
    Handshake,
    Outbox,
    Outgoing,
    Python,
    Request,
    State,
    Told
  }

  alias DSPex.{Error, Journal, Pool}

  @limit 4096

  # Ready, with a port that has just closed: of which the connection has not heard yet.
  defp state do
    id = System.unique_integer([:positive])

    [journal, tasks, table] =
      for part <- [Journal, Tasks, Pool], do: Module.concat([__MODULE__, "I#{id}", part])

    start_supervised!({Journal, name: journal, configuration: %{}, journal: :memory})
    start_supervised!({Task.Supervisor, name: tasks})
    start_supervised!({Pool, name: table, size: 1})
    pool = Pool.fetch(table)
    Pool.join(pool, 1)
    port = Port.open({:spawn_executable, System.find_executable("cat")}, [:binary])
    Port.close(port)

    %State{
      command: {"none", []},
      journal: journal,
      pool: pool,
      worker: 1,
      max_frame_bytes: @limit,
      start_timeout: :infinity,
      log_level: nil,
      drain_timeout: :infinity,
      health_options: %{interval: :infinity, timeout: :infinity, busy_timeout: :infinity},
      outbox: Outbox.new(1_000_000),
      callbacks: Callbacks.new(__MODULE__, tasks, journal, 1),
      phase: :ready,
      python: %Python{port: port, os_pid: nil, writer: self(), decoder: nil, began: 0},
      told: %Told{generation: Journal.generation(journal), configuration: nil},
      handshake: %Handshake{journal: journal, peer_max_frame_bytes: @limit, peer_max_in_flight: 8}
    }
  end

  defp enqueue(state, size) do
    Pool.count({self(), state.pool, state.worker})
    body = String.duplicate("x", size)
    ref = :erlang.alias()

    request = %Request{
      ref: ref,
      caller: self(),
      method: "ping",
      body: fn -> body end,
      size: size,
      entry: nil,
      needs: [],
      listens?: false,
      functions: %{metrics: %{}, tools: %{}, logger: []}
    }

    {ref, Outgoing.enqueue(state, request)}
  end

  test "what has changed is told by no more messages than Python takes at one time" do
    state = state()
    ids = for number <- 1..20, do: "p#{number}"

    for id <- ids,
        do: {:ok, _, _} = Journal.record(state.journal, {:put, id, fn -> "body" end, nil, []})

    {_configuration, version} = Journal.configuration(state.journal)
    told = %{state.told | configuration: version, generation: Journal.generation(state.journal)}
    told = Enum.reduce(ids, told, &elem(Told.load(&2, state.journal, [&1]), 2))
    for id <- ids, do: {:ok, _, _} = Journal.record(state.journal, {:delete, id})

    {:all, state, _frames, []} = Batch.gather(%{state | told: told})
    assert State.written(state) == 8
    # The others follow where there is room again.
    {:all, state, _frames, []} = Batch.gather(%{state | calls: %Calls{}})
    assert State.written(state) == 8
    {:all, state, _frames, []} = Batch.gather(%{state | calls: %Calls{}})
    assert State.written(state) == 4
  end

  test "a request that is too large has one answer, whatever becomes of the next write" do
    {large, state} = enqueue(state(), @limit + 1)
    {small, state} = enqueue(state, 1)

    # Each look writes, and finds the port closed.
    state = state |> Outgoing.transmit() |> Outgoing.transmit()

    assert_received {^large, {:error, %Error{code: :frame_too_large}}}
    refute_received {^large, _again}
    # The other one waits for the next Python, and is counted.
    refute_received {^small, _answer}
    assert Outbox.waiting(state.outbox) == 1
    assert [%{in_flight: 1}] = Pool.workers(state.pool)
  end
end
