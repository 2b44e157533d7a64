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
    assert {:error, %Error{} = error} = Task.await(task)
    error
  end

  test "a call is a POST of its parameters, and its answer the last event", context do
    task = ping(context.name, payload: %{bytes: Binary.new(<<255>>)}, timeout: 5_000)
    {socket, path, json} = Web.accept(context.listener)
    assert path == "/v1/calls/ping"
    assert json == %{"payload" => %{"bytes" => %{"$bytes" => "/w=="}}, "timeout_ms" => 5_000}
    payload = %{"big" => 2 ** 70, "n" => %{"$float" => "inf"}}
    Web.answer(socket, 200, "text/event-stream", Web.event("result", %{"payload" => payload}))
    assert Task.await(task) == {:ok, %{"big" => 2 ** 70, "n" => :infinity}}
  end

  test "an answer that comes byte by byte is put together", context do
    task = ping(context.name)
    {socket, _path, _json} = Web.accept(context.listener)
    :ok = :inet.setopts(socket, nodelay: true)
    Web.stream(socket)
    told = Web.event("progress", %{"step" => 1}) <> Web.event("result", %{"payload" => "é"})
    pieces = for <<byte <- told>>, into: "", do: Web.chunk(<<byte>>)
    for <<byte <- pieces <> Web.last_chunk()>>, do: Web.send!(socket, <<byte>>)
    assert Task.await(task) == {:ok, "é"}
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
    assert error(task).code == :timeout
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
    assert Task.await(task) == {:ok, %{"payload" => 1}}

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
    {:ok, socket} = :gen_tcp.accept(listener, 10_000)
    assert {:ok, {:http_request, :POST, _path, _version}} = :gen_tcp.recv(socket, 0, 10_000)
    assert {:ok, {:http_header, _, :Host, _, _host}} = :gen_tcp.recv(socket, 0, 10_000)
    assert {:ok, {:http_header, _, :Authorization, _, shown}} = :gen_tcp.recv(socket, 0, 10_000)
    assert shown == "Bearer a-very-secret-token"

    unauthorized = ~s({"error": {"code": "unauthorized", "message": "no", "retryable": false}})
    Web.answer(socket, 401, "application/json", unauthorized)
    assert error(task).code == :unauthorized
  end

  test "what it is given at the start has to make sense, and says what would" do
    for {options, word} <- [
          {[url: "https://127.0.0.1"], "http://127.0.0.1:8000"},
          {[url: "http://me:secret@127.0.0.1"], "http://127.0.0.1:8000"},
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
