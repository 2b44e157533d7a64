defmodule DSPex.TelemetryTest do
  use ExUnit.Case, async: true

  import DSPex.Test.Scripted
  import ExUnit.CaptureLog

  alias DSPex.Adapter.Mock
  alias DSPex.{Error, Telemetry, Tool}
  alias DSPex.Test.Peer

  require Logger

  @moduletag :capture_log

  # Events of this test's own instances: others run beside it.
  defp listen(prefix \\ [:dspex]) do
    test = self()
    id = make_ref()
    on_exit(fn -> Telemetry.detach(id) end)

    Telemetry.attach(id, prefix, fn event, measurements, metadata ->
      send(test, {event, measurements, metadata})
    end)
  end

  defp mock do
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    start_supervised!({DSPex, name: name, backend: Mock, lms: [main: "m"]})
    name
  end

  test "every event that is emitted has the keys that the documentation lists, and is listed" do
    {:docs_v1, _, _, _, %{"en" => docs}, _, _} = Code.fetch_docs(Telemetry)

    for %{event: event, measurements: measurements, metadata: metadata} <- Telemetry.events() do
      [_before, section] = String.split(docs, "### `#{inspect(event)}`\n", parts: 2)
      [section | _others] = String.split(section, "\n##", parts: 2)
      documented = for [_all, key] <- Regex.scan(~r/^ +\* `(\w+)` - /m, section), do: key
      assert documented == Enum.map(measurements ++ metadata, &Atom.to_string/1)
    end

    # What is not as it is listed cannot be emitted: newer compilers say so of a plain call already.
    for wrong <- [[:call_starts, %{}, %{}], [:queue_full, %{bytes: 1}, %{}]],
        do: assert_raise(FunctionClauseError, fn -> apply(Telemetry, :emit, wrong) end)
  end

  test "a call is told from its start to its end, with what it took" do
    name = mock()
    listen()
    DSPex.create!(name, "q -> a", program: "qa")

    assert_receive {[:dspex, :call, :start], %{},
                    %{server: ^name, method: "create", program: "qa"}}

    {:ok, prediction} = DSPex.execute(name, "qa", %{q: "one two"})

    assert_receive {[:dspex, :call, :start], %{system_time: time},
                    %{server: ^name, method: "execute", program: "qa", call: call} = about}

    assert_in_delta time, System.system_time(:nanosecond), 60_000_000_000
    assert_receive {[:dspex, :call, :stop], %{duration: duration}, %{call: ^call} = stopped}
    assert duration > 0
    assert stopped == Map.put(about, :outcome, :ok)
    assert_receive {[:dspex, :tokens], tokens, %{call: ^call, lm: "mock", program: "qa"}}
    assert tokens == Map.put(prediction.usage, :cost_usd, 0.0)
  end

  test "a call that fails, and one whose answer nobody wants, say how they ended" do
    name = mock()
    listen([:dspex, :call, :stop])
    DSPex.execute(name, "nobody", %{q: "?"})
    assert_receive {_event, _, %{server: ^name, outcome: :not_found}}

    DSPex.create!(name, "q -> a", program: "qa")
    assert_receive {_event, _, %{server: ^name, outcome: :ok}}
    name |> DSPex.stream("qa", %{q: "?"}, window: 1) |> Enum.take(1)
    assert_receive {_event, _, %{server: ^name, method: "execute", outcome: :closed}}

    catch_throw(DSPex.batch(name, "qa", [%{q: "?"}], on_progress: fn _ -> throw(:ball) end))
    assert_receive {_event, _, %{server: ^name, method: "batch", outcome: :closed}}

    Mock.stub(name, :any, :hang)
    {:ok, begun} = DSPex.async(name, "qa", %{q: "?"}, timeout: 10)
    assert {:error, %Error{code: :timeout}} = DSPex.await(begun)
    assert_receive {_event, _, %{server: ^name, outcome: :timeout}}
    assert {:error, %Error{code: :not_started}} = DSPex.ping(__MODULE__.Nowhere)
    assert_receive {_event, _, %{server: __MODULE__.Nowhere, outcome: :not_started}}
  end

  test "what a failure cost is told, too" do
    name = mock()
    listen([:dspex, :tokens])
    usage = %{"prompt_tokens" => 5, "completion_tokens" => 1, "total_tokens" => 6}
    error = Error.new(:timeout, "late", data: %{"usage" => usage, "cost_usd" => 0.25})
    Mock.stub(name, :any, {:error, error})
    DSPex.call(name, "q -> a", %{q: "?"})

    assert_receive {[:dspex, :tokens], %{total_tokens: 6, cost_usd: 0.25},
                    %{server: ^name, program: nil, lm: nil}}
  end

  @tag :protocol
  test "Python's start, its end and its next start are told" do
    {listener, command} = Peer.listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    listen([:dspex, :python])
    start(name: name, command: command)
    peer = Peer.accept(listener)
    os_pid = peer.os_pid

    assert_receive {[:dspex, :python, :start], %{failures: 0}, %{server: ^name, os_pid: ^os_pid}}

    {_hello, peer} = Peer.handshake(peer)

    assert_receive {[:dspex, :python, :ready], %{duration: duration},
                    %{server: ^name, os_pid: ^os_pid}}

    assert duration > 0

    task = async(fn -> DSPex.ping(name) end)
    {_id, _params, peer} = Peer.request(peer, "ping")
    Peer.kill(peer)
    assert {:error, %Error{code: :connection_lost}} = await(task)

    assert_receive {[:dspex, :python, :stop], %{lost: 1},
                    %{server: ^name, os_pid: ^os_pid, reason: reason}}

    assert reason =~ "signal 9"

    assert_receive {[:dspex, :python, :start], _, %{server: ^name, os_pid: next}}
                   when next != os_pid

    listener |> Peer.accept() |> Peer.kill()

    assert_receive {[:dspex, :python, :failed], %{failures: failures}, %{server: ^name} = failed}

    assert failures > 0
    assert failed.reason =~ "before it was ready"
    assert failed.retry_in_ms > 0
  end

  @tag :protocol
  test "each Python that was told to be ready is told to have ended, however soon it dies" do
    {listener, command} = Peer.listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    listen([:dspex, :python])
    start(name: name, command: command)

    # The last of them is one too many: it is an event of its own.
    for _ <- 1..4 do
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      %{os_pid: os_pid} = peer
      assert_receive {[:dspex, :python, :ready], _, %{server: ^name, os_pid: ^os_pid}}
      Peer.kill(peer)

      assert_receive {[:dspex, :python, :stop], %{lost: 0},
                      %{server: ^name, os_pid: ^os_pid, reason: "killed by signal 9"}}
    end

    assert_receive {[:dspex, :python, :failed], %{failures: 4}, %{server: ^name, reason: reason}}

    assert reason =~ "before it answered anything"
  end

  @tag :protocol
  test "a restart is told: the Python that is replaced, and the next one" do
    {name, peer, listener} = ready()
    %{os_pid: before} = peer
    Peer.eventually(fn -> match?({:ok, [%{status: :ready}]}, DSPex.workers(name)) end)
    listen([:dspex, :python])
    restart = async(fn -> DSPex.restart(name) end)
    {_hello, %{os_pid: now}} = listener |> Peer.accept() |> Peer.handshake()
    assert await(restart) == :ok

    assert_receive {[:dspex, :python, :stop], %{lost: 0},
                    %{server: ^name, os_pid: ^before, reason: "a restart was asked for"}}

    assert_receive {[:dspex, :python, :start], _, %{server: ^name, os_pid: ^now}}
    assert_receive {[:dspex, :python, :ready], _, %{server: ^name, os_pid: ^now}}
  end

  @tag :protocol
  test "a restart is answered after its new Python is ready for callers and has been told" do
    {name, _peer, listener} = ready()
    Peer.eventually(fn -> match?({:ok, [%{status: :ready}]}, DSPex.workers(name)) end)
    test = self()
    id = make_ref()
    on_exit(fn -> Telemetry.detach(id) end)

    # The connection is in here until it is told to go on.
    Telemetry.attach(id, [:dspex, :python, :ready], fn _event, _measurements, %{server: server} ->
      if server == name do
        send(test, {:telling, self()})
        receive do: (:go_on -> :ok)
      end
    end)

    restart = async(fn -> DSPex.restart(name) end)
    listener |> Peer.accept() |> Peer.handshake()
    assert_receive {:telling, connection}
    assert {:ok, [%{status: :ready}]} = DSPex.workers(name)
    assert Task.yield(restart, 100) == nil
    send(connection, :go_on)
    assert await(restart) == :ok
  end

  @tag :protocol
  test "the queue is told: what was written after which wait, and what was refused" do
    {listener, command} = Peer.listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    start(name: name, command: command, max_queued_bytes: 2000)
    peer = Peer.accept(listener)
    listen([:dspex, :queue])
    # Python is not ready yet: both wait, and there is room for one.
    payload = String.duplicate("x", 1500)
    {:ok, exchange} = DSPex.Adapter.open(name, "ping", %{payload: payload}, 10_000, false)
    assert {:error, %Error{code: :overloaded}} = DSPex.ping(name, payload: payload)

    assert_receive {[:dspex, :queue, :full], %{bytes: bytes}, %{server: ^name, method: "ping"}}
    assert bytes > 1500
    {_hello, peer} = Peer.handshake(peer)
    {id, _params, peer} = Peer.request(peer, "ping")

    assert_receive {[:dspex, :queue, :written], %{duration: duration, bytes: 0, length: 1},
                    %{server: ^name, method: "ping", request: ^id}}

    assert duration > 0
    Peer.respond(peer, id, %{payload: 1})
    assert {:answer, {:ok, _result}} = DSPex.Adapter.next(exchange)
  end

  @tag :protocol
  test "tools and metrics are told, over Python and over the mock" do
    tool =
      Tool.new(:add, "Adds.", [a: :integer], fn %{a: a} -> if a > 0, do: a, else: raise("no") end)

    {name, peer, _listener} = ready()

    {program, _params, peer} =
      create(name, peer, "q -> a", program: "qa", module: :react, tools: [tool])

    listen([:dspex, :callback])
    task = async(fn -> DSPex.execute(name, program, %{q: "?"}) end)
    {id, _params, peer} = Peer.request(peer, "execute")

    for {a, outcome} <- [{1, :ok}, {0, :tool_error}] do
      call = %{program: "qa", request: id, tool: "add", args: %{a: a}, meta: %{}}
      Peer.message(peer, [0, a, "call_tool", call])
      about = %{server: name, kind: :tool, name: "add", program: "qa", request: id}
      assert_receive {[:dspex, :callback, :start], %{system_time: _}, ^about}
      stopped = Map.put(about, :outcome, outcome)
      assert_receive {[:dspex, :callback, :stop], %{duration: _}, ^stopped}
    end

    {{:response, 1, {:ok, 1}}, peer} = Peer.next(peer)
    {{:response, 0, {:error, _error}}, peer} = Peer.next(peer)
    Peer.respond(peer, id, outputs(%{a: "1"}))
    await(task)

    mock = mock()
    DSPex.create!(mock, "q -> a", program: "qa", module: :react, tools: [tool])
    Mock.stub(mock, "qa", fn _inputs, call -> %{a: inspect(call.("add", %{a: 2}))} end)
    assert {:ok, %{outputs: %{"a" => "{:ok, 2}"}}} = DSPex.execute(mock, "qa", %{q: "?"})
    assert_receive {[:dspex, :callback, :stop], _, %{server: ^mock, kind: :tool, outcome: :ok}}
    example = %{inputs: %{q: "?"}, outputs: %{a: "?"}}
    {:ok, _evaluation} = DSPex.evaluate(mock, "qa", [example], metric: fn _, _ -> raise("no") end)

    assert_receive {[:dspex, :callback, :stop], _,
                    %{server: ^mock, kind: :metric, outcome: :metric_error}}
  end

  test "a handler has an id of its own, and one that raises is detached and logged" do
    name = mock()
    test = self()
    id = {__MODULE__, make_ref()}

    forward = fn _event, _measurements, %{server: server} ->
      if server == name, do: send(test, :told)
    end

    assert Telemetry.attach(id, [:dspex, :call, :start], forward) == :ok
    assert Telemetry.attach(id, [:dspex], forward) == {:error, :already_exists}
    DSPex.ping(name)
    assert_received :told
    assert Telemetry.detach(id) == :ok
    assert Telemetry.detach(id) == {:error, :not_found}
    DSPex.ping(name)
    refute_received :told

    Telemetry.attach(id, [:dspex, :call], fn _event, _measurements, metadata ->
      if metadata.server == name, do: raise("the handler's own")
    end)

    log = capture_log(fn -> assert {:ok, 1} = DSPex.ping(name, payload: 1) end)
    assert log =~ "the handler's own"
    assert Telemetry.detach(id) == {:error, :not_found}

    assert_raise ArgumentError, ~r/no event of DSPex begins with \[:dspx\]/, fn ->
      Telemetry.attach(id, [:dspx], forward)
    end
  end

  test "where the library :telemetry is loaded its handlers are told" do
    # No dependency: a module of that name, which tells whoever has registered.
    code =
      quote do
        def execute(event, measurements, metadata) do
          if pid = Process.whereis(DSPex.TelemetryTest.Library),
            do: send(pid, {:library, event, measurements, metadata})

          :ok
        end
      end

    {:module, :telemetry, _binary, _last} = Module.create(:telemetry, code, __ENV__)
    Process.register(self(), DSPex.TelemetryTest.Library)
    name = mock()
    DSPex.ping(name)
    assert_receive {:library, [:dspex, :call, :start], %{}, %{server: ^name, method: "ping"}}
    assert_receive {:library, [:dspex, :call, :stop], %{duration: _}, %{server: ^name}}
    :code.purge(:telemetry)
    :code.delete(:telemetry)
  end

  @tag :protocol
  test "what Python logs comes to Logger with its request and the metadata of its caller" do
    {name, peer, _listener} = ready()

    log =
      capture_log(
        [
          metadata: [:request_id, :dspex_request, :dspex_logger],
          format: "$level $metadata$message\n"
        ],
        fn ->
          task =
            async(fn ->
              Logger.metadata(request_id: "phoenix-1")
              DSPex.ping(name)
            end)

          {id, _params, peer} = Peer.request(peer, "ping")
          message = %{level: "warning", logger: "dspy", message: "a slow LM", request: id}
          peer = Peer.message(peer, [2, "log", message])

          peer =
            Peer.message(peer, [2, "log", %{level: "wrong", logger: "x", message: "of nobody"}])

          Peer.respond(peer, id, %{payload: nil})
          await(task)
        end
      )

    assert log =~
             ~r/warn(ing)? request_id=phoenix-1 dspex_request=\d+ dspex_logger=dspy Python \(pid \d+\): a slow LM/

    assert log =~ ~r/info dspex_logger=x Python \(pid \d+\): of nobody/
  end

  @tag :protocol
  test "what is logged about a Python has its instance" do
    log =
      capture_log([metadata: [:dspex_server], format: "$metadata$message\n"], fn ->
        {name, peer, listener} = ready()
        Peer.eventually(fn -> match?({:ok, [%{status: :ready}]}, DSPex.workers(name)) end)
        Peer.kill(peer)
        listener |> Peer.accept() |> Peer.handshake()
        send(self(), {:instance, name})
      end)

    assert_received {:instance, name}

    assert log =~
             ~r/^dspex_server=#{inspect(name)} DSPex: Python \(pid \d+\) ended: killed by signal 9/m
  end

  @tag :protocol
  test "what a tool logs has the request and the metadata of the call" do
    {name, peer, _listener} = ready()
    tool = Tool.new(:note, "Notes.", [], fn _args -> Logger.warning("noted") end)

    {program, _params, peer} =
      create(name, peer, "q -> a", program: "qa", module: :react, tools: [tool])

    log =
      capture_log(
        [metadata: [:request_id, :dspex_request, :dspex_server], format: "$metadata$message\n"],
        fn ->
          task =
            async(fn ->
              Logger.metadata(request_id: "phoenix-2")
              DSPex.execute(name, program, %{q: "?"})
            end)

          {id, _params, peer} = Peer.request(peer, "execute")
          call = %{program: "qa", request: id, tool: "note", args: %{}, meta: %{}}

          {{:response, 0, {:ok, _ok}}, peer} =
            peer |> Peer.message([0, 0, "call_tool", call]) |> Peer.next()

          Peer.respond(peer, id, outputs(%{a: "1"}))
          await(task)
        end
      )

    assert log =~ ~r/request_id=phoenix-2 dspex_request=\d+ dspex_server=#{inspect(name)} noted/
  end

  @tag :protocol
  test "the level from which Python's logs come is asked for" do
    for {level, told} <- [{nil, "warning"}, {:debug, "debug"}, {:none, nil}] do
      {listener, command} = Peer.listen()
      name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
      options = if level, do: [log_level: level], else: []
      start([name: name, command: command] ++ options)
      {hello, _peer} = listener |> Peer.accept() |> Peer.handshake()
      assert hello["log_level"] == told
      stop_supervised!(name)
    end

    assert_raise ArgumentError, ~r/expected :debug, :info/, fn ->
      DSPex.start_link(log_level: :loud)
    end
  end
end
