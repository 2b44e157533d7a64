defmodule DSPex.PoolTest do
  # Several workers, each of which is the test itself.
  use ExUnit.Case, async: true

  @moduletag :protocol

  import ExUnit.CaptureLog

  alias DSPex.Error
  alias DSPex.Test.{Peer, Scripted}

  import DSPex.Test.Scripted, only: [async: 1, await: 1, created: 1, outputs: 1]

  @moduletag :capture_log

  defp start(size, options \\ []) do
    {listener, command} = Peer.listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    Scripted.start([name: name, command: command, pool_size: size] ++ options)
    {name, listener}
  end

  defp pool(size, options \\ [], limits \\ %{}) do
    {name, listener} = start(size, options)

    accepted = for _ <- 1..size, do: accepted(listener, limits)
    by_os_pid = Map.new(accepted, &{&1.os_pid, &1})
    ready(name, size)
    {:ok, workers} = DSPex.workers(name)
    {name, for(worker <- workers, do: Map.fetch!(by_os_pid, worker.os_pid)), listener}
  end

  defp accepted(listener, limits \\ %{}) do
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake(limits)
    peer
  end

  defp workers(name) do
    {:ok, workers} = DSPex.workers(name)
    workers
  end

  defp ready(name, count) do
    Peer.eventually(fn -> Enum.count(workers(name), &(&1.status == :ready)) == count end)
  end

  defp execute(name, program, options \\ []),
    do: async(fn -> DSPex.execute(name, program, %{q: "?"}, options) end)

  defp create(name, peer, program, options \\ []) do
    task = async(fn -> DSPex.create(name, "q -> a", [program: program] ++ options) end)
    {id, params, peer} = Peer.request(peer, "create")
    Peer.respond(peer, id, created(params))
    assert {:ok, made} = await(task)
    {made, peer}
  end

  # The next execution on a worker, which is answered.
  defp run(peer, answer \\ "!") do
    {id, params, peer} = Peer.request(peer, "execute")
    Peer.respond(peer, id, outputs(%{a: answer}))
    {params, peer}
  end

  defp loaded(peer, program) do
    {id, %{"program" => ^program, "replace" => true} = params, peer} =
      Peer.request(peer, "create")

    Peer.respond(peer, id, created(params))
  end

  test "of two configurations at one time that make a circle of fallbacks one is refused, and changes nothing" do
    {name, listener} = start(2, lms: [a: "demo/knn", b: "demo/knn"])

    peers =
      for _ <- 1..2,
          {_params, peer} = listener |> accepted() |> Peer.accept_configure(),
          into: %{},
          do: {peer.os_pid, peer}

    ready(name, 2)
    [one, two] = for worker <- workers(name), do: Map.fetch!(peers, worker.os_pid)

    stand_in = fn lm, other ->
      async(fn -> DSPex.configure(name, lms: [{lm, [model: "demo/knn", fallbacks: [other]]}]) end)
    end

    # Each Python has one of them, and takes it before it can be told of the other.
    kept = stand_in.(:a, :b)
    {first, _params, one} = Peer.request(one, "configure")
    refused = stand_in.(:b, :a)
    {second, _params, two} = Peer.request(two, "configure")
    Peer.respond(one, first, %{})
    {told, _params, two} = Peer.request(two, "configure")
    two |> Peer.respond(second, %{}) |> Peer.respond(told, %{})

    assert {:ok, %{}} = await(kept)
    assert {:error, %Error{code: :invalid_params, retryable: false} = error} = await(refused)
    assert error.message =~ "lms.b.fallbacks: they lead back to where they began (b → a → b)"
    # What its Python had taken goes with that: the next one is told what is so.
    Peer.wait_gone(two)
    {configured, _peer} = listener |> accepted() |> Peer.accept_configure()
    assert %{"a" => %{"fallbacks" => ["b"]}, "b" => b} = configured["lms"]
    refute b["fallbacks"]
    ready(name, 2)
  end

  describe "calls" do
    test "go to the worker that has least to do" do
      {name, [one, two, three], _listener} = pool(3)

      tasks =
        for peer <- [one, two, three] do
          task = execute(name, "p")
          # Before the next call the worker has this one.
          {id, _params, peer} = Peer.request(peer, "execute")
          {task, peer, id}
        end

      assert Enum.map(workers(name), & &1.in_flight) == [1, 1, 1]
      [{first, one, one_id}, {second, two, two_id}, {third, three, three_id}] = tasks
      Peer.respond(two, two_id, outputs(%{a: 2}))
      assert {:ok, _prediction} = await(second)
      Peer.eventually(fn -> Enum.map(workers(name), & &1.in_flight) == [1, 0, 1] end)

      again = execute(name, "p")
      run(two)
      assert {:ok, _prediction} = await(again)
      Peer.respond(one, one_id, outputs(%{a: 1}))
      Peer.respond(three, three_id, outputs(%{a: 3}))
      assert {:ok, _prediction} = await(first)
      assert {:ok, _prediction} = await(third)
    end

    test "do not go to a worker that is starting while another is ready" do
      {name, listener} = start(2)
      peer = accepted(listener)
      _starting = Peer.accept(listener)
      ready(name, 1)

      for _ <- 1..3, reduce: peer do
        peer ->
          first = execute(name, "p")
          second = execute(name, "p")
          {_params, peer} = run(peer)
          {_params, peer} = run(peer)
          assert {:ok, _prediction} = await(first)
          assert {:ok, _prediction} = await(second)
          peer
      end
    end

    test "wait where their worker has as many as it takes, and are refused where the queue is full" do
      {name, [peer], _listener} = pool(1, [max_queued_bytes: 2000], %{max_in_flight: 2})

      [first, second, third] =
        for n <- 1..3 do
          task = execute(name, "p#{n}")
          Peer.eventually(fn -> hd(workers(name)).in_flight == n end)
          task
        end

      {one, %{"program" => "p1"}, peer} = Peer.request(peer, "execute")
      {two, %{"program" => "p2"}, peer} = Peer.request(peer, "execute")
      assert Peer.silent?(peer, 50)

      {:error, error} = fill(name)
      assert %Error{code: :overloaded, retryable: true} = error
      assert error.message =~ "Python works on as many as it takes at one time"

      # What waited and is no longer wanted is never sent.
      Peer.respond(peer, one, outputs(%{a: 1}))
      {three, %{"program" => "p3"}, peer} = Peer.request(peer, "execute")
      Peer.respond(peer, two, outputs(%{a: 2}))
      Peer.respond(peer, three, outputs(%{a: 3}))
      for task <- [first, second, third], do: assert({:ok, _prediction} = await(task))
    end

    # More calls than there is room for; gives what the first that is refused is told.
    defp fill(name) do
      tasks = for _ <- 1..10, do: async(fn -> DSPex.execute(name, "p", %{}) end)

      {:ok, {answer, _messages}} =
        Peer.eventually(fn -> Enum.find_value(tasks, &Task.yield(&1, 0)) end)

      Enum.each(tasks, &Task.shutdown(&1, :brutal_kill))
      answer
    end

    test "of a caller that dies are cancelled, and no longer counted" do
      {name, [one, _two], _listener} = pool(2)
      caller = spawn(fn -> DSPex.execute(name, "p", %{}) end)
      {id, _params, one} = Peer.request(one, "execute")
      assert Enum.map(workers(name), & &1.in_flight) == [1, 0]
      Process.exit(caller, :kill)
      assert {{:notification, "cancel", %{"id" => ^id}}, _one} = Peer.next(one)
      Peer.eventually(fn -> Enum.map(workers(name), & &1.in_flight) == [0, 0] end)
    end

    test "are made again only where that is asked for" do
      {name, [one, two], listener} = pool(2)
      task = execute(name, "p")
      {_id, _params, one} = Peer.request(one, "execute")
      Peer.kill(one)
      assert {:error, %Error{code: :connection_lost, retryable: false}} = await(task)

      one = accepted(listener)
      ready(name, 2)
      task = execute(name, "p", retry: 1)
      {_id, _params, one} = Peer.request(one, "execute")
      Peer.kill(one)
      run(two)
      assert {:ok, _prediction} = await(task)
    end

    test "that were not sent go to another worker where theirs cannot be made ready" do
      {name, listener} = start(2)
      one = Peer.accept(listener)
      two = Peer.accept(listener)
      task = execute(name, "p")
      Peer.eventually(fn -> Enum.any?(workers(name), &(&1.in_flight == 1)) end)
      busy = Enum.find(workers(name), &(&1.in_flight == 1)).os_pid
      [first, second] = if one.os_pid == busy, do: [one, two], else: [two, one]

      {_hello, second} = Peer.handshake(second)
      ready(name, 1)
      Peer.kill(first)
      run(second)
      assert {:ok, _prediction} = await(task)
    end
  end

  describe "a program" do
    test "is loaded on a worker when it is first needed there" do
      {name, [one, two], _listener} = pool(2)
      {_program, one} = create(name, one, "qa")
      first = execute(name, "qa")
      {id, _params, one} = Peer.request(one, "execute")
      second = execute(name, "qa")
      two = loaded(two, "qa")
      {_params, two} = run(two)
      assert {:ok, _prediction} = await(second)

      # Once.
      third = execute(name, "qa")
      run(two)
      assert {:ok, _prediction} = await(third)
      Peer.respond(one, id, outputs(%{a: "!"}))
      assert {:ok, _prediction} = await(first)
    end

    test "that is replaced or deleted is so on all workers, and its revision grows" do
      {name, [one, two], _listener} = pool(2)
      {%{revision: 1}, one} = create(name, one, "qa")
      first = execute(name, "qa")
      {id, _params, one} = Peer.request(one, "execute")
      second = execute(name, "qa")
      {_params, two} = two |> loaded("qa") |> run()
      assert {:ok, _prediction} = await(second)

      # Whatever the worker counts.
      {%{revision: 2}, two} = create(name, two, "qa", replace: true, instructions: "anew")
      Peer.respond(one, id, outputs(%{a: "old"}))
      assert {:ok, _prediction} = await(first)

      task = execute(name, "qa")
      {load, %{"instructions" => "anew"} = params, one} = Peer.request(one, "create")
      Peer.respond(one, load, created(params))
      {_params, one} = run(one)
      assert {:ok, _prediction} = await(task)

      task = async(fn -> DSPex.delete(name, "qa") end)
      {id, _params, one} = Peer.request(one, "delete")
      Peer.respond(one, id, %{deleted: true})
      assert await(task) == :ok
      assert {id, %{"program" => "qa"}, two} = Peer.request(two, "delete")
      Peer.respond(two, id, %{deleted: true})
      assert Peer.silent?(one, 50)
    end

    test "of the same id as another worker's is refused" do
      {name, [one, two], _listener} = pool(2)
      first = async(fn -> DSPex.create(name, "q -> a", program: "qa") end)
      {one_id, one_params, one} = Peer.request(one, "create")
      second = async(fn -> DSPex.create(name, "q -> b", program: "qa") end)
      {two_id, two_params, two} = Peer.request(two, "create")
      Peer.respond(one, one_id, created(one_params))
      assert {:ok, _program} = await(first)
      Peer.respond(two, two_id, created(two_params))
      assert {:error, %Error{code: :already_exists}} = await(second)

      # What it made is replaced by what there is.
      _busy = execute(name, "other")
      Peer.request(one, "execute")
      task = execute(name, "qa")
      {_params, _two} = two |> loaded("qa") |> run()
      assert {:ok, _prediction} = await(task)
    end

    test "that was made on another worker is in the list and can be described" do
      {name, [one, two], _listener} = pool(2)
      {_program, one} = create(name, one, "qa")
      _busy = execute(name, "other")
      {_id, _params, _one} = Peer.request(one, "execute")
      list = async(fn -> DSPex.list(name) end)
      two = loaded(two, "qa")
      {id, _params, two} = Peer.request(two, "list")
      Peer.respond(two, id, %{programs: [%{program: "qa", revision: 7}]})
      assert await(list) == {:ok, [%{"program" => "qa", "revision" => 1}]}
    end
  end

  test "a configuration reaches every worker" do
    {name, [one, two], _listener} = pool(2)
    task = async(fn -> DSPex.configure(name, lms: [main: "demo/knn"]) end)
    {id, params, one} = Peer.request(one, "configure")
    Peer.respond(one, id, %{})
    assert {:ok, %{}} = await(task)
    {id, %{"lms" => lms}, two} = Peer.request(two, "configure")
    assert lms == params["lms"]
    Peer.respond(two, id, %{})
    assert Peer.silent?(one, 50)
  end

  describe "a restart" do
    test "replaces one worker after the other and loses no call" do
      {name, [one, two], listener} = pool(2)
      running = execute(name, "p")
      {id, _params, one} = Peer.request(one, "execute")
      restart = async(fn -> DSPex.restart(name) end)
      Peer.eventually(fn -> hd(workers(name)).status == :draining end)

      # Meanwhile the other takes the calls.
      for _ <- 1..2, reduce: two do
        two ->
          task = execute(name, "p")
          {_params, two} = run(two)
          assert {:ok, _prediction} = await(task)
          two
      end

      Peer.respond(one, id, outputs(%{a: "done"}))
      assert {:ok, _prediction} = await(running)
      Peer.wait_gone(one)
      accepted(listener)
      Peer.wait_gone(two)
      accepted(listener)
      assert await(restart) == :ok
      assert Enum.all?(workers(name), &(&1.status == :ready))
    end

    test "of a single worker has its calls wait, but for those that Python itself waits for" do
      {name, [one], listener} = pool(1)
      tool = DSPex.Tool.new(:ask, "", [], fn _ -> DSPex.ping(name, payload: 7) end)
      task = async(fn -> DSPex.create(name, "q -> a", program: "agent", tools: [tool]) end)
      {id, params, one} = Peer.request(one, "create")
      Peer.respond(one, id, created(params))
      assert {:ok, _program} = await(task)
      running = execute(name, "agent")
      {id, _params, one} = Peer.request(one, "execute")
      restart = async(fn -> DSPex.restart(name) end)
      Peer.eventually(fn -> hd(workers(name)).status == :draining end)
      # One that was counted in the moment in which the worker found itself idle is not counted.
      before = hd(workers(name)).in_flight
      waiting = execute(name, "p")
      Peer.eventually(fn -> hd(workers(name)).in_flight == before + 1 end)

      Peer.message(one, [
        0,
        9,
        "call_tool",
        %{program: "agent", tool: "ask", args: %{}, meta: %{}}
      ])

      one = nested(one)
      Peer.respond(one, id, outputs(%{a: "done"}))
      assert {:ok, _prediction} = await(running)

      assert {:ok, _prediction} = await(waiting)
      accepted(listener)
      assert await(restart) == :ok
    end

    # What waits may be sent with what is nested: Python is not left before it has answered both.
    defp nested(peer) do
      case Peer.next(peer) do
        {{:request, id, "ping", %{"payload" => 7}}, peer} ->
          Peer.respond(peer, id, %{payload: 7})
          nested(peer)

        {{:request, id, "execute", _params}, peer} ->
          Peer.respond(peer, id, outputs(%{a: "early"}))
          nested(peer)

        {{:response, 9, {:ok, 7}}, peer} ->
          peer
      end
    end

    test "ends calls that take longer than they may" do
      {name, [one], listener} = pool(1)
      running = execute(name, "p")
      {_id, _params, one} = Peer.request(one, "execute")
      restart = async(fn -> DSPex.restart(name, drain_timeout: 10) end)
      assert {:error, %Error{code: :connection_lost}} = await(running)
      Peer.wait_gone(one)
      accepted(listener)
      assert await(restart) == :ok
    end

    test "that fails says why" do
      {name, [one], listener} = pool(1)
      restart = async(fn -> DSPex.restart(name) end)
      Peer.wait_gone(one)
      {id, _hello, two} = listener |> Peer.accept() |> Peer.request("initialize")
      Peer.fail(two, id, "overloaded")
      assert {:error, %Error{code: :start_failed}} = await(restart)
    end
  end

  test "a worker that is unhealthy is replaced once its calls are answered" do
    {name, [one], listener} = pool(1)
    running = execute(name, "p")
    {id, _params, one} = Peer.request(one, "execute")

    log =
      capture_log([level: :info], fn ->
        Peer.message(one, [2, "unhealthy", %{reason: "memory"}])
        Peer.eventually(fn -> hd(workers(name)).status == :draining end)
        Peer.respond(one, id, outputs(%{a: "!"}))
        assert {:ok, _prediction} = await(running)
        accepted(listener)
      end)

    assert log =~ "is unhealthy: memory"
    assert log =~ "is replaced: it is unhealthy (memory)"
  end

  test "nonsense sent to a worker does not end it" do
    {name, [one], _listener} = pool(1)
    [%{pid: pid}] = workers(name)

    for cast <- [:nonsense, {:request, %{}}, {:abandon, 1, 2}, {:grant, make_ref(), :many}],
        do: GenServer.cast(pid, cast)

    send(pid, :nonsense)
    assert GenServer.call(pid, :nonsense) == {:error, :unknown_call}
    task = async(fn -> DSPex.ping(name, payload: 1) end)
    {id, _params, one} = Peer.request(one, "ping")
    Peer.respond(one, id, %{payload: 1})
    assert await(task) == {:ok, 1}
    assert [%{pid: ^pid}] = workers(name)
  end
end
