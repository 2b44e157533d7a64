defmodule DSPex.CallbacksTest do
  # The application's own functions, called by a bridge that the test plays.
  use ExUnit.Case, async: true

  @moduletag :protocol

  import DSPex.Test.Scripted
  import ExUnit.CaptureLog

  alias DSPex.Protocol.{Codec, Message}
  alias DSPex.Test.Peer
  alias DSPex.Tool

  @moduletag :capture_log

  @patience_ms patience_ms()

  # An instance with a program that has these tools and is being executed.
  defp agent(tools, options \\ [], limits \\ %{}) do
    {name, peer, listener} = ready(options, limits)

    {_program, params, peer} =
      create(name, peer, "question -> answer", program: "agent", module: :react, tools: tools)

    execution = async(fn -> DSPex.execute(name, "agent", %{question: "?"}) end)
    {id, _params, peer} = Peer.request(peer, "execute")
    %{name: name, peer: peer, listener: listener, run: id, execution: execution, created: params}
  end

  defp call(agent, id, tool, args \\ %{}) do
    about = %{program: "agent", request: agent.run, meta: %{"trace" => "t1"}}
    Peer.message(agent.peer, [0, id, "call_tool", Map.merge(about, %{tool: tool, args: args})])
    agent
  end

  # What the client answers next, and to which request.
  defp answer(agent) do
    {{:response, id, result}, peer} = Peer.next(agent.peer)
    {id, result, %{agent | peer: peer}}
  end

  # A tool that says where it runs and waits to be told what to return.
  defp waiting(test, name \\ :wait) do
    Tool.new(name, "Waits.", [n: {:integer, default: 0}], fn args ->
      send(test, {:waiting, Map.get(args, :n, 0), self()})

      receive do
        {:return, value} -> value
      end
    end)
  end

  defp assert_dead(pid) do
    monitor = Process.monitor(pid)
    assert_receive {:DOWN, ^monitor, :process, ^pid, reason}, @patience_ms
    assert reason in [:killed, :noproc]
  end

  describe "a tool" do
    test "is told to the bridge without its function, and answers with its result" do
      tool =
        Tool.new(:add, "Adds.", [a: :integer, b: {:integer, default: 1, min: 0}], fn args ->
          args.a + args.b
        end)

      agent = agent([tool])

      assert agent.created["tools"] == [
               %{
                 "name" => "add",
                 "description" => "Adds.",
                 "parameters" => [
                   %{"name" => "a", "type" => "int"},
                   %{
                     "name" => "b",
                     "type" => "int",
                     "default" => 1,
                     "constraints" => %{"min" => 0}
                   }
                 ]
               }
             ]

      assert {7, {:ok, 5}, _agent} = agent |> call(7, "add", %{a: 2, b: 3}) |> answer()
    end

    test "may be a map of its parts" do
      run = fn %{word: word} -> String.upcase(word) end
      tool = %{name: :shout, description: "Shouts.", parameters: [word: :string], run: run}
      agent = agent([tool]) |> call(0, "shout", %{word: "hey"})
      assert {0, {:ok, "HEY"}, _agent} = answer(agent)
    end

    test "gets its arguments converted, under the names it declared and no other atoms" do
      parameters = [{:due, :date}, {:kind, {:one_of, [:task, :idea]}}]
      tool = Tool.new(:note, "Notes.", parameters, &{:ok, inspect(Enum.sort(&1))})

      args = %{"due" => "2024-02-29", "kind" => "idea", "never_an_atom_7d1f" => 1}
      agent = agent([tool]) |> call(1, "note", args)

      assert {1, {:ok, text}, agent} = answer(agent)

      assert text ==
               ~s([{:due, ~D[2024-02-29]}, {:kind, :idea}, {"never_an_atom_7d1f", 1}])

      call(agent, 2, "note", %{due: "yesterday"})
      assert {2, {:error, error}, _agent} = answer(agent)
      assert {error.code, error.message} == {:invalid_params, "args.due: expected date"}
    end

    test "with two parameters is told for what it is called" do
      test = self()

      tool =
        Tool.new(:look, "Looks.", [], fn args, context -> send(test, {args, context}) && 1 end)

      agent = agent([tool]) |> call(1, "look")
      assert {1, {:ok, 1}, _agent} = answer(agent)

      assert_received {%{}, context}

      assert context == %{
               server: agent.name,
               program: "agent",
               request: agent.run,
               tool: "look",
               meta: %{"trace" => "t1"}
             }
    end

    test "with a JSON Schema gets its arguments under strings" do
      schema = %{"type" => "object", "properties" => %{"x" => %{"type" => "integer"}}}
      agent = agent([Tool.new("twice", "Doubles.", schema, &(&1["x"] * 2))])
      assert [%{"parameters" => ^schema}] = agent.created["tools"]
      assert {1, {:ok, 42}, _agent} = agent |> call(1, "twice", %{x: 21}) |> answer()
    end

    test "runs beside others, and they are answered as they end" do
      agent = agent([waiting(self())])
      for n <- 1..20, do: call(agent, n, "wait", %{n: n})

      pids =
        for n <- 1..20 do
          assert_receive {:waiting, ^n, pid}, @patience_ms
          {n, pid}
        end

      Enum.reduce(Enum.shuffle(pids), agent, fn {n, pid}, agent ->
        send(pid, {:return, n * n})
        assert {^n, {:ok, square}, agent} = answer(agent)
        assert square == n * n
        agent
      end)
    end

    test "may call the instance, also the program that called it, and have its own tools called" do
      nest =
        Tool.new(:nest, "Asks again.", [n: :integer], fn %{n: n}, context ->
          DSPex.execute!(context.server, context.program, %{question: "#{n}"})["answer"]
        end)

      agent = agent([nest, Tool.new(:add, "Adds.", [a: :integer], &(&1.a + 1))])
      call(agent, 0, "nest", %{n: 5})

      {inner, %{"program" => "agent", "inputs" => inputs}, peer} =
        Peer.request(agent.peer, "execute")

      assert inputs == %{"question" => "5"}

      # The ids of the two sides have nothing to do with one another.
      agent = call(%{agent | peer: peer, run: inner}, inner, "add", %{a: 1})
      assert {^inner, {:ok, 2}, agent} = answer(agent)
      Peer.respond(agent.peer, inner, outputs(%{answer: "from within"}))
      assert {0, {:ok, "from within"}, _agent} = answer(agent)
    end

    test "that fails is an error with its reason, and of an exception the message alone" do
      tools = [
        Tool.new(:refuse, "", [], fn _ -> {:error, "no such page"} end),
        Tool.new(:reason, "", [], fn _ -> {:error, {:http, 404}} end),
        Tool.new(:struct, "", [], fn _ -> {:error, %RuntimeError{message: "gone"}} end),
        Tool.new(:raise, "", [], fn _ -> raise "the disk is full" end),
        Tool.new(:exit, "", [], fn _ -> exit({:secret, "in the reason"}) end),
        Tool.new(:throw, "", [], fn _ -> throw(:ball) end),
        Tool.new(:bytes, "", [], fn _ -> raise <<255, 254>> end),
        Tool.new(:long, "", [], fn _ -> raise String.duplicate("ä", 100_000) end)
      ]

      agent = agent(tools)

      log =
        capture_log(fn ->
          for {tool, text} <- [
                {"refuse", "no such page"},
                {"reason", "{:http, 404}"},
                {"struct", "gone"},
                {"raise", "the disk is full"},
                {"exit", "the tool exit ended early (exit); the client's log says more"},
                {"throw", "the tool throw ended early (throw); the client's log says more"},
                {"bytes", "<<255, 254>>"},
                {"long", String.duplicate("ä", 2000)}
              ],
              reduce: agent do
            agent ->
              call(agent, 3, tool)
              assert {3, {:error, error}, agent} = answer(agent)
              assert {error.code, error.message, error.data} == {:tool_error, text, %{}}
              agent
          end
        end)

      assert log =~ "the tool raise failed: ** (RuntimeError) the disk is full"
      assert log =~ "callbacks_test.exs"
      assert log =~ "in the reason"
    end

    test "with a result that has no form on the wire, or too long a one, says so" do
      tools = [
        Tool.new(:tuple, "", [], fn _ -> %{"a" => [1, {2, 3}]} end),
        Tool.new(:long, "", [], fn _ -> String.duplicate("x", 5000) end),
        Tool.new(:ok, "", [], fn _ -> {:ok, nil} end)
      ]

      agent = agent(tools, [], %{max_frame_bytes: 4096})
      assert {1, {:error, error}, agent} = agent |> call(1, "tuple") |> answer()

      assert {error.code, error.message} ==
               {:tool_error,
                "the result cannot be sent: a[1]: a tuple has no form on the wire; use a list"}

      assert {2, {:error, error}, agent} = agent |> call(2, "long") |> answer()
      assert {error.code, error.data["limit"]} == {:frame_too_large, 4096}
      assert {3, {:ok, nil}, _agent} = agent |> call(3, "ok") |> answer()
    end

    test "that nobody has is not found" do
      agent = agent([waiting(self())])
      assert {1, {:error, error}, agent} = agent |> call(1, "wiat") |> answer()
      assert {error.code, error.data} == {:not_found, %{"kind" => "tool", "name" => "wiat"}}

      Peer.message(agent.peer, [0, 2, "call_tool", %{program: "other", tool: "wait", args: %{}}])
      assert {2, {:error, %{code: :not_found}}, agent} = answer(agent)

      Peer.message(agent.peer, [0, 3, "call_tool", %{program: ["agent"], tool: 5, args: %{}}])
      assert {3, {:error, %{code: :not_found}}, agent} = answer(agent)

      Peer.message(agent.peer, [0, 4, "call_tool", %{tool: "wait"}])
      assert {4, {:error, %{code: :invalid_params}}, _agent} = answer(agent)
    end

    test "is killed when the bridge cancels it, and answered with cancelled, once" do
      agent = agent([waiting(self())])
      call(agent, 5, "wait")
      assert_receive {:waiting, 0, pid}, @patience_ms
      Peer.message(agent.peer, [2, "cancel", %{id: 5}])
      Peer.message(agent.peer, [2, "cancel", %{id: 5}])
      Peer.message(agent.peer, [2, "cancel", %{id: 99}])
      Peer.message(agent.peer, [2, "cancel", %{}])
      assert {5, {:error, %{code: :cancelled}}, agent} = answer(agent)
      assert_dead(pid)

      # The id is free again.
      call(agent, 5, "wait")
      assert_receive {:waiting, 0, pid}, @patience_ms
      send(pid, {:return, "again"})
      assert {5, {:ok, "again"}, _agent} = answer(agent)
    end

    test "that is killed takes its own calls with it" do
      nest =
        Tool.new(:nest, "", [], fn _, context ->
          DSPex.execute(context.server, "agent", %{question: "?"})
        end)

      agent = agent([nest]) |> call(5, "nest")
      {inner, _params, peer} = Peer.request(agent.peer, "execute")
      Peer.message(peer, [2, "cancel", %{id: 5}])

      told =
        for _ <- 1..2, reduce: {[], peer} do
          {told, peer} ->
            {message, peer} = Peer.next(peer)
            {[message | told], peer}
        end

      {messages, _peer} = told
      assert Enum.any?(messages, &match?({:notification, "cancel", %{"id" => ^inner}}, &1))
      assert Enum.any?(messages, &match?({:response, 5, {:error, %{code: :cancelled}}}, &1))
    end

    test "that another process kills is answered all the same" do
      agent = agent([waiting(self())]) |> call(5, "wait")
      assert_receive {:waiting, 0, pid}, @patience_ms
      Process.exit(pid, :kill)
      assert {5, {:error, error}, _agent} = answer(agent)

      assert {error.code, error.message} ==
               {:tool_error, "the client's function ended before it answered"}
    end

    test "is killed and unanswered when Python ends, and the next Python still has it" do
      agent = agent([waiting(self())]) |> call(5, "wait")
      assert_receive {:waiting, 0, pid}, @patience_ms
      Peer.kill(agent.peer)
      assert_dead(pid)
      assert {:error, %{code: :connection_lost}} = await(agent.execution)

      {_hello, peer} = agent.listener |> Peer.accept() |> Peer.handshake()
      execution = async(fn -> DSPex.execute(agent.name, "agent", %{question: "?"}) end)
      {id, params, peer} = Peer.request(peer, "create")
      assert params["tools"] == agent.created["tools"]
      Peer.respond(peer, id, created(params))
      {run, _params, peer} = Peer.request(peer, "execute")

      agent = call(%{agent | peer: peer}, 5, "wait")
      assert_receive {:waiting, 0, pid}, @patience_ms
      send(pid, {:return, "still there"})
      # Nothing of the first call came before it.
      assert {5, {:ok, "still there"}, agent} = answer(agent)
      Peer.respond(agent.peer, run, outputs(%{answer: "done"}))
      assert {:ok, _prediction} = await(execution)
    end

    test "is killed when the instance stops" do
      agent = agent([waiting(self())]) |> call(5, "wait")
      assert_receive {:waiting, 0, pid}, @patience_ms
      stop_supervised!(agent.name)
      assert_dead(pid)
      assert {:error, %{code: :not_started}} = await(agent.execution)
    end

    test "is gone with its program, and another's with a replacement" do
      agent = agent([Tool.new(:one, "", [], fn _ -> 1 end)])
      %{name: name, peer: peer} = agent

      two = [Tool.new(:two, "", [], fn _ -> 2 end)]
      options = [program: "agent", tools: two, replace: true]
      {_program, _params, peer} = create(name, peer, "question -> answer", options)
      agent = %{agent | peer: peer}
      assert {1, {:error, %{code: :not_found}}, agent} = agent |> call(1, "one") |> answer()
      assert {2, {:ok, 2}, agent} = agent |> call(2, "two") |> answer()

      task = async(fn -> DSPex.delete(name, "agent") end)
      {id, _params, peer} = Peer.request(agent.peer, "delete")
      Peer.respond(peer, id, %{deleted: true})
      assert await(task) == :ok
      agent = %{agent | peer: peer}
      assert {3, {:error, %{code: :not_found}}, _agent} = agent |> call(3, "two") |> answer()
    end

    test "of a state is given with it" do
      {name, peer, _listener} = ready()
      tool = Tool.new(:one, "", [], fn _ -> 1 end)
      state = %{"signature" => "question -> answer", "tools" => [Tool.to_wire(tool)]}

      assert {:error, %{code: :invalid_params, message: text}} = DSPex.load(name, state)
      assert text == "the state has the tools one: give them as tools:"

      task = async(fn -> DSPex.load(name, state, program: "agent", tools: [tool]) end)
      {id, params, peer} = Peer.request(peer, "load")
      assert Map.keys(params) == ["program", "state", "timeout_ms"]
      Peer.respond(peer, id, created(params))
      assert {:ok, _program} = await(task)
      agent = %{peer: peer, run: 0}
      assert {1, {:ok, 1}, _agent} = agent |> call(1, "one") |> answer()
    end

    test "is refused where too many are running, and not where one has ended" do
      agent = agent([waiting(self())], max_callbacks: 2)
      for n <- 1..3, do: call(agent, n, "wait", %{n: n})
      assert_receive {:waiting, 1, pid}, @patience_ms
      assert_receive {:waiting, 2, _pid}, @patience_ms
      assert {3, {:error, %{code: :overloaded, retryable: true}}, agent} = answer(agent)
      send(pid, {:return, 1})
      assert {1, {:ok, 1}, agent} = answer(agent)
      call(agent, 4, "wait", %{n: 4})
      assert_receive {:waiting, 4, _pid}, @patience_ms
    end

    test "whose request has the id of one in flight is refused to nobody" do
      agent = agent([waiting(self())])
      call(agent, 5, "wait")
      assert_receive {:waiting, 0, pid}, @patience_ms
      call(agent, 5, "wait")
      assert {nil, {:error, error}, agent} = answer(agent)
      assert {error.code, error.data} == {:invalid_request, %{"id" => 5}}
      send(pid, {:return, :once})
      assert {5, {:ok, "once"}, _agent} = answer(agent)
    end

    test "leaves nothing behind" do
      agent = agent([Tool.new(:one, "", [], fn _ -> 1 end)])

      agent =
        for n <- 1..100, reduce: agent do
          agent ->
            assert {^n, {:ok, 1}, agent} = agent |> call(n, "one") |> answer()
            agent
        end

      Peer.respond(agent.peer, agent.run, outputs(%{answer: "done"}))
      assert {:ok, _prediction} = await(agent.execution)
      assert %{callbacks: %{by_id: by_id, by_ref: by_ref}} = state(agent.name)
      assert {by_id, by_ref} == {%{}, %{}}
      assert Process.info(connection(agent.name), :monitors) == {:monitors, []}
    end
  end

  test "the map that an execution or a stream is given for its tools goes with it" do
    {name, peer, _listener} = ready()
    task = async(fn -> DSPex.execute(name, "p", %{}, meta: %{customer: 7}) end)
    {id, %{"meta" => %{"customer" => 7}}, peer} = Peer.request(peer, "execute")
    Peer.respond(peer, id, outputs(%{}))
    assert {:ok, _prediction} = await(task)

    task = async(fn -> name |> DSPex.stream("p", %{}, meta: [customer: 8]) |> Enum.to_list() end)
    {id, %{"meta" => %{"customer" => 8}}, peer} = Peer.request(peer, "execute")
    Peer.respond(peer, id, outputs(%{}))
    assert [{:ok, _prediction}] = await(task)
  end

  describe "a metric" do
    defp evaluate(metrics) do
      {name, peer, _listener} = ready()

      task =
        async(fn ->
          DSPex.Instance.request(name, "evaluate", %{}, 5000, metrics: metrics)
        end)

      {id, _params, peer} = Peer.request(peer, "evaluate")
      %{peer: peer, run: id, task: task, name: name}
    end

    defp measure(run, id, metric) do
      example = %{inputs: %{q: "?"}, outputs: %{a: "yes"}}
      params = %{request: run.run, metric: metric, example: example, prediction: %{a: "yes"}}
      Peer.message(run.peer, [0, id, "call_metric", Map.put(params, :meta, %{})])
      run
    end

    test "that fails is in the log, by its name where it has one of its own" do
      raising = fn _example, _prediction, _trace -> raise "cannot judge" end

      for {name, text} <- [{"metric", "the metric failed"}, {"picky", "the metric picky failed"}] do
        log =
          capture_log(fn ->
            run = evaluate(%{name => raising})
            assert {1, {:error, _error}, _run} = run |> measure(1, name) |> answer()
          end)

        assert log =~ "DSPex: #{text}: "
      end
    end

    test "is found while its request is in flight, and not after" do
      metrics = %{
        "exact" => fn example, prediction, _trace -> example["outputs"] == prediction end,
        "picky" => fn _example, _prediction, _trace -> raise "cannot judge" end,
        "vague" => fn _example, _prediction, _trace -> {:some, 1} end
      }

      run = evaluate(metrics)
      assert {1, {:ok, true}, run} = run |> measure(1, "exact") |> answer()
      assert {2, {:error, error}, run} = run |> measure(2, "picky") |> answer()
      assert {error.code, error.message} == {:metric_error, "cannot judge"}
      assert {3, {:error, %{code: :metric_error}}, run} = run |> measure(3, "vague") |> answer()
      assert {4, {:error, error}, run} = run |> measure(4, "exat") |> answer()
      assert {error.code, error.data["kind"]} == {:not_found, "metric"}

      # Not for another request.
      assert {5, {:error, %{code: :not_found}}, run} =
               %{run | run: run.run + 1} |> measure(5, "exact") |> answer()

      run = %{run | run: run.run - 1}
      Peer.respond(run.peer, run.run, %{score: 1.0})
      assert {:ok, %{"score" => 1.0}} = await(run.task)
      assert {6, {:error, %{code: :not_found}}, _run} = run |> measure(6, "exact") |> answer()
      assert :ets.info(state(run.name).callbacks.functions, :size) == 0
    end

    test "is gone with the caller" do
      {name, peer, _listener} = ready()
      metrics = %{"exact" => fn _, _, _ -> 1 end}
      call = fn -> DSPex.Instance.request(name, "evaluate", %{}, 5000, metrics: metrics) end
      caller = spawn(call)
      {id, _params, peer} = Peer.request(peer, "evaluate")
      Process.exit(caller, :kill)
      assert {{:notification, "cancel", %{"id" => ^id}}, peer} = Peer.next(peer)
      run = %{peer: peer, run: id}
      assert {1, {:error, %{code: :not_found}}, _run} = run |> measure(1, "exact") |> answer()
    end
  end

  test "a method that is written at greater length is the same" do
    agent = agent([Tool.new(:one, "", [], fn _ -> 1 end)])
    {:ok, params} = Codec.encode(%{program: "agent", tool: "one", args: %{}})
    Peer.frame(agent.peer, <<0x94, 0, 9, 0xD9, 9, "call_tool">> <> params)
    assert {9, {:ok, 1}, _agent} = answer(agent)
  end

  test "the response to a request of the bridge is as long as the codec makes it" do
    {:ok, long} = Message.result_response(1000, %{"a" => [1]})

    assert Message.parse(IO.iodata_to_binary(long)) ==
             {:ok, {:response, 1000, {:ok, %{"a" => [1]}}}}
  end
end
