defmodule DSPex.ConnectionTest do
  use ExUnit.Case, async: true

  @moduletag :protocol

  import ExUnit.CaptureLog

  alias DSPex.{Error, Secret}
  alias DSPex.Test.{Peer, Scripted}

  @moduletag :capture_log

  # Nothing in here waits so long unless it fails.
  @patience_ms 30_000

  defp name, do: Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")

  # An instance whose Python is this test.
  defp start(options \\ [], args \\ []) do
    {listener, command} = Peer.listen(args)
    name = name()
    Scripted.start([name: name, command: command] ++ options)
    {name, listener}
  end

  defp ready(options \\ [], limits \\ %{}) do
    {name, listener} = start(options)
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake(limits)
    {name, peer, listener}
  end

  defp async(fun) do
    Task.async(fn ->
      answer = fun.()
      # Whatever else came for this caller is a second answer.
      {answer, Process.info(self(), :messages)}
    end)
  end

  defp await(task) do
    assert {answer, {:messages, []}} = Task.await(task, @patience_ms)
    answer
  end

  defp connection(name), do: Scripted.connection(name)
  defp state(name), do: :sys.get_state(connection(name))

  defp created(%{"program" => program}) do
    %{program: program, module: "predict", revision: 1, input_schema: %{}, output_schema: %{}}
  end

  defp create(name, peer, signature, options) do
    task = async(fn -> DSPex.create(name, signature, options) end)
    {id, params, peer} = Peer.request(peer, "create")
    Peer.respond(peer, id, created(params))
    assert {:ok, program} = await(task)
    {program, params, peer}
  end

  describe "the handshake" do
    test "comes before every call, with the configuration and its keys in the open" do
      {name, listener} =
        start(
          lms: [main: [model: "openai/x", api_key: "sk-in-the-open", extra: %{top_k: 5}]],
          default_lm: :main,
          adapter: :json,
          max_frame_bytes: 100_000
        )

      early = async(fn -> DSPex.ping(name, payload: "early") end)
      {hello, peer} = listener |> Peer.accept() |> Peer.handshake()

      assert %{
               "protocol_version" => 1,
               "max_frame_bytes" => 100_000,
               "client" => %{"name" => "dspex-elixir", "version" => _}
             } = hello

      {id, params, peer} = Peer.request(peer, "configure")

      assert params == %{
               "lms" => %{
                 "main" => %{
                   "model" => "openai/x",
                   "api_key" => "sk-in-the-open",
                   "extra" => %{"top_k" => 5}
                 }
               },
               "default_lm" => "main",
               "adapter" => "json"
             }

      assert Peer.silent?(peer, 50)
      Peer.respond(peer, id, %{})

      {id, %{"payload" => "early"}, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: "early"})
      assert await(early) == {:ok, "early"}
    end

    test "has no configure where there is nothing to configure" do
      {name, peer, _listener} = ready()
      ping = async(fn -> DSPex.ping(name) end)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: nil})
      assert await(ping) == {:ok, nil}
    end

    test "may come in single bytes" do
      {name, listener} = start()
      ping = async(fn -> DSPex.ping(name) end)
      {id, _hello, peer} = listener |> Peer.accept() |> Peer.request("initialize")
      {:ok, bytes} = DSPex.Protocol.Codec.encode([1, id, nil, %{protocol_version: 1}])

      for <<byte <- <<byte_size(bytes)::32>> <> bytes>>, do: Peer.raw(peer, <<byte>>)

      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: 1})
      assert await(ping) == {:ok, 1}
    end
  end

  describe "answers" do
    test "reach their callers whatever their order, each one once" do
      {name, peer, _listener} = ready()
      tasks = for n <- 1..300, do: {n, async(fn -> DSPex.ping(name, payload: n) end)}

      {requests, peer} =
        Enum.map_reduce(tasks, peer, fn _task, peer ->
          {id, %{"payload" => payload}, peer} = Peer.request(peer, "ping")
          {{id, payload}, peer}
        end)

      for {id, payload} <- Enum.shuffle(requests) do
        Peer.respond(peer, id, %{payload: payload})
        # A second answer and one that nobody asked for.
        Peer.respond(peer, id, %{payload: "twice"})
        Peer.respond(peer, id + 1_000_000, %{payload: "stray"})
      end

      for {n, task} <- tasks, do: assert(await(task) == {:ok, n})
      assert %{calls: %{by_id: by_id, by_key: by_key}} = state(name)
      assert {by_id, by_key} == {%{}, %{}}
    end

    test "leave nothing behind in the connection" do
      {name, peer, _listener} = ready()
      test = self()

      # It lives on, so that nothing is cleaned up for its death.
      spawn_link(fn ->
        for n <- 1..100, do: {:ok, ^n} = DSPex.ping(name, payload: n)
        send(test, :done)
        receive do: (:never -> :ok)
      end)

      Enum.reduce(1..100, peer, fn _, peer ->
        {id, params, peer} = Peer.request(peer, "ping")
        Peer.respond(peer, id, params)
      end)

      assert_receive :done, @patience_ms
      assert %{calls: %{by_id: by_id, by_key: by_key}, outbox: %{bytes: 0}} = state(name)
      assert {by_id, by_key} == {%{}, %{}}
      assert Process.info(connection(name), :monitors) == {:monitors, []}
    end

    test "with an error are given as they are" do
      {name, peer, _listener} = ready()
      task = async(fn -> DSPex.execute(name, "qa", %{}) end)
      {id, _params, peer} = Peer.request(peer, "execute")
      data = %{"kind" => "rate_limit", "retry_after_ms" => 20}
      Peer.fail(peer, id, "lm_error", %{message: "slow down", retryable: true, data: data})

      assert await(task) ==
               {:error, Error.new(:lm_error, "slow down", retryable: true, data: data)}
    end

    test "that cannot be read are an error of their callers alone" do
      {name, peer, _listener} = ready()
      tasks = for _ <- 1..3, do: async(fn -> DSPex.ping(name) end)

      {[a, b, c], peer} =
        Enum.map_reduce(1..3, peer, fn _, peer ->
          {id, _params, peer} = Peer.request(peer, "ping")
          {id, peer}
        end)

      Peer.frame(peer, <<0x94, 1, a, 0xC0, 0xC1>>)
      Peer.message(peer, [1, b, "no error map", nil])
      Peer.message(peer, [1, c, nil, "no map of ping's"])

      assert tasks
             |> Enum.map(&await/1)
             |> Enum.map(fn {:error, error} -> error.code end)
             |> Enum.sort() == [:internal_error, :internal_error, :parse_error]
    end

    test "to what has not been sent yet are nobody's" do
      {name, listener} = start()
      peer = Peer.accept(listener)
      early = async(fn -> DSPex.ping(name) end)
      assert_calls(name, 2)
      # The ids are 0, of initialize, and 1.
      Peer.respond(peer, 1, %{payload: "not asked for"})
      {_hello, peer} = Peer.handshake(peer)
      {id, _params, peer} = Peer.request(peer, "ping")
      assert id == 1
      Peer.respond(peer, id, %{payload: "asked for"})
      assert await(early) == {:ok, "asked for"}
    end

    test "to a question of the connection's own that has not been sent yet prove nothing" do
      # No look comes by itself, and every one finds that Python has been silent for long.
      {name, peer, _listener} = ready(heartbeat_interval: 3_600_000)
      assert_ready(name)
      connection = connection(name)
      :ok = :sys.suspend(connection)

      %{python: %{port: port}, calls: %{next_id: id}} =
        :sys.replace_state(
          connection,
          &update_in(&1.health.heard_at, fn at -> at - 7_200_000 end)
        )

      # The answer is there when the question is made.
      send(connection, {:look, port})
      Peer.respond(peer, id, %{payload: "heartbeat"})
      length = {:message_queue_len, 2}
      Peer.eventually(fn -> Process.info(connection, :message_queue_len) == length end)
      :ok = :sys.resume(connection)

      # The next message is answered once both have been looked at.
      assert %{proven?: false} = state(name)
      assert {{:request, ^id, "ping", _params}, peer} = next_with_heartbeats(peer)
      Peer.respond(peer, id, %{payload: "heartbeat"})
      Peer.eventually(fn -> state(name).proven? end)
    end

    # What `Peer.next/1` answers by itself.
    defp next_with_heartbeats(%{events: [{:frame, frame} | events]} = peer) do
      assert {:ok, message} = DSPex.Protocol.Message.parse(frame)
      {message, %{peer | events: events}}
    end

    defp next_with_heartbeats(%{events: []} = peer) do
      assert {:ok, bytes} = :gen_tcp.recv(peer.socket, 0, @patience_ms)
      {events, decoder} = DSPex.Protocol.Framing.feed(peer.decoder, bytes)
      next_with_heartbeats(%{peer | events: events, decoder: decoder})
    end

    test "over the limit become frame_too_large, and the next ones are read" do
      {name, peer, _listener} = ready(max_frame_bytes: 5000)
      big = async(fn -> DSPex.ping(name) end)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: String.duplicate("x", 10_000)})
      assert {:error, %Error{code: :frame_too_large} = error} = await(big)
      assert %{"size" => size, "limit" => 5000} = error.data
      assert size > 10_000

      small = async(fn -> DSPex.ping(name) end)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: "small"})
      assert await(small) == {:ok, "small"}
    end
  end

  describe "a deadline" do
    test "is told to the bridge, whose own answer to it counts" do
      {name, peer, _listener} = ready()
      task = async(fn -> DSPex.execute(name, "qa", %{}, timeout: 5000) end)
      {id, params, peer} = Peer.request(peer, "execute")
      assert params["timeout_ms"] == 5000
      Peer.fail(peer, id, "timeout", %{message: "the bridge's own"})
      assert {:error, %Error{code: :timeout, message: "the bridge's own"}} = await(task)

      forever = async(fn -> DSPex.execute(name, "qa", %{}, timeout: :infinity) end)
      {id, params, peer} = Peer.request(peer, "execute")
      refute is_map_key(params, "timeout_ms")
      Peer.fail(peer, id, "cancelled")
      assert {:error, %Error{code: :cancelled}} = await(forever)
    end

    test "is kept without an answer; the request is cancelled and a late answer goes nowhere" do
      {name, peer, _listener} = ready()

      test = self()

      caller =
        spawn_link(fn ->
          send(test, {:answer, DSPex.execute(name, "qa", %{}, timeout: 200)})

          receive do
            :report -> send(test, {:mailbox, Process.info(self(), :messages)})
          end
        end)

      {id, _params, peer} = Peer.request(peer, "execute")
      assert_receive {:answer, {:error, %Error{code: :timeout} = error}}, @patience_ms
      assert Exception.message(error) =~ "no answer within 200 ms"
      assert {{:notification, "cancel", %{"id" => ^id}}, peer} = Peer.next(peer)

      Peer.respond(peer, id, %{outputs: %{late: true}})
      # The answer to a later request was behind the late one on every way.
      ping = async(fn -> DSPex.ping(name) end)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: 1})
      assert await(ping) == {:ok, 1}

      send(caller, :report)
      assert_receive {:mailbox, {:messages, []}}, @patience_ms
      assert state(name).calls.by_id == %{}
    end

    test "that passes while the answer is on its way leaves the mailbox empty" do
      {name, peer, _listener} = ready()
      test = self()
      connection = connection(name)

      caller =
        spawn_link(fn ->
          send(test, {:answer, DSPex.execute(name, "qa", %{}, timeout: 200)})

          receive do
            :report -> send(test, {:mailbox, Process.info(self(), :messages)})
          end
        end)

      {id, _params, peer} = Peer.request(peer, "execute")

      # The answer stands before the caller's farewell in the connection's mailbox.
      :ok = :sys.suspend(connection)
      Peer.respond(peer, id, %{outputs: %{late: true}})

      Peer.eventually(fn ->
        # A slow machine may bring the farewell, or a timer, meanwhile.
        {:message_queue_len, length} = Process.info(connection, :message_queue_len)
        length >= 1
      end)

      assert_receive {:answer, {:error, %Error{code: :timeout}}}, @patience_ms
      :ok = :sys.resume(connection)

      # Once this is answered, the connection has been through its mailbox.
      assert state(name).calls.by_id == %{}
      send(caller, :report)
      assert_receive {:mailbox, {:messages, []}}, @patience_ms
    end

    test "that passes before Python is ready takes the request back" do
      {name, listener} = start()
      peer = Peer.accept(listener)
      assert {:error, %Error{code: :timeout}} = DSPex.ping(name, timeout: 10)
      {_hello, peer} = Peer.handshake(peer)
      later = async(fn -> DSPex.ping(name, payload: "later") end)
      assert {_id, %{"payload" => "later"}, _peer} = Peer.request(peer, "ping")
      Task.shutdown(later)
    end
  end

  test "a caller that dies cancels its request" do
    {name, peer, _listener} = ready()
    caller = spawn(fn -> DSPex.execute(name, "qa", %{}, timeout: :infinity) end)
    {id, _params, peer} = Peer.request(peer, "execute")
    Process.exit(caller, :kill)
    assert {{:notification, "cancel", %{"id" => ^id}}, _peer} = Peer.next(peer)
    assert state(name).calls.by_key == %{}
  end

  describe "when Python is killed" do
    test "callers in flight are answered, and the others wait for the next one" do
      {name, peer, listener} = ready()
      execute = async(fn -> DSPex.execute(name, "qa", %{}) end)
      {_id, _params, peer} = Peer.request(peer, "execute")
      list = async(fn -> DSPex.list(name) end)
      {_id, _params, peer} = Peer.request(peer, "list")

      Peer.kill(peer)

      assert {:error, %Error{code: :connection_lost, retryable: false} = error} = await(execute)
      assert error.message =~ "killed by signal 9"
      assert error.message =~ "may have been done in part, and paid for"
      assert {:error, %Error{code: :connection_lost, retryable: true} = error} = await(list)
      assert error.message =~ "can safely be called again"

      peer = Peer.accept(listener)
      waiting = async(fn -> DSPex.ping(name) end)
      {_hello, peer} = Peer.handshake(peer)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: "next"})
      assert await(waiting) == {:ok, "next"}
    end

    test "the next one gets the configuration before any call, and a program before the first for it" do
      {name, listener} = start(lms: [main: [model: "openai/x", api_key: "sk-one"]])
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      {_params, peer} = Peer.accept_configure(peer)

      {_program, kept, peer} =
        create(name, peer, "question -> answer",
          program: "kept",
          demos: demos("question", "answer")
        )

      {_program, _first, peer} = create(name, peer, "a -> b", program: "replaced")
      {_program, second, peer} = create(name, peer, "a -> c", program: "replaced", replace: true)
      {program, _params, peer} = create(name, peer, "a -> b", [])
      peer = delete(name, peer, program)

      refused = async(fn -> DSPex.create(name, "a -> b", program: "refused") end)
      {id, _params, peer} = Peer.request(peer, "create")
      Peer.fail(peer, id, "already_exists")
      assert {:error, %Error{code: :already_exists}} = await(refused)

      more =
        async(fn ->
          lms = [other: [model: "m2", api_key: "sk-two"]]
          words = [words: [model: "e", api_key: "sk-three"]]
          DSPex.configure(name, lms: lms, default_lm: :other, embedders: words)
        end)

      {id, _params, peer} = Peer.request(peer, "configure")
      Peer.respond(peer, id, %{})
      assert {:ok, %{}} = await(more)

      lost = async(fn -> DSPex.create(name, "a -> b", program: "lost") end)
      {_id, _params, peer} = Peer.request(peer, "create")
      Peer.kill(peer)
      assert {:error, %Error{code: :connection_lost, retryable: true}} = await(lost)

      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      call = async(fn -> DSPex.ping(name) end)
      {configuration, peer} = Peer.accept_configure(peer)

      assert configuration == %{
               "lms" => %{
                 "main" => %{"model" => "openai/x", "api_key" => "sk-one"},
                 "other" => %{"model" => "m2", "api_key" => "sk-two"}
               },
               "default_lm" => "other",
               "embedders" => %{"words" => %{"model" => "e", "api_key" => "sk-three"}}
             }

      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: 1})
      assert await(call) == {:ok, 1}

      # Each of them once, and without the deadlines, which were those calls' own.
      peer = executed(name, peer, "kept", told_again(kept))
      peer = executed(name, peer, "replaced", told_again(second))
      peer = executed(name, peer, "replaced", nil)

      for absent <- [program.id, "refused", "lost"] do
        peer = executed(name, peer, absent, nil)
        assert Peer.silent?(peer, 50)
      end
    end

    test "a program that is refused the second time is told to who needs it, and tried anew" do
      {name, peer, listener} = ready()
      {_program, _params, peer} = create(name, peer, "a -> b", program: "bad")
      Peer.kill(peer)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()

      log =
        capture_log(fn ->
          call = async(fn -> DSPex.execute(name, "bad", %{a: "?"}) end)
          {load, _params, peer} = Peer.request(peer, "create")
          {id, _params, peer} = Peer.request(peer, "execute")
          Peer.fail(peer, load, "overloaded", %{message: "not now", retryable: true})
          Peer.fail(peer, id, "not_found")
          assert {:error, %Error{code: :overloaded, retryable: true} = error} = await(call)
          assert error.message == "not now"

          call = async(fn -> DSPex.execute(name, "bad", %{a: "?"}, retry: 1) end)
          {load, _params, peer} = Peer.request(peer, "create")
          {id, _params, peer} = Peer.request(peer, "execute")
          Peer.fail(peer, load, "overloaded", %{message: "nor now", retryable: true})
          Peer.fail(peer, id, "not_found")
          {load, params, peer} = Peer.request(peer, "create")
          Peer.respond(peer, load, created(params))
          {id, _params, peer} = Peer.request(peer, "execute")
          Peer.respond(peer, id, %{outputs: %{b: "!"}, program: "bad"})
          assert {:ok, %{outputs: %{"b" => "!"}}} = await(call)
        end)

      assert log =~ "could not make the program bad again: overloaded: not now"
    end

    test "again and again, it is started again and again" do
      {name, peer, listener} = ready()

      Enum.reduce(1..10, peer, fn _, peer ->
        Peer.kill(peer)
        {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
        call = async(fn -> DSPex.ping(name) end)
        {id, _params, peer} = Peer.request(peer, "ping")
        Peer.respond(peer, id, %{payload: 1})
        assert await(call) == {:ok, 1}
        peer
      end)
    end
  end

  describe "a Python that cannot be made ready" do
    test "refuses the calls with the reason, and is tried again" do
      {name, listener} = start()
      first = Peer.accept(listener)
      waiting = async(fn -> DSPex.ping(name) end)
      # The call is there before the end is.
      assert_calls(name, 2)
      Peer.kill(first)

      assert {:error, %Error{code: :start_failed, retryable: true} = error} = await(waiting)

      assert error.message ==
               "Python could not be made ready: it ended before it was ready: killed by signal 9"

      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      call = async(fn -> DSPex.ping(name) end)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: 1})
      assert await(call) == {:ok, 1}
      assert %{failures: 0, failure: nil} = state(name)
    end

    test "is tried again later each time, and calls meanwhile are refused at once" do
      {name, listener} = start()

      for _ <- 1..4 do
        peer = Peer.accept(listener)
        {id, _hello, peer} = Peer.request(peer, "initialize")
        Peer.fail(peer, id, "overloaded", %{message: "not now"})
        Peer.wait_gone(peer)
      end

      # The fifth attempt is 800 ms away.
      assert {:error, %Error{code: :start_failed} = error} = DSPex.ping(name)
      assert error.message =~ "initialize was refused: overloaded: not now"
      assert state(name).failures == 4
      assert Peer.no_more?(listener, 50)
      Peer.accept(listener)
    end

    test "because of its configuration says what is wrong with that" do
      {name, listener} = start(lms: [main: "no/such"])
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      call = async(fn -> DSPex.ping(name) end)
      {id, _params, peer} = Peer.request(peer, "configure")
      assert_calls(name, 2)
      Peer.fail(peer, id, "invalid_params", %{message: "no such provider"})
      assert {:error, %Error{code: :start_failed, message: message}} = await(call)
      assert message =~ "configure was refused: invalid_params: no such provider"
    end

    test "because it answers initialize strangely says so" do
      {name, listener} = start()
      {id, _hello, peer} = listener |> Peer.accept() |> Peer.request("initialize")
      call = async(fn -> DSPex.ping(name) end)
      assert_calls(name, 2)
      Peer.respond(peer, id, "hello")
      assert {:error, %Error{code: :start_failed, message: message}} = await(call)
      assert message =~ "it answered initialize with no protocol version 1"
    end

    test "within the time is killed" do
      {name, listener} = start(start_timeout: 1500)
      # Standing still, it does not hear that its stdin has ended.
      peer = listener |> Peer.accept() |> Peer.signal("STOP")
      assert {:error, %Error{code: :start_failed, message: message}} = DSPex.ping(name)
      assert message =~ "Python was not ready within 1500 ms"
      Peer.wait_gone(peer)
    end

    test "because the file is no program says so, and does not end the instance" do
      name = name()
      path = Path.join(DSPex.Test.Folder.make(), "bridge")
      File.write!(path, "not a program")
      File.chmod!(path, 0o755)
      start_supervised!({DSPex, name: name, command: [path]})
      assert {:error, %Error{code: :start_failed, retryable: false} = error} = DSPex.ping(name)
      assert error.message =~ "it ended before it was ready"
    end
  end

  describe "what is no frame on Python's stdout" do
    test "has another Python started, with the reason told, and no memory reserved" do
      {name, peer, listener} = ready()
      call = async(fn -> DSPex.execute(name, "qa", %{}) end)
      {_id, _params, peer} = Peer.request(peer, "execute")
      before = :erlang.memory(:total)

      log =
        capture_log(fn ->
          Peer.raw(peer, "Traceback (most recent call last):\n")
          assert {:error, %Error{code: :connection_lost} = error} = await(call)
          assert error.message =~ "something else than the bridge wrote to its stdout"
          assert error.message =~ ~s("eback (most recent call last)
        end)

      assert log =~ "something else than the bridge wrote to its stdout"
      # Its first four bytes are a length of 1.4 GB; other tests at the same time take some too.
      assert :erlang.memory(:total) - before < 1_000_000_000

      Peer.wait_gone(peer)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      call = async(fn -> DSPex.ping(name) end)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: 1})
      assert await(call) == {:ok, 1}
    end

    test "is found with the next frame where it had the length of a frame's prefix" do
      {name, peer, listener} = ready()
      call = async(fn -> DSPex.execute(name, "qa", %{}) end)
      {id, _params, peer} = Peer.request(peer, "execute")
      Peer.raw(peer, "oops")
      Peer.respond(peer, id, %{outputs: %{}})
      assert {:error, %Error{code: :connection_lost, message: message}} = await(call)
      assert message =~ "something else than the bridge wrote to its stdout"
      Peer.accept(listener)
    end

    test "has the Python killed that wrote it" do
      {name, peer, listener} = ready()
      assert_ready(name)
      :ok = :sys.suspend(connection(name))
      Peer.raw(peer, "Traceback (most recent call last):\n")

      Peer.eventually(fn ->
        Process.info(connection(name), :message_queue_len) != {:message_queue_len, 0}
      end)

      # Standing still, it does not hear that its stdin has ended.
      Peer.signal(peer, "STOP")
      :ok = :sys.resume(connection(name))
      Peer.wait_gone(peer)
      Peer.accept(listener)
    end

    test "before the handshake is told as the reason that Python is not ready" do
      {name, listener} = start([], ["Welcome to Python!\n"])
      assert {:error, %Error{code: :start_failed, message: message}} = DSPex.ping(name)
      assert message =~ "something else than the bridge wrote to its stdout"
      assert message =~ "relay.py"
      Peer.accept(listener)
    end

    test "but has frames is refused frame by frame" do
      {name, peer, _listener} = ready()

      log =
        capture_log(fn ->
          for {frame, code} <- [
                {"", :parse_error},
                {<<0xC1>>, :parse_error},
                {<<0xA5, "hello">>, :invalid_request},
                {<<0x93, 7, 8, 9>>, :invalid_request},
                {<<0x93, 2, 0xC1>>, :parse_error}
              ] do
            Peer.frame(peer, frame)
            assert {{:response, nil, {:error, %{code: ^code}}}, _peer} = Peer.next(peer)
          end

          Peer.message(peer, [2, "no such", %{}])
          Peer.message(peer, [2, "no params"])
          Peer.message(peer, [1, nil, %{code: "parse_error", message: "frame 7"}, nil])
          Peer.message(peer, [1, 5, nil, nil])

          call = async(fn -> DSPex.ping(name) end)
          {id, _params, peer} = Peer.request(peer, "ping")
          Peer.respond(peer, id, %{payload: 1})
          assert await(call) == {:ok, 1}
        end)

      assert log =~ "a frame could not be read: byte 0: 0xC1"
      assert log =~ "a notification could not be read"
      assert log =~ "Python could not read a frame: parse_error: frame 7"
    end
  end

  describe "requests of the bridge" do
    test "for what the client does not have are refused" do
      {_name, peer, _listener} = ready()
      Peer.message(peer, [0, 3, "no_such_method", %{tool: "search"}])
      assert {{:response, 3, {:error, error}}, peer} = Peer.next(peer)

      assert {error.code, error.message} ==
               {:method_not_found, ~s(this client has no method "no_such_method")}

      Peer.message(peer, [0, 4, "call_tool", nil])
      assert {{:response, 4, {:error, %{code: :invalid_request}}}, peer} = Peer.next(peer)

      Peer.frame(peer, <<0x94, 0, 5, 0xC1>>)
      assert {{:response, 5, {:error, %{code: :parse_error}}}, _peer} = Peer.next(peer)
    end

    test "over the limit are refused" do
      {_name, peer, _listener} = ready(max_frame_bytes: 5000)
      Peer.message(peer, [0, 6, "call_tool", %{args: String.duplicate("x", 6000)}])
      assert {{:response, 6, {:error, %{code: :frame_too_large}}}, _peer} = Peer.next(peer)
    end
  end

  describe "a request" do
    test "over the bridge's limit is refused here, and not sent" do
      {name, peer, _listener} = ready([], %{max_frame_bytes: 4096})
      assert_ready(name)

      assert {:error, %Error{code: :frame_too_large, data: %{"limit" => 4096}}} =
               DSPex.ping(name, payload: String.duplicate("x", 5000))

      assert Peer.silent?(peer, 50)
    end

    test "over the bridge's limit that waited for the handshake is refused too" do
      {name, listener} = start()
      peer = Peer.accept(listener)
      call = async(fn -> DSPex.ping(name, payload: String.duplicate("x", 5000)) end)
      assert_calls(name, 2)
      {_hello, peer} = Peer.handshake(peer, %{max_frame_bytes: 4096})
      assert {:error, %Error{code: :frame_too_large}} = await(call)
      assert Peer.silent?(peer, 50)
    end

    test "with a value that has no form is refused with its place" do
      {name, _peer, _listener} = ready()

      assert {:error, %Error{code: :encode_error} = error} =
               DSPex.execute(name, "qa", %{question: self()})

      assert error.message == "inputs.question: a pid has no form on the wire"
    end
  end

  test "requests that come together are written together, in their order, and all answered" do
    {name, peer, _listener} = ready()
    assert_ready(name)
    :ok = :sys.suspend(connection(name))
    tasks = for n <- 1..300, do: {n, async(fn -> DSPex.ping(name, payload: n) end)}

    Peer.eventually(fn ->
      Process.info(connection(name), :message_queue_len) == {:message_queue_len, 300}
    end)

    test = self()
    port = state_of_suspended(name).python.port
    :erlang.trace(connection(name), true, [:ports, :receive, {:tracer, test}])
    :erlang.trace(port, true, [:receive, {:tracer, test}])
    :ok = :sys.resume(connection(name))

    {ids, _peer} =
      Enum.map_reduce(tasks, peer, fn _task, peer ->
        {id, params, peer} = Peer.request(peer, "ping")
        Peer.respond(peer, id, params)
        {id, peer}
      end)

    assert ids == Enum.sort(ids)
    for {n, task} <- tasks, do: assert(await(task) == {:ok, n})
    # Bursts, and not one by one.
    assert written(port, 0) in 1..100
  end

  test "requests that come together may be more than fit, of a Python that reads them" do
    {name, peer, _listener} = ready(max_queued_bytes: 10_000)
    # Less than a pipe holds, so that it is written however late it is read.
    payload = String.duplicate("x", 2000)
    tasks = burst(name, payload)

    Enum.reduce(tasks, peer, fn _task, peer ->
      {id, params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, params)
    end)

    for task <- tasks, do: assert(await(task) == {:ok, payload})
  end

  # Pings that come all together.
  defp burst(name, payload) do
    assert_ready(name)
    :ok = :sys.suspend(connection(name))
    tasks = for _ <- 1..20, do: async(fn -> DSPex.ping(name, payload: payload) end)

    Peer.eventually(fn ->
      Process.info(connection(name), :message_queue_len) == {:message_queue_len, 20}
    end)

    :ok = :sys.resume(connection(name))
    tasks
  end

  test "requests that do not fit are refused for the limit of the Python that has read the others" do
    {name, peer, _listener} = ready([max_queued_bytes: 10_000], %{max_in_flight: 2})
    payload = String.duplicate("x", 2000)
    tasks = burst(name, payload)

    # Two are written, three wait.
    Enum.reduce(1..5, peer, fn _nth, peer ->
      {id, params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, params)
    end)

    {served, refused} = tasks |> Enum.map(&await/1) |> Enum.split_with(&match?({:ok, _}, &1))
    assert served == List.duplicate({:ok, payload}, 5)

    for answer <- refused do
      assert {:error, %Error{code: :overloaded, message: message}} = answer
      assert message =~ "Python works on as many as it takes at one time"
    end
  end

  defp state_of_suspended(name), do: :sys.get_state(connection(name))

  defp written(port, count) do
    receive do
      {:trace, ^port, :receive, {_from, {:command, _data}}} -> written(port, count + 1)
      {:trace, _traced, _what, _of} -> written(port, count)
      {:trace, _traced, _what, _of, _more} -> written(port, count)
    after
      0 -> count
    end
  end

  describe "a Python that does not read" do
    test "makes callers wait, then refuses them, and serves who waited when it reads again" do
      {name, peer, _listener} = ready(max_queued_bytes: 3_000_000)
      {waiting, error} = fill(name, peer)
      assert %Error{code: :overloaded, retryable: true} = error
      assert error.message =~ "Python reads too slowly"

      # The owner of the port is not suspended, and keeps deadlines.
      assert %{phase: :ready, python: %{writing?: true}} = state(name)
      assert {:error, %Error{code: :timeout}} = DSPex.ping(name, timeout: 1)

      Peer.signal(peer, "CONT")
      for_each_ping(waiting, peer)
    end

    test "and dies leaves those who waited to the next one" do
      {name, peer, listener} = ready(max_queued_bytes: 3_000_000)
      {calls, _error} = fill(name, peer)
      written = DSPex.Connection.State.written(state(name))
      {lost, waiting} = Enum.split(calls, written)
      assert length(lost) >= 1
      assert length(waiting) >= 2

      Peer.kill(peer)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()

      for {_number, task} <- lost,
          do: assert({:error, %Error{code: :connection_lost}} = await(task))

      for_each_ping(waiting, peer)
    end

    test "but asks and asks is killed" do
      {name, peer, listener} = ready(max_queued_bytes: 50_000)
      assert_ready(name)
      {:ok, request} = DSPex.Protocol.Codec.encode([0, 1, "call_tool", %{}])
      frame = <<byte_size(request)::32>> <> request

      # Nobody reads the refusals, of which each is longer than its request.
      Peer.raw(peer, String.duplicate(frame, 50_000))
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()

      # What it asked last is not answered to the next one.
      call = async(fn -> DSPex.ping(name) end)
      {id, _params, peer} = Peer.request(peer, "ping")
      Peer.respond(peer, id, %{payload: 1})
      assert await(call) == {:ok, 1}
    end
  end

  # Calls a Python that stands still, until a call is refused; those before it wait.
  defp fill(name, peer) do
    assert_ready(name)
    Peer.signal(peer, "STOP")
    # Killed while it stands still, it would stay so.
    on_exit(fn -> System.cmd("kill", ["-CONT", "#{peer.os_pid}"], stderr_to_stdout: true) end)
    fill(name, String.duplicate("x", 1_000_000), [])
  end

  defp fill(name, payload, waiting) do
    number = length(waiting)
    assert number < 100
    before = state(name).calls.next_id
    task = async(fn -> DSPex.ping(name, payload: "#{payload} #{number}", timeout: 30_000) end)

    case Peer.eventually(fn -> Task.yield(task, 0) || state(name).calls.next_id > before end) do
      true -> fill(name, payload, [{number, task} | waiting])
      {:ok, {{:error, error}, _messages}} -> {Enum.reverse(waiting), error}
    end
  end

  # They come in the order in which they were made.
  defp for_each_ping(tasks, peer) do
    Enum.reduce(tasks, peer, fn {number, task}, peer ->
      {id, %{"payload" => payload}, peer} = next_ping(peer)
      assert payload =~ ~r/^x+ #{number}$/
      Peer.respond(peer, id, %{payload: number})
      assert await(task) == {:ok, number}
      peer
    end)
  end

  # A ping that was given up in between is cancelled, if it was written.
  defp next_ping(peer) do
    case Peer.next(peer) do
      {{:request, id, "ping", params}, peer} -> {id, params, peer}
      {{:notification, "cancel", _params}, peer} -> next_ping(peer)
    end
  end

  describe "secrets" do
    @key "sk-7d1f0c4e-never-shown"

    defp secretive do
      [
        lms: [
          main: [
            model: "openai/x",
            api_key: @key,
            extra: %{extra_headers: %{"Authorization" => "Bearer " <> @key}}
          ]
        ]
      ]
    end

    test "are in no child specification" do
      spec = DSPex.child_spec(secretive())
      refute inspect(spec, limit: :infinity, structs: false) =~ @key
      assert inspect(spec) =~ "#DSPex.Secret<...>"
      {DSPex, :start_link, [options]} = spec.start
      assert Secret.reveal(options[:lms]["main"].api_key) == @key
    end

    test "are in no state, status or table, waiting or sent" do
      {name, listener} = start(secretive())
      peer = Peer.accept(listener)

      lm = [model: "openai/x", api_key: @key <> "-per-call"]
      waiting = async(fn -> DSPex.execute(name, "qa", %{}, lm: lm) end)
      assert_calls(name, 2)
      refute everything(name) =~ @key

      {_hello, peer} = Peer.handshake(peer)
      {id, _params, peer} = Peer.request(peer, "configure")
      refute everything(name) =~ @key
      Peer.respond(peer, id, %{})

      {id, %{"lm" => %{"api_key" => key}}, peer} = Peer.request(peer, "execute")
      assert key == @key <> "-per-call"
      refute everything(name) =~ @key
      Peer.respond(peer, id, %{outputs: %{}, program: "qa"})
      assert {:ok, _prediction} = await(waiting)
    end

    test "are not even near a status or crash report, which only count requests" do
      {name, listener} = start()
      Peer.accept(listener)
      _waiting = async(fn -> DSPex.ping(name, payload: 1) end)
      assert_calls(name, 2)

      status = inspect(:sys.get_status(connection(name)), limit: :infinity)
      assert status =~ "calls: 2"
      refute status =~ "DSPex.Connection.Outbox"
    end

    test "are in no crash report" do
      {name, listener} = start(secretive())
      peer = Peer.accept(listener)
      waiting = async(fn -> DSPex.execute(name, "qa", %{}, lm: [model: "m", api_key: @key]) end)
      assert_calls(name, 2)

      log =
        capture_log(fn ->
          monitor = Process.monitor(connection(name))
          # With a call waiting in its state.
          :ok = :sys.terminate(connection(name), :crash)
          assert_receive {:DOWN, ^monitor, :process, _pid, _reason}, @patience_ms
          assert {:error, %Error{code: :connection_lost}} = await(waiting)
          Peer.wait_gone(peer)
          Peer.accept(listener)
        end)

      assert log =~ "terminating"
      refute log =~ @key
    end

    # With structs as plain maps: an Inspect implementation must not be all that hides them.
    defp everything(name) do
      options = [limit: :infinity, printable_limit: :infinity, structs: false]
      journal = Module.concat(name, "Journal")

      inspect(
        [
          state(name),
          :sys.get_status(connection(name)),
          :ets.tab2list(journal),
          :supervisor.which_children(name),
          :sys.get_state(name),
          Process.info(connection(name))
        ],
        options
      )
    end
  end

  describe "supervision" do
    test "a connection that dies is started again, with the programs; its callers are answered" do
      {name, peer, listener} = ready()
      {_program, params, peer} = create(name, peer, "a -> b", program: "kept")
      call = async(fn -> DSPex.execute(name, "kept", %{a: "?"}) end)
      {_id, _params, peer} = Peer.request(peer, "execute")

      Process.exit(connection(name), :kill)
      assert {:error, %Error{code: :connection_lost, retryable: false}} = await(call)
      Peer.wait_gone(peer)

      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      executed(name, peer, "kept", told_again(params))
    end

    test "an instance that stops ends its Python, and its callers are answered" do
      {name, peer, _listener} = ready()
      call = async(fn -> DSPex.execute(name, "qa", %{}) end)
      {_id, _params, peer} = Peer.request(peer, "execute")
      stop_supervised!(name)
      assert {:error, %Error{code: :not_started}} = await(call)
      Peer.wait_gone(peer)
      assert {:error, %Error{code: :not_started} = error} = DSPex.ping(name)
      assert error.message =~ "add {DSPex, name: #{inspect(name)}} to the children"
    end

    test "two instances are two Pythons" do
      {one, peer_one, _} = ready()
      {two, peer_two, _} = ready()
      refute peer_one.os_pid == peer_two.os_pid

      for {name, peer} <- [{one, peer_one}, {two, peer_two}] do
        call = async(fn -> DSPex.ping(name, payload: inspect(name)) end)
        {id, params, peer} = Peer.request(peer, "ping")
        Peer.respond(peer, id, params)
        assert await(call) == {:ok, inspect(name)}
      end
    end
  end

  test "whatever happens to Python, each caller gets one answer and no second one" do
    DSPex.Test.Terms.seed()
    {name, listener} = start()
    test = self()
    bridge = spawn_link(fn -> erratic(listener, test) end)
    # The listener's owner may end before it.
    :ok = :gen_tcp.controlling_process(listener, bridge)

    answers =
      1..600
      |> Task.async_stream(
        fn n ->
          answer = DSPex.ping(name, payload: n, timeout: 300)
          {n, answer, Process.info(self(), :messages)}
        end,
        max_concurrency: 40,
        timeout: 60_000
      )
      |> Enum.map(fn {:ok, result} -> result end)

    assert length(answers) == 600

    for {n, answer, {:messages, messages}} <- answers do
      assert messages == []

      case answer do
        {:ok, payload} -> assert payload == n
        {:error, %Error{code: code}} -> assert code in [:connection_lost, :timeout, :start_failed]
      end
    end

    codes = Enum.frequencies_by(answers, fn {_n, answer, _} -> kind(answer) end)
    # It has been erratic in fact.
    assert Map.keys(codes) |> Enum.sort() |> Enum.member?(:ok)
    assert codes[:connection_lost] > 0
    assert codes[:timeout] > 0

    Process.unlink(bridge)
    Process.exit(bridge, :kill)
  end

  defp kind({:ok, _}), do: :ok
  defp kind({:error, error}), do: error.code

  # A bridge that answers most requests, some of them twice or never, and is killed now and then.
  defp erratic(listener, test) do
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
    erratic_loop(peer)
    erratic(listener, test)
  end

  defp erratic_loop(peer) do
    case Peer.next(peer) do
      {{:request, id, "ping", params}, peer} ->
        case :rand.uniform(40) do
          1 ->
            Peer.kill(peer)

          2 ->
            erratic_loop(peer)

          3 ->
            Peer.respond(peer, id, params)
            Peer.respond(peer, id, %{payload: "second"})
            erratic_loop(peer)

          _usual ->
            Peer.respond(peer, id, params)
            erratic_loop(peer)
        end

      {{:notification, "cancel", %{"id" => id}}, peer} ->
        # Late, and nobody's.
        Peer.respond(peer, id, %{payload: "late"})
        erratic_loop(peer)
    end
  end

  # How a program that was made is made again, on whichever worker.
  defp told_again(params),
    do: params |> Map.delete("timeout_ms") |> Map.put("replace", true)

  # Runs a program; before that the bridge is told this of it, or nothing.
  defp executed(name, peer, program, told) do
    # Inputs are only checked where the client knows the program.
    input = if told["signature"]["inputs"], do: hd(told["signature"]["inputs"])["name"], else: "a"
    call = async(fn -> DSPex.execute(name, program, %{input => "?"}) end)

    peer =
      if told do
        {id, ^told, peer} = Peer.request(peer, "create")
        Peer.respond(peer, id, created(told))
      else
        peer
      end

    {id, %{"program" => ^program}, peer} = Peer.request(peer, "execute")

    Peer.respond(peer, id, %{
      outputs: %{"answer" => "!", "b" => "!", "c" => "!"},
      program: program
    })

    assert {:ok, _prediction} = await(call)
    peer
  end

  defp demos(input, output),
    do: [%{inputs: %{input => "q"}, outputs: %{output => "a"}}]

  defp delete(name, peer, program) do
    task = async(fn -> DSPex.delete(name, program) end)
    {id, %{"program" => _}, peer} = Peer.request(peer, "delete")
    Peer.respond(peer, id, %{deleted: true})
    assert await(task) == :ok
    peer
  end

  # Waits until the connection has that many calls, its own included.
  defp assert_calls(name, count),
    do: Peer.eventually(fn -> map_size(state(name).calls.by_id) >= count end)

  # The answer to initialize may still be on its way.
  defp assert_ready(name), do: Peer.eventually(fn -> state(name).phase == :ready end)
end
