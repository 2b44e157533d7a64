defmodule DSPex.StreamTest do
  # Chunks and other notifications of a bridge that the test plays.
  use ExUnit.Case, async: true

  @moduletag :protocol

  import DSPex.Test.Scripted
  import ExUnit.CaptureLog

  alias DSPex.{Chunk, Error, Prediction}
  alias DSPex.Protocol.Codec
  alias DSPex.Test.Peer

  @moduletag :capture_log

  @patience_ms patience_ms()

  defmodule Answer do
    use DSPex.Signature
    input :question, :string
    output :answer, :string
    output :sure, :boolean
  end

  defp chunk(peer, id, text, fields \\ %{}) do
    chunk = %{field: "answer", attempt: 1, text: text, done: false}
    Peer.message(peer, [2, "chunk", chunk |> Map.merge(fields) |> Map.put(:id, id)])
  end

  defp granted(peer, id) do
    {{:notification, "grant", params}, peer} = Peer.next(peer)
    assert params["id"] == id
    {params["n"], peer}
  end

  # A consumer that tells each element, and takes the next one when it is told to.
  defp consumer(enumerable) do
    test = self()

    Task.async(fn ->
      Enum.each(enumerable, fn element ->
        send(test, {:element, element})

        receive do
          :more -> :ok
        end
      end)

      Process.info(self(), :messages)
    end)
  end

  defp element do
    assert_receive {:element, element}, @patience_ms
    element
  end

  test "yields the chunks under the signature's names, and the prediction as the last element" do
    {name, peer, _listener} = ready()
    {program, _params, peer} = create(name, peer, Answer, program: "p")

    task =
      async(fn ->
        name
        |> DSPex.stream(program, %{question: "?"}, fields: [:answer, "reasoning"], lm: "main")
        |> Enum.to_list()
      end)

    {id, params, peer} = Peer.request(peer, "execute")

    assert %{
             "program" => "p",
             "inputs" => %{"question" => "?"},
             "lm" => "main",
             "timeout_ms" => 60_000,
             "stream" => %{"fields" => ["answer", "reasoning"], "window" => 32}
           } = params

    chunk(peer, id, "Pa")
    # The id need not stand first, nor be known here what else there is.
    Peer.raw(peer, late_id_chunk(id, "r"))
    chunk(peer, id, "so", %{field: "reasoning", new: 1})
    chunk(peer, id, "is", %{attempt: 2, done: true, field: "new"})
    Peer.respond(peer, id, outputs(%{answer: "Paris", sure: true}))

    assert [a, b, c, d, {:ok, %Prediction{outputs: %{answer: "Paris", sure: true}}}] = await(task)
    assert a == %Chunk{field: :answer, text: "Pa", attempt: 1, done: false}
    assert {b.field, b.text} == {:answer, "r"}
    assert {c.field, c.text} == {:reasoning, "so"}
    assert d == %Chunk{field: "new", text: "is", attempt: 2, done: true}
  end

  defp late_id_chunk(id, text) do
    params =
      for {key, value} <-
            [{"zone", 1}, {"text", text}, {"field", "answer"}] ++
              [{"attempt", 1}, {"done", false}, {"id", id}] do
        {:ok, key} = Codec.encode(key)
        {:ok, value} = Codec.encode(value)
        key <> value
      end

    frame = IO.iodata_to_binary([<<0x93, 2, 0xA5, "chunk", 0x86>> | params])
    <<byte_size(frame)::32>> <> frame
  end

  test "asks for nothing until it is enumerated, and anew each time" do
    {name, peer, _listener} = ready()
    stream = DSPex.stream(name, "p", %{q: 1})
    assert Peer.silent?(peer, 50)

    for n <- 1..2, reduce: peer do
      peer ->
        task = async(fn -> Enum.to_list(stream) end)
        {id, _params, peer} = Peer.request(peer, "execute")
        Peer.respond(peer, id, outputs(%{a: n}))
        assert [{:ok, %Prediction{outputs: %{"a" => ^n}}}] = await(task)
        peer
    end
  end

  test "an error is the last element; stream! raises it and yields the prediction bare" do
    {name, peer, _listener} = ready()
    task = async(fn -> name |> DSPex.stream("p", %{}) |> Enum.to_list() end)
    {id, _params, peer} = Peer.request(peer, "execute")
    chunk(peer, id, "half")
    Peer.fail(peer, id, "lm_error", %{message: "gone"})
    assert [%Chunk{text: "half"}, {:error, %Error{code: :lm_error}}] = await(task)

    task = async(fn -> catch_error(name |> DSPex.stream!("p", %{}) |> Enum.to_list()) end)
    {id, _params, peer} = Peer.request(peer, "execute")
    chunk(peer, id, "half")
    Peer.fail(peer, id, "lm_error", %{message: "gone"})
    assert %Error{code: :lm_error, message: "gone"} = await(task)

    task = async(fn -> name |> DSPex.stream!("p", %{}) |> Enum.to_list() end)
    {id, _params, peer} = Peer.request(peer, "execute")
    chunk(peer, id, "half")
    Peer.respond(peer, id, outputs(%{a: 1}))
    assert [%Chunk{text: "half"}, %Prediction{}] = await(task)
  end

  test "what is wrong with the call is its only element" do
    assert [{:error, %Error{code: :not_started}}] = Enum.to_list(DSPex.stream(:nobody, "p", %{}))
    {name, _peer, _listener} = ready()

    assert [{:error, %Error{message: text}}] =
             Enum.to_list(DSPex.stream(name, "p", %{}, widow: 1))

    assert text =~ "did you mean :window?"

    assert [{:error, %Error{message: text}}] =
             Enum.to_list(DSPex.stream(name, "p", %{}, fields: [1]))

    assert text =~ "a list of names"
    assert [{:error, %Error{}}] = Enum.to_list(DSPex.stream(name, "p", 7))
    assert [{:error, %Error{}}] = Enum.to_list(DSPex.stream(name, 7, %{}))

    assert [{:error, %Error{code: :encode_error}}] =
             Enum.to_list(DSPex.stream(name, "p", %{q: self()}))
  end

  test "grants as many chunks as the consumer has taken, and none while it takes none" do
    {name, peer, _listener} = ready()
    task = consumer(DSPex.stream(name, "p", %{}, window: 4))
    {id, %{"stream" => %{"window" => 4}}, peer} = Peer.request(peer, "execute")
    for n <- 1..4, do: chunk(peer, id, "#{n}")

    # All four are there, and the consumer is at its first.
    assert %Chunk{text: "1"} = element()
    assert Peer.silent?(peer, 50)
    send(task.pid, :more)
    assert %Chunk{text: "2"} = element()
    assert Peer.silent?(peer, 50)

    # It is done with two when it asks for the third.
    send(task.pid, :more)
    assert %Chunk{text: "3"} = element()
    assert {2, peer} = granted(peer, id)
    assert Peer.silent?(peer, 50)
    for n <- 5..6, do: chunk(peer, id, "#{n}")

    for n <- 4..6 do
      send(task.pid, :more)
      assert element().text == "#{n}"
    end

    assert {2, peer} = granted(peer, id)
    Peer.respond(peer, id, outputs(%{}))
    send(task.pid, :more)
    assert {:ok, %Prediction{}} = element()
    send(task.pid, :more)
    assert Task.await(task, patience_ms()) == {:messages, []}
  end

  test "a window of one is granted one by one" do
    {name, peer, _listener} = ready()
    task = async(fn -> name |> DSPex.stream("p", %{}, window: 1) |> Enum.count() end)
    {id, _params, peer} = Peer.request(peer, "execute")

    peer =
      for n <- 1..10, reduce: peer do
        peer ->
          chunk(peer, id, "#{n}")
          assert {1, peer} = granted(peer, id)
          peer
      end

    Peer.respond(peer, id, outputs(%{}))
    assert await(task) == 11
  end

  test "that nobody reads on is cancelled, and what was on its way reaches no mailbox" do
    {name, peer, _listener} = ready()
    test = self()

    consumer =
      spawn_link(fn ->
        assert [%Chunk{text: "1"}] = name |> DSPex.stream("p", %{}) |> Enum.take(1)
        send(test, :stopped)

        receive do
          :report -> send(test, {:mailbox, Process.info(self(), :messages)})
        end
      end)

    {id, _params, peer} = Peer.request(peer, "execute")
    :erlang.suspend_process(consumer)
    for n <- 1..3, do: chunk(peer, id, "#{n}")
    # All of them are in its mailbox before it looks at the first.
    Peer.eventually(fn ->
      Process.info(consumer, :message_queue_len) == {:message_queue_len, 3}
    end)

    :erlang.resume_process(consumer)
    assert_receive :stopped, @patience_ms

    assert {{:notification, "cancel", %{"id" => ^id}}, peer} = Peer.next(peer)
    chunk(peer, id, "late")
    Peer.respond(peer, id, outputs(%{}))
    chunk(peer, id, "later")

    # Answered once the connection has been through all that.
    ping = async(fn -> DSPex.ping(name) end)
    {id, _params, peer} = Peer.request(peer, "ping")
    Peer.respond(peer, id, %{payload: nil})
    assert {:ok, nil} = await(ping)
    send(consumer, :report)
    assert_receive {:mailbox, {:messages, []}}, @patience_ms
    assert state(name).calls.by_id == %{}
  end

  test "chunks that come after the answer reach nobody" do
    {name, peer, _listener} = ready()
    test = self()

    consumer =
      spawn_link(fn ->
        assert [{:ok, _}] = name |> DSPex.stream("p", %{}) |> Enum.to_list()
        send(test, {:mailbox, Process.info(self(), :messages)})
      end)

    {id, _params, peer} = Peer.request(peer, "execute")
    # The consumer looks when all of it has come.
    :erlang.suspend_process(consumer)
    Peer.respond(peer, id, outputs(%{}))
    chunk(peer, id, "late")
    ping = async(fn -> DSPex.ping(name) end)
    {id, _params, peer} = Peer.request(peer, "ping")
    Peer.respond(peer, id, %{payload: nil})
    assert {:ok, nil} = await(ping)
    assert Process.info(consumer, :message_queue_len) == {:message_queue_len, 1}
    :erlang.resume_process(consumer)
    assert_receive {:mailbox, {:messages, []}}, @patience_ms
  end

  test "whose consumer dies or raises is cancelled" do
    {name, peer, _listener} = ready()
    task = consumer(DSPex.stream(name, "p", %{}))
    Process.unlink(task.pid)
    {id, _params, peer} = Peer.request(peer, "execute")
    chunk(peer, id, "1")
    assert %Chunk{} = element()
    Process.exit(task.pid, :kill)
    assert {{:notification, "cancel", %{"id" => ^id}}, peer} = Peer.next(peer)

    task = async(fn -> catch_error(Enum.each(DSPex.stream(name, "p", %{}), &raise(&1.text))) end)
    {id, _params, peer} = Peer.request(peer, "execute")
    chunk(peer, id, "oops")
    assert %RuntimeError{message: "oops"} = await(task)
    assert {{:notification, "cancel", %{"id" => ^id}}, _peer} = Peer.next(peer)
    assert state(name).calls.by_key == %{}
  end

  test "that is not answered ends at its deadline and is cancelled" do
    {name, peer, _listener} = ready()
    task = async(fn -> name |> DSPex.stream("p", %{}, timeout: 500) |> Enum.to_list() end)
    {id, %{"timeout_ms" => 500}, peer} = Peer.request(peer, "execute")
    chunk(peer, id, "1")
    # On a slow machine the deadline may come before the chunk.
    assert {:error, %Error{code: :timeout}} = List.last(await(task))
    assert {{:notification, "cancel", %{"id" => ^id}}, _peer} = Peer.next(peer)
  end

  test "whose Python ends, or whose instance stops, says so as its last element" do
    {name, peer, listener} = ready()
    task = async(fn -> name |> DSPex.stream("p", %{}) |> Enum.to_list() end)
    {id, _params, peer} = Peer.request(peer, "execute")
    chunk(peer, id, "1")
    Peer.kill(peer)
    assert {:error, %Error{code: :connection_lost, retryable: false}} = List.last(await(task))

    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
    task = async(fn -> name |> DSPex.stream("p", %{}) |> Enum.to_list() end)
    {_id, _params, _peer} = Peer.request(peer, "execute")
    stop_supervised!(name)
    assert [{:error, %Error{code: :not_started}}] = await(task)
  end

  test "chunks of two streams at once reach each its own" do
    {name, peer, _listener} = ready()

    tasks =
      for n <- 1..2, do: async(fn -> name |> DSPex.stream("p", %{n: n}) |> Enum.to_list() end)

    {ids, peer} =
      Enum.map_reduce(tasks, peer, fn _, peer ->
        {id, %{"inputs" => %{"n" => n}}, peer} = Peer.request(peer, "execute")
        {{n, id}, peer}
      end)

    for turn <- 1..3, {n, id} <- ids, do: chunk(peer, id, "#{n}.#{turn}")
    for {_n, id} <- Enum.reverse(ids), do: Peer.respond(peer, id, outputs(%{}))

    for {task, n} <- Enum.with_index(tasks, 1) do
      assert [a, b, c, {:ok, _}] = await(task)
      assert Enum.map([a, b, c], & &1.text) == ["#{n}.1", "#{n}.2", "#{n}.3"]
    end
  end

  test "chunks that cannot be read are left out, and said so" do
    {name, peer, _listener} = ready()

    log =
      capture_log(fn ->
        task = async(fn -> name |> DSPex.stream("p", %{}, window: 2) |> Enum.to_list() end)
        {id, _params, peer} = Peer.request(peer, "execute")
        Peer.message(peer, [2, "chunk", %{id: id}])
        # It has used credit all the same.
        assert {1, peer} = granted(peer, id)
        Peer.frame(peer, <<0x93, 2, 0xA5, "chunk", 0x81, 0xA2, "id", id, 0xC1>>)
        Peer.message(peer, [2, "progress", %{id: id, step: 1, total: 2}])
        Peer.respond(peer, id, outputs(%{}))
        assert [{:ok, _}] = await(task)
      end)

    assert log =~ "a chunk without field, text, attempt or done was left out"
    assert log =~ "a notification could not be read: byte"
  end

  describe "notifications about any request" do
    test "are told to its listener, in the process of the caller, until the answer" do
      {name, peer, _listener} = ready()
      test = self()

      task =
        async(fn ->
          listener = &send(test, {&1, &2, self()})
          DSPex.Instance.request(name, "batch", %{}, 5000, listener: listener)
        end)

      {id, _params, peer} = Peer.request(peer, "batch")
      Peer.message(peer, [2, "progress", %{id: id, step: 1, total: 2}])
      Peer.message(peer, [2, "item", %{id: id, index: 0, ok: %{}}])
      Peer.message(peer, [2, "progress", %{id: id + 1, step: 7, total: 7}])
      Peer.respond(peer, id, %{results: []})
      Peer.message(peer, [2, "progress", %{id: id, step: 2, total: 2}])
      assert {:ok, %{"results" => []}} = await(task)

      caller = task.pid
      assert_received {"progress", %{"step" => 1}, ^caller}
      assert_received {"item", %{"index" => 0}, ^caller}
      refute_received {"progress", _params, _caller}
    end

    test "do not reach a caller that has no listener" do
      {name, peer, _listener} = ready()
      task = async(fn -> DSPex.execute(name, "p", %{}) end)
      {id, _params, peer} = Peer.request(peer, "execute")
      for n <- 1..10, do: chunk(peer, id, "#{n}")
      Peer.respond(peer, id, outputs(%{}))
      assert {:ok, %Prediction{}} = await(task)
    end

    test "whose listener raises cancel the request" do
      {name, peer, _listener} = ready()
      listener = fn _method, params -> raise params["message"] end

      task =
        async(fn ->
          catch_error(DSPex.Instance.request(name, "optimize", %{}, 5000, listener: listener))
        end)

      {id, _params, peer} = Peer.request(peer, "optimize")
      Peer.message(peer, [2, "progress", %{id: id, message: "no patience"}])
      assert %RuntimeError{message: "no patience"} = await(task)
      assert {{:notification, "cancel", %{"id" => ^id}}, _peer} = Peer.next(peer)
    end
  end
end
