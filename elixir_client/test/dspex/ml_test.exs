defmodule DSPex.MLTest do
  # Against a server that the test plays itself; integration/ml_test.exs has the real one.
  use ExUnit.Case, async: true

  alias DSPex.{Error, ML}
  alias DSPex.ML.{Dataset, Execution, OptimizationJob, Page, Program}
  alias DSPex.Server.JSON
  alias DSPex.Test.Web

  setup do
    {listener, url} = Web.listen()
    ML.put_url(url)
    %{listener: listener, url: url}
  end

  # A task of this test asks where the test does.
  defp ask(fun) do
    url = ML.url()

    Task.async(fn ->
      ML.put_url(url)
      fun.()
    end)
  end

  defp serve(listener, json) do
    {socket, "/graphql", asked} = Web.accept(listener)
    Web.answer(socket, 200, "application/json", IO.iodata_to_binary(JSON.encode(json)))
    asked
  end

  defp data(field, value), do: %{"data" => %{field => value}}

  defp job(state, more \\ %{}) do
    plain = %{
      "id" => "j",
      "programId" => "p",
      "revision" => 1,
      "optimizer" => %{"name" => "copro"}
    }

    Map.merge(plain, Map.put(more, "state", state))
  end

  test "a mutation says what it wants, and gives the resource", context do
    task =
      ask(fn -> Program.create(name: "qa", signature: "q -> a", config: [temperature: 0.5]) end)

    made = %{
      "id" => "1",
      "name" => "qa",
      "state" => "READY",
      "createdAt" => "2026-01-02T03:04:05Z"
    }

    asked = serve(context.listener, data("createProgram", made))
    assert asked["query"] =~ "mutation($input: ProgramInput!)"

    assert %{"input" => %{"name" => "qa", "config" => %{"temperature" => 0.5}} = input} =
             asked["variables"]

    assert %{"inputs" => [%{"name" => "q"}], "outputs" => [%{"name" => "a"}]} =
             input["definition"]

    assert {:ok, %Program{id: "1", state: :ready} = program} = Task.await(task, Web.patience_ms())
    assert program.created_at == ~U[2026-01-02 03:04:05Z]
    assert to_string(program.signature) == "q: str -> a: str"
  end

  test "what an error of a mutation has beside the message is its data", context do
    problem = %{"code" => "wrong_state", "message" => "no", "retryable" => false}

    for {more, data} <- [
          {%{"currentState" => "archived", "allowed" => []},
           %{"state" => "archived", "allowed" => []}},
          {%{"missing" => "x", "kind" => "program"}, %{"name" => "x", "kind" => "program"}},
          {%{"param" => "demos", "position" => nil}, %{"param" => "demos"}},
          {%{"errors" => [], "execution_id" => "e"}, %{"errors" => [], "execution_id" => "e"}}
        ] do
      task = ask(fn -> Program.archive("p") end)
      serve(context.listener, data("archiveProgram", Map.merge(problem, more)))

      assert {:error, %Error{code: :wrong_state, data: ^data}} =
               Task.await(task, Web.patience_ms())
    end
  end

  test "what a query fails with is told, of the document and of the server", context do
    task = ask(fn -> Execution.list(state: :failed) end)
    extensions = %{"code" => "database_unavailable", "retryable" => true, "data" => %{}}

    asked =
      serve(context.listener, %{
        "data" => nil,
        "errors" => [%{"message" => "no", "extensions" => extensions}]
      })

    assert asked["variables"] == %{"filter" => %{"state" => ["FAILED"]}}

    assert {:error, %Error{code: :database_unavailable, retryable: true}} =
             Task.await(task, Web.patience_ms())

    task = ask(fn -> Execution.list() end)
    serve(context.listener, %{"errors" => [%{"message" => "no such field"}]})

    assert {:error, %Error{code: :invalid_params, message: "no such field"}} =
             Task.await(task, Web.patience_ms())
  end

  test "an answer that makes no sense is a parse error, and never an exception", context do
    good = %{"id" => "1", "state" => "READY"}

    for answer <- [
          [],
          %{},
          %{"data" => nil},
          %{"data" => %{"another" => good}},
          %{"errors" => [1]},
          data("program", %{good | "state" => "SLEEPING"}),
          data("program", Map.put(good, "createdAt", "soon"))
        ] do
      task = ask(fn -> Program.get("p") end)
      serve(context.listener, answer)
      assert {answer, :parse_error} == {answer, error(task).code}
    end

    task = ask(fn -> Program.get("p") end)
    {socket, _path, _asked} = Web.accept(context.listener)
    Web.answer(socket, 200, "application/json", ~s({"data": {"program": ))
    assert error(task).code == :parse_error
  end

  defp error(task) do
    assert {:error, %Error{} = error} = Task.await(task, Web.patience_ms())
    error
  end

  test "a server that is not there, fails or ends is told as what it is", context do
    task = ask(fn -> Program.get("p") end)
    {socket, _path, _asked} = Web.accept(context.listener)
    Web.answer(socket, 500, "text/plain", "Internal Server Error")
    assert error(task).code == :internal_error

    task = ask(fn -> Program.get("p") end)
    {socket, _path, _asked} = Web.accept(context.listener)
    Web.send!(socket, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{")
    :gen_tcp.close(socket)
    assert %{code: :connection_lost, retryable: false} = error(task)

    :gen_tcp.close(context.listener)
    assert {:error, %Error{code: :connection_lost, retryable: true}} = Program.get("p")
    assert_raise Error, ~r/dspex serve/, fn -> Program.create!(name: "a", signature: "q -> a") end
  end

  test "an execution that has not completed is why", context do
    row = %{"id" => "e", "state" => "CANCELLED", "inputs" => %{}}
    task = ask(fn -> Program.execute("p", %{"q" => 1}, timeout: 1_500) end)
    asked = serve(context.listener, data("executeProgram", row))

    assert %{"program" => "p", "inputs" => %{"q" => 1}, "timeoutMs" => 1_500} =
             asked["variables"]["input"]

    assert %{code: :cancelled, data: %{"execution_id" => "e"}} = error(task)
  end

  test "a job is waited for over the end of its server", context do
    test = self()
    tell = &send(test, {:progress, &1.step})
    task = ask(fn -> OptimizationJob.await("j", on_progress: tell) end)

    serve(
      context.listener,
      data("optimizationJob", job("RUNNING", %{"progress" => %{"step" => 1}}))
    )

    serve(
      context.listener,
      data("optimizationJob", job("RUNNING", %{"progress" => %{"step" => 1}}))
    )

    {socket, _path, _asked} = Web.accept(context.listener)
    :gen_tcp.close(socket)
    {socket, _path, _asked} = Web.accept(context.listener)

    gone = %{
      "error" => %{"code" => "database_unavailable", "message" => "no", "retryable" => true}
    }

    Web.answer(socket, 503, "application/json", IO.iodata_to_binary(JSON.encode(gone)))
    serve(context.listener, data("optimizationJob", job("COMPLETED", %{"resultRevision" => 2})))

    assert {:ok, %OptimizationJob{state: :completed, result_revision: 2}} =
             Task.await(task, Web.patience_ms())

    assert_received {:progress, 1}
    refute_received {:progress, 1}
  end

  test "a job that failed is its error, and one that takes too long goes on", context do
    task = ask(fn -> OptimizationJob.await("j") end)

    failed = %{
      "code" => "budget_exceeded",
      "message" => "no",
      "retryable" => false,
      "data" => %{}
    }

    serve(context.listener, data("optimizationJob", job("FAILED", %{"error" => failed})))
    assert error(task).code == :budget_exceeded

    # As often as it asks before its time is over.
    spawn_link(fn -> run_on(context.listener) end)

    assert {:error, %Error{code: :timeout, message: message}} =
             OptimizationJob.await("j", timeout: 1)

    assert message =~ "goes on"
  end

  test "every function waits as long as was said, of a server that says nothing" do
    late = [timeout: 50]

    calls = [
      {ML.Signature, create: &ML.Signature.create([name: "s", signature: "q -> a"] ++ &1)},
      {ML.Signature, get: &ML.Signature.get("s", &1), list: &ML.Signature.list/1},
      {ML.Signature, deprecate: &ML.Signature.deprecate("s", &1)},
      {Program, create: &Program.create([signature: "q -> a"] ++ &1)},
      {Program,
       get: &Program.get("p", &1),
       list: &Program.list/1,
       execute: &Program.execute("p", [q: "?"], &1)},
      {Program, deploy: &Program.deploy("p", 1, &1), rollback: &Program.rollback("p", 1, &1)},
      {Program, archive: &Program.archive("p", &1), delete: &Program.delete("p", &1)},
      {Execution,
       get: &Execution.get("e", &1), list: &Execution.list/1, cancel: &Execution.cancel("e", &1)},
      {Dataset,
       create: &Dataset.create([name: "d", rows: [%{inputs: %{q: "?"}, outputs: %{}}]] ++ &1)},
      {Dataset,
       get: &Dataset.get("d", &1), list: &Dataset.list/1, rows: &Dataset.rows("d", 0, &1)},
      {ML.Batch, start: &ML.Batch.start("p", [%{q: "?"}], &1), get: &ML.Batch.get("b", &1)},
      {ML.Batch, cancel: &ML.Batch.cancel("b", &1), await: &ML.Batch.await("b", &1)},
      {OptimizationJob,
       start: &OptimizationJob.start("p", &1), get: &OptimizationJob.get("j", &1)},
      {OptimizationJob, list: &OptimizationJob.list/1, cancel: &OptimizationJob.cancel("j", &1)},
      {OptimizationJob, await: &OptimizationJob.await("j", &1)}
    ]

    # They wait side by side, and the server does not even take them.
    asked =
      for {module, functions} <- calls, {name, call} <- functions do
        {module, name, ask(fn -> call.(late) end), ask(fn -> call.(timeout: :soon) end)}
      end

    for {module, name, late, wrong} <- asked do
      assert {^name, %{code: :timeout, message: message}} = {name, error(late)}
      assert message =~ "within 50 ms", inspect({module, name, message})
      assert {^name, %{code: :invalid_params}} = {name, error(wrong)}
    end

    # There are no others that ask a server.
    own = [:__struct__, :sort, :direction, :time, :member, :load, :outcome]

    for {module, tried} <- Enum.group_by(asked, &elem(&1, 0), &elem(&1, 1)) do
      public = module.__info__(:functions) |> Keyword.keys() |> Enum.uniq()
      others = Enum.reject(public, &(&1 in own or String.ends_with?("#{&1}", "!")))
      assert {module, Enum.sort(others)} == {module, Enum.sort(tried)}
    end
  end

  test "a job is awaited as long as was said, also of a server that says nothing", context do
    for await <- [&OptimizationJob.await/2, &ML.Batch.await/2] do
      task = ask(fn -> await.("j", timeout: 100) end)
      {:ok, _silent} = :gen_tcp.accept(context.listener, Web.patience_ms())
      assert %{code: :timeout, message: message} = error(task)
      assert message =~ "within 100 ms"
    end
  end

  test "a look at a job that takes too long is followed by another one" do
    test = self()

    look = fn timeout ->
      send(test, {:look, timeout})
      first? = Process.put(:looked, true) == nil

      if first?,
        do: {:error, Error.new(:timeout, "no answer")},
        else: {:ok, %{state: :completed, error: nil}}
    end

    assert {:ok, %{state: :completed}} = ML.Job.await(look, :infinity, fn _job -> :ok end)
    assert_received {:look, bound} when is_integer(bound)
    assert_received {:look, ^bound}
  end

  # A look that has a millisecond may have hung up before it is heard.
  defp run_on(listener) do
    try do
      serve(listener, data("optimizationJob", job("RUNNING")))
    rescue
      _hung_up in [ExUnit.AssertionError, MatchError, CaseClauseError] -> :ok
    end

    if match?({:ok, _port}, :inet.port(listener)), do: run_on(listener)
  end

  test "a page has what is behind it", context do
    task = ask(fn -> Dataset.list(name: "d", first: 1, after: "c") end)
    info = %{"hasNextPage" => true, "endCursor" => "d"}
    page = %{"nodes" => [%{"id" => "1"}], "totalCount" => 2, "pageInfo" => info}
    asked = serve(context.listener, data("datasets", page))
    assert asked["variables"] == %{"name" => "d", "page" => %{"first" => 1, "after" => "c"}}

    assert {:ok, %Page{entries: [%Dataset{id: "1"}], total: 2, next: "d"}} =
             Task.await(task, Web.patience_ms())
  end

  test "what is wrong here is said here, and nobody is asked", context do
    :gen_tcp.close(context.listener)

    for {answer, word} <- [
          {Program.create(nam: "a"), "did you mean :name?"},
          {Program.create(name: "a", signature: "q -> a", tools: []), "unknown option :tools"},
          {Program.get(nil), "DSPex.ML.Program"},
          {Program.get(%Dataset{id: "1"}), "DSPex.ML.Program"},
          {Program.list(first: 1000), "1 to 500"},
          {Program.list(sort: :age), "created_at"},
          {Execution.list(state: :asleep), "no state"},
          {ML.Signature.create(signature: "q -> a"), "name"},
          {Dataset.create(name: "d", rows: [%{inputs: %{}}]), "rows[0]"},
          {OptimizationJob.start("p", metric: fn _example, _got -> 1 end), "calls no functions"}
        ] do
      assert {:error, %Error{code: :invalid_params, message: message}} = answer
      assert message =~ word
    end

    assert {:error, %Error{code: :encode_error}} = Program.execute("p", %{q: self()})
    assert {:error, %Error{code: :signature_error}} = Program.create(name: "a", signature: "q ->")
  end

  test "a process may ask another server than its application" do
    before = ML.put_url("http://[::1]:9")
    assert ML.url() == "http://[::1]:9"
    assert {:error, %Error{code: :connection_lost, message: message}} = Program.get("p")
    assert message =~ "[::1]:9"
    ML.put_url(before)
    assert ML.url() =~ "http://127.0.0.1:"
    assert Task.await(Task.async(&ML.url/0)) == "http://127.0.0.1:8000"
    assert_raise ArgumentError, fn -> ML.put_url("https://127.0.0.1") end
    ML.put_url(nil)
    assert {:ok, {~c"127.0.0.1", 8000, nil}} = ML.address()
  end

  test "a process that asked another server asks its own again, with the token" do
    ML.put_url("http://127.0.0.1:9", token: "a-very-secret-token")
    refute inspect(Process.get()) =~ "very-secret"
    before = ML.put_url("http://127.0.0.1:10")
    refute inspect(before) =~ "very-secret"
    assert {:ok, {_host, 10, nil}} = ML.address()
    ML.put_url(before)
    assert {:ok, {_host, 9, token}} = ML.address()
    assert DSPex.Secret.reveal(token) == "a-very-secret-token"
    before = ML.put_url(nil)
    ML.put_url(before)
    assert {:ok, {_host, 9, _token}} = ML.address()
  end
end
