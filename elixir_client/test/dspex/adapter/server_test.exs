defmodule DSPex.Adapter.ServerTest do
  use ExUnit.Case, async: true

  alias DSPex.{Adapter, Binary, Error}
  alias DSPex.Test.Web

  setup context do
    {listener, url} = Web.listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    limit = Map.get(context, :max_frame_bytes, 16 * 1024 * 1024)

    start_supervised!(
      {DSPex, name: name, max_frame_bytes: limit, backend: {Adapter.Server, url: url}}
    )

    %{name: name, listener: listener}
  end

  # The client's call, made beside the test, which is the server.
  defp ping(name, options \\ []), do: Task.async(fn -> DSPex.ping(name, options) end)

  defp error(task) do
    assert {:error, %Error{} = error} = Task.await(task, Web.patience_ms())
    error
  end

  test "a program has no tools of this application", %{name: name} do
    tool = DSPex.Tool.new(:hour, "", [], fn _args -> "noon" end)

    assert {:error, %Error{code: :invalid_params, message: message}} =
             DSPex.put_tools(name, "qa", [tool])

    assert message =~ "calls no functions of this application"
  end

  test "a call is a POST of its parameters, and its answer the last event", context do
    task = ping(context.name, payload: %{bytes: Binary.new(<<255>>)}, timeout: 5_000)
    {socket, path, json} = Web.accept(context.listener)
    assert path == "/v1/calls/ping"
    assert json == %{"payload" => %{"bytes" => %{"$bytes" => "/w=="}}, "timeout_ms" => 5_000}
    payload = %{"big" => 2 ** 70, "n" => %{"$float" => "inf"}}
    Web.answer(socket, 200, "text/event-stream", Web.event("result", %{"payload" => payload}))
    assert Task.await(task, Web.patience_ms()) == {:ok, %{"big" => 2 ** 70, "n" => :infinity}}
  end

  test "an answer that comes byte by byte is put together", context do
    task = ping(context.name)
    {socket, _path, _json} = Web.accept(context.listener)
    :ok = :inet.setopts(socket, nodelay: true)
    Web.stream(socket)
    told = Web.event("progress", %{"step" => 1}) <> Web.event("result", %{"payload" => "é"})
    pieces = for <<byte <- told>>, into: "", do: Web.chunk(<<byte>>)
    # It hangs up when it has its result, which may be before the last of them.
    for <<byte <- pieces <> Web.last_chunk()>>, do: :gen_tcp.send(socket, <<byte>>)
    assert Task.await(task, Web.patience_ms()) == {:ok, "é"}
  end

  test "an event costs as much for each of its bytes, however long it is", context do
    [short, long] =
      for kib <- [256, 4096] do
        task = Task.async(fn -> reductions(fn -> DSPex.ping(context.name) end) end)
        {socket, _path, _json} = Web.accept(context.listener)
        text = String.duplicate("x", kib * 1024)
        Web.stream(socket)
        event = Web.event("result", %{"payload" => text})
        for <<piece::binary-size(1024) <- event>>, do: Web.send!(socket, Web.chunk(piece))
        rest = binary_part(event, byte_size(event), -rem(byte_size(event), 1024))
        Web.send!(socket, [Web.chunk(rest), Web.last_chunk()])
        assert {{:ok, ^text}, reductions} = Task.await(task, Web.patience_ms())
        reductions
      end

    # It has 16 times as many bytes; with a search of all that has come at each piece it is 70 times.
    assert long < 32 * short
  end

  defp reductions(fun) do
    {:reductions, before} = Process.info(self(), :reductions)
    answer = fun.()
    {:reductions, now} = Process.info(self(), :reductions)
    {answer, now - before}
  end

  # The head of an answer may come in any notation, and after others that are none yet.
  test "the length of an answer is what its head says, in any notation", context do
    event = Web.event("result", %{"payload" => 1})
    chunked = Web.chunk(event) <> Web.last_chunk()

    for {head, body} <- [
          {"Transfer-Encoding: Chunked\r\n", chunked},
          {"transfer-encoding: chunked\r\ncontent-length: 3\r\n", chunked},
          {"content-length: 3\r\ntransfer-encoding: chunked\r\n", chunked},
          {"content-length: #{byte_size(event)}\r\n", event},
          {"", event}
        ] do
      task = ping(context.name)
      {socket, _path, _json} = Web.accept(context.listener)
      early = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
      Web.send!(socket, [early, "HTTP/1.1 200 OK\r\n", head, "\r\n", body])
      :gen_tcp.close(socket)
      assert {head, {:ok, 1}} == {head, Task.await(task, Web.patience_ms())}
    end
  end

  describe "a long body" do
    defp long, do: String.duplicate("x", 8 * 1024 * 1024)

    test "that is refused before it is read has the reason", context do
      for {status, code} <- [{401, "unauthorized"}, {413, "frame_too_large"}] do
        task =
          Task.async(fn ->
            Adapter.request(context.name, "ping", %{payload: long()}, 20_000, retry: 2)
          end)

        {socket, _path, _headers} = Web.head(context.listener)
        reason = ~s({"error": {"code": "#{code}", "message": "no", "retryable": false}})
        Web.answer(socket, status, "application/json", reason)
        assert to_string(error(task).code) == code
      end
    end

    test "is sent when the server asks for it", context do
      task = ping(context.name, payload: long(), timeout: 20_000)
      {socket, _path, %{"expect" => "100-continue"} = headers} = Web.head(context.listener)
      Web.send!(socket, "HTTP/1.1 100 Continue\r\n\r\n")
      assert Web.body(socket, headers)["payload"] == long()
      Web.answer(socket, 200, "text/event-stream", Web.event("result", %{"payload" => 1}))
      assert Task.await(task, Web.patience_ms()) == {:ok, 1}
    end

    test "is sent to a server that does not know to ask", context do
      task = ping(context.name, payload: long(), timeout: 20_000)
      {socket, _path, json} = Web.accept(context.listener)
      assert json["payload"] == long()
      Web.answer(socket, 200, "text/event-stream", Web.event("result", %{"payload" => 1}))
      assert Task.await(task, Web.patience_ms()) == {:ok, 1}
    end

    test "that no server takes is refused here", context do
      :gen_tcp.close(context.listener)

      assert %{code: :frame_too_large, data: data} =
               error(ping(context.name, payload: long() <> long()))

      assert %{"limit" => 16_777_216, "size" => size} = data
      assert size > 16_777_216
    end
  end

  test "of a program that was deleted nothing is kept", context do
    rows = fn -> :ets.info(Module.concat(context.name, "Server"), :size) end
    before = rows.()

    for {call, answer} <- [
          {fn -> DSPex.create(context.name, "q -> a", program: "qa") end,
           %{"program" => "qa", "module" => "predict", "revision" => 1}},
          {fn -> DSPex.delete(context.name, "qa") end, %{}}
        ] do
      task = Task.async(call)
      {socket, _path, _json} = Web.accept(context.listener)
      Web.answer(socket, 200, "text/event-stream", Web.event("result", answer))
      refute match?({:error, _error}, Task.await(task, Web.patience_ms()))
      send(self(), {:rows, rows.()})
    end

    assert_received {:rows, made} when made == before + 1
    assert_received {:rows, ^before}
  end

  test "what its process is not asked by DSPex does not end it", context do
    pid = Process.whereis(context.name)
    send(pid, :stray)
    GenServer.cast(pid, :stray)
    assert GenServer.call(pid, :stray) == {:error, :unknown_call}
    assert Process.whereis(context.name) == pid
  end

  test "where nobody listens the error says so, and that it is safe to call again", context do
    :gen_tcp.close(context.listener)
    error = error(ping(context.name))
    assert %{code: :connection_lost, retryable: true} = error
    assert error.message =~ "dspex serve"
  end

  test "a status with no reason is told as it is", context do
    task = ping(context.name)
    {socket, _path, _json} = Web.accept(context.listener)
    Web.answer(socket, 500, "text/plain", "Internal Server Error")
    assert %{code: :internal_error, data: %{"status" => 500}} = error(task)
  end

  test "a status with a reason is that error", context do
    task = ping(context.name)
    {socket, _path, _json} = Web.accept(context.listener)

    reason =
      ~s({"error": {"code": "database_unavailable", "message": "no", "retryable": true, "data": {}}})

    Web.answer(socket, 503, "application/json", reason)
    assert %{code: :database_unavailable, retryable: true} = error(task)
  end

  test "an answer that is no event, no JSON or no value is a parse error", context do
    for body <- [
          "event: result\ndata: {\"payload\": }\n\n",
          "event: result\ndata: {\"payload\": {\"$bytes\": 1}}\n\n",
          "event: error\ndata: {}\n\n",
          "whatever\n\n"
        ] do
      task = ping(context.name)
      {socket, _path, _json} = Web.accept(context.listener)
      Web.answer(socket, 200, "text/event-stream", body)
      assert {body, :parse_error} == {body, error(task).code}
    end
  end

  test "what is no HTTP is told to be none", context do
    for bytes <- ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"] do
      task = ping(context.name)
      {socket, _path, _json} = Web.accept(context.listener)
      Web.send!(socket, bytes)
      assert {bytes, :parse_error} == {bytes, error(task).code}
    end

    task = ping(context.name)
    {socket, _path, _json} = Web.accept(context.listener)
    Web.stream(socket)
    Web.send!(socket, "so many\r\n")
    assert error(task).code == :parse_error
  end

  test "a server that ends in the middle of its answer is lost, wherever that was", context do
    head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    whole = head <> Web.chunk(Web.event("result", %{"payload" => 1}))

    for size <- [0, 10, 40, byte_size(head), byte_size(head) + 10] do
      task = ping(context.name)
      {socket, _path, _json} = Web.accept(context.listener)
      Web.send!(socket, binary_part(whole, 0, size))
      :gen_tcp.close(socket)
      assert %{code: :connection_lost, retryable: false} = error(task)
    end
  end

  test "a stream that ends without its last event is lost", context do
    task = ping(context.name)
    {socket, _path, _json} = Web.accept(context.listener)
    Web.answer(socket, 200, "text/event-stream", Web.event("progress", %{"step" => 1}))
    assert error(task).code == :connection_lost
  end

  test "a server that is slow is late, and is hung up on", context do
    task = ping(context.name, timeout: 100)
    {socket, _path, _json} = Web.accept(context.listener)
    assert %{code: :timeout, message: "no answer within 100 ms"} = error(task)
    Web.hung_up(socket)
  end

  test "a deadline counts for the whole answer, not for each of its pieces", context do
    task = ping(context.name, timeout: 300)
    {socket, _path, _json} = Web.accept(context.listener)
    Web.stream(socket)
    began = System.monotonic_time(:millisecond)
    flood(socket, Web.chunk(Web.event("progress", %{"step" => 1})))
    assert error(task).code == :timeout
    assert System.monotonic_time(:millisecond) - began < 5_000
  end

  @tag max_frame_bytes: 4096
  test "an answer that is longer than is accepted is refused before it is there", context do
    task = ping(context.name)
    {socket, _path, _json} = Web.accept(context.listener)
    Web.stream(socket)
    flood(socket, Web.chunk(String.duplicate("x", 1000)))
    assert %{code: :frame_too_large, data: %{"limit" => 4096}} = error(task)
  end

  defp flood(socket, bytes) do
    with :ok <- :gen_tcp.send(socket, bytes), do: flood(socket, bytes)
  end

  @tag max_frame_bytes: 4096
  test "so is a refusal", context do
    task = ping(context.name)
    {socket, _path, _json} = Web.accept(context.listener)
    Web.answer(socket, 500, "text/plain", String.duplicate("x", 100_000))
    assert error(task).code == :frame_too_large
  end

  test "a call is made again where that was asked for, and not where it was not", context do
    call = fn retry ->
      Task.async(fn ->
        Adapter.request(context.name, "ping", %{payload: 1}, 5_000, retry: retry)
      end)
    end

    task = call.(2)

    for _attempt <- 1..2 do
      {socket, _path, _json} = Web.accept(context.listener)
      :gen_tcp.close(socket)
    end

    {socket, _path, _json} = Web.accept(context.listener)
    Web.answer(socket, 200, "text/event-stream", Web.event("result", %{"payload" => 1}))
    assert Task.await(task, Web.patience_ms()) == {:ok, %{"payload" => 1}}

    task = call.(0)
    {socket, _path, _json} = Web.accept(context.listener)
    :gen_tcp.close(socket)
    assert error(task).code == :connection_lost
  end

  test "a call is cancelled where its process ends", context do
    {pid, monitor} = spawn_monitor(fn -> DSPex.ping(context.name) end)
    {socket, _path, _json} = Web.accept(context.listener)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^monitor, :process, ^pid, :killed}
    Web.hung_up(socket)
  end

  test "one that was begun is cancelled from anywhere, also while it is awaited", context do
    {:ok, open} = Adapter.open(context.name, "execute", %{program: "p"}, :infinity, false)
    {socket, _path, _json} = Web.accept(context.listener)
    Task.await(Task.async(fn -> Adapter.cancel(open) end))
    assert {:answer, {:error, %Error{code: :cancelled}}} = Adapter.next(open)
    Web.hung_up(socket)
    assert Process.info(self(), :messages) == {:messages, []}
  end

  test "a token is shown, and to nobody else", context do
    {listener, url} = Web.listen()
    name = Module.concat(context.name, "Token")
    options = [name: name, backend: {Adapter.Server, url: url, token: "a-very-secret-token"}]
    spec = DSPex.child_spec(options)
    refute inspect(spec, limit: :infinity) =~ "very-secret"
    start_supervised!(spec)
    refute inspect(:ets.tab2list(Module.concat(name, "Server"))) =~ "very-secret"

    task = ping(name)
    {socket, _path, headers} = Web.head(listener)
    assert headers["authorization"] == "Bearer a-very-secret-token"

    unauthorized = ~s({"error": {"code": "unauthorized", "message": "no", "retryable": false}})
    Web.answer(socket, 401, "application/json", unauthorized)
    assert error(task).code == :unauthorized
  end

  test "what it is given at the start has to make sense, and says what would" do
    for {options, word} <- [
          {[url: "https://127.0.0.1"], "http://127.0.0.1:8000"},
          {[url: "http://me:secret@127.0.0.1"], "http://127.0.0.1:8000"},
          {[url: "http://127.0.0.1:70000"], "http://127.0.0.1:8000"},
          {[url: "http://127.0.0.1:0"], "http://127.0.0.1:8000"},
          {[ulr: "http://127.0.0.1"], "the options are :url, :token"},
          {[token: "of two\r\nlines"], "ASCII"},
          {[token: ""], "is the variable set?"}
        ] do
      error =
        assert_raise ArgumentError, fn ->
          DSPex.start_link(name: __MODULE__.Wrong, backend: {Adapter.Server, options})
        end

      assert error.message =~ word
      refute error.message =~ "secret"
    end

    Process.flag(:trap_exit, true)
    options = [name: __MODULE__.Wrong, backend: Adapter.Server, lms: [main: "demo/knn"]]
    assert {:error, %Error{code: :invalid_params, message: message}} = DSPex.start_link(options)
    assert message =~ "--lms"
  end
end
