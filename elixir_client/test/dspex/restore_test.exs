defmodule DSPex.RestoreTest do
  # What the next Python is told, and when there is no next one.
  use ExUnit.Case, async: true

  @moduletag :protocol

  import ExUnit.CaptureLog

  alias DSPex.Connection.Calls
  alias DSPex.{Error, Secret}
  alias DSPex.Test.{Peer, Scripted}

  @moduletag :capture_log

  @patience_ms 30_000

  # After a first failure that is not final the next Python comes in a tenth of that.
  @long_ms 1000

  defp start(options \\ []) do
    {listener, command} = Peer.listen()
    name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
    Scripted.start([name: name, command: command] ++ options)
    {name, listener}
  end

  defp await(task), do: Task.await(task, @patience_ms)
  defp connection(name), do: Scripted.connection(name)
  defp state(name), do: :sys.get_state(connection(name))
  defp down?(name), do: state(name).phase == :down

  defp answer(peer, method, call, result) do
    task = Task.async(call)
    {id, params, peer} = Peer.request(peer, method)
    Peer.respond(peer, id, result.(params))
    {await(task), params, peer}
  end

  defp created(params) do
    %{
      program: params["program"],
      module: "predict",
      revision: 1,
      input_schema: %{},
      output_schema: %{}
    }
  end

  defp ping(name, peer) do
    {result, _params, peer} = answer(peer, "ping", fn -> DSPex.ping(name, payload: 7) end, & &1)
    assert result == {:ok, 7}
    peer
  end

  # A Python that refuses its configuration; gives the client's error for a call.
  defp refuse_configuration(name, listener, message) do
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
    {id, _params, peer} = Peer.request(peer, "configure")
    Peer.fail(peer, id, "invalid_params", %{message: message})
    Peer.wait_gone(peer)
    Peer.eventually(fn -> down?(name) end)
    assert {:error, error} = DSPex.ping(name)
    error
  end

  describe "a program is made again" do
    test "without the deadline of the call that made it, however short that was" do
      {name, listener} = start()
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()

      create = fn -> DSPex.create(name, "a -> b", program: "created", timeout: 5000) end
      {{:ok, _program}, created, peer} = answer(peer, "create", create, &created/1)

      state = %{"signature" => "a -> b"}
      load = fn -> DSPex.load(name, state, program: "loaded", timeout: 6000) end
      {{:ok, _program}, loaded, peer} = answer(peer, "load", load, &created/1)

      assert {created["timeout_ms"], loaded["timeout_ms"]} == {5000, 6000}
      Peer.kill(peer)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()

      Enum.reduce([{"create", created}, {"load", loaded}], peer, fn {method, params}, peer ->
        program = params["program"]
        again = params |> Map.delete("timeout_ms") |> Map.put("replace", true)
        call = Task.async(fn -> DSPex.execute(name, program, %{a: "?"}) end)
        {load, ^again, peer} = Peer.request(peer, method)
        Peer.respond(peer, load, created(again))
        {id, _params, peer} = Peer.request(peer, "execute")
        Peer.respond(peer, id, %{outputs: %{b: "!"}, program: program})
        assert {:ok, _prediction} = await(call)
        peer
      end)
    end
  end

  describe "a program is told again" do
    # The answer may have crossed the cancel: whether it was done nobody knows.
    for {method, change} <- [
          {"create", quote(do: &DSPex.create(&1, "a -> c", program: "p", replace: true))},
          {"load",
           quote(do: &DSPex.load(&1, %{"signature" => "a -> c"}, program: "p", replace: true))},
          {"delete", quote(do: &DSPex.delete(&1, "p"))}
        ] do
      test "before its next call, where who asked for a #{method} is gone" do
        {name, listener} = start()
        {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
        create = fn -> DSPex.create(name, "a -> b", program: "p") end
        {{:ok, _program}, made, peer} = answer(peer, "create", create, &created/1)

        change = unquote(change)
        {:ok, caller} = Task.start(fn -> change.(name) end)
        {id, params, peer} = Peer.request(peer, unquote(method))
        Process.exit(caller, :kill)
        assert {{:notification, "cancel", %{"id" => ^id}}, peer} = Peer.next(peer)
        peer = Peer.respond(peer, id, created(params))

        call = Task.async(fn -> DSPex.execute(name, "p", %{a: "?"}) end)
        again = made |> Map.delete("timeout_ms") |> Map.put("replace", true)
        assert {id, ^again, peer} = Peer.request(peer, "create")
        peer = Peer.respond(peer, id, created(again))
        {id, _params, peer} = Peer.request(peer, "execute")
        Peer.respond(peer, id, %{outputs: %{b: "!"}, program: "p"})
        assert {:ok, _prediction} = await(call)
      end
    end
  end

  describe "a Python that refuses the handshake" do
    test "is not started again: calls are told the reason, and that a retry is of no use" do
      {name, listener} = start(lms: [main: "no/such"])

      log =
        capture_log(fn ->
          assert %Error{code: :start_failed, retryable: false} =
                   error = refuse_configuration(name, listener, "no such provider")

          assert error.message ==
                   "Python could not be made ready: configure was refused: invalid_params: " <>
                     "no such provider; it stays down until DSPex.configure/2 gives another " <>
                     "configuration or the instance is restarted"

          assert Peer.no_more?(listener, @long_ms)
        end)

      assert log =~ "no such provider; it stays down until DSPex.configure/2"
    end

    test "for its version or a name that is not found is not started again either" do
      for {method, code} <- [{"initialize", "unsupported_version"}, {"configure", "not_found"}] do
        {name, listener} = start(lms: [main: "demo/knn"])
        peer = Peer.accept(listener)

        peer = if method == "configure", do: peer |> Peer.handshake() |> elem(1), else: peer

        {id, _params, peer} = Peer.request(peer, method)
        Peer.fail(peer, id, code)
        Peer.wait_gone(peer)
        Peer.eventually(fn -> down?(name) end)
        assert {:error, %Error{code: :start_failed, retryable: false} = error} = DSPex.ping(name)
        assert error.message =~ "#{method} was refused: #{code}: no"
        assert Peer.no_more?(listener, @long_ms)
      end
    end

    test "for what may pass, or a person may mend, is started again, and calls are told which it is" do
      for {code, retryable?} <- [{"overloaded", true}, {"unavailable", false}] do
        {name, listener} = start(lms: [main: "demo/knn"])
        {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
        call = Task.async(fn -> DSPex.ping(name) end)
        {id, _params, peer} = Peer.request(peer, "configure")
        Peer.eventually(fn -> Calls.count(state(name).calls) == 2 end)
        Peer.fail(peer, id, code, %{message: "no DSPy"})
        assert {:error, %Error{code: :start_failed, retryable: ^retryable?}} = await(call)
        {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
        {_params, peer} = Peer.accept_configure(peer)
        ping(name, peer)
      end
    end

    test "is started again by a configure that mends what was refused on another worker" do
      {name, listener} = start(lms: [bad: "no/such"], pool_size: 2)

      for _ <- 1..2 do
        {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
        {id, _params, peer} = Peer.request(peer, "configure")
        Peer.fail(peer, id, "invalid_params")
        Peer.wait_gone(peer)
      end

      Peer.eventually(fn ->
        match?({:ok, [%{status: :down}, %{status: :down}]}, DSPex.workers(name))
      end)

      mend = Task.async(fn -> DSPex.configure(name, lms: [bad: "demo/knn"]) end)
      {_hello, one} = listener |> Peer.accept() |> Peer.handshake()
      {mended, one} = Peer.accept_configure(one)
      {_params, _one} = Peer.accept_configure(one)
      assert {:ok, %{}} = await(mend)
      {_hello, two} = listener |> Peer.accept() |> Peer.handshake()
      assert {^mended, _two} = Peer.accept_configure(two)

      Peer.eventually(fn ->
        match?({:ok, [%{status: :ready}, %{status: :ready}]}, DSPex.workers(name))
      end)
    end

    test "is started again by a configure that mends what was refused, which is kept" do
      {name, listener} = start(lms: [bad: "no/such", good: "demo/knn"], default_lm: :good)
      refuse_configuration(name, listener, "no such provider")

      mend = Task.async(fn -> DSPex.configure(name, lms: [bad: "demo/knn"], adapter: :json) end)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      {mended, peer} = Peer.accept_configure(peer)

      assert mended == %{
               "lms" => %{"bad" => %{"model" => "demo/knn"}, "good" => %{"model" => "demo/knn"}},
               "default_lm" => "good",
               "adapter" => "json"
             }

      # The bridge's answer to the caller's own words is the one that counts.
      {id, params, peer} = Peer.request(peer, "configure")
      assert %{"lms" => %{"bad" => %{"model" => "demo/knn"}}, "adapter" => "json"} = params
      Peer.respond(peer, id, %{"adapter" => "json"})
      assert await(mend) == {:ok, %{"adapter" => "json"}}
      peer = ping(name, peer)

      Peer.kill(peer)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      assert {^mended, _peer} = Peer.accept_configure(peer)
    end

    test "keeps a configuration that it took, though it ended before it could answer" do
      {name, listener} = start(lms: [main: "no/such"])
      refuse_configuration(name, listener, "no such provider")
      mend = Task.async(fn -> DSPex.configure(name, lms: [main: "demo/knn"]) end)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      {mended, peer} = Peer.accept_configure(peer)
      {_id, _params, peer} = Peer.request(peer, "configure")
      Peer.kill(peer)
      assert {:error, %Error{code: :connection_lost, retryable: true}} = await(mend)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      assert {^mended, peer} = Peer.accept_configure(peer)
      ping(name, peer)
    end

    test "stays down with the new reason where a configure is refused too" do
      {name, listener} = start(lms: [main: "no/such"])
      refuse_configuration(name, listener, "no such provider")
      mend = Task.async(fn -> DSPex.configure(name, lms: [main: "nor/this"]) end)
      assert %Error{retryable: false} = error = refuse_configuration(name, listener, "nor this")
      assert error.message =~ "invalid_params: nor this"
      assert await(mend) == {:error, error}
      assert Peer.no_more?(listener, @long_ms)
      assert %{calls: %{by_id: by_id, by_key: by_key}, outbox: %{bytes: 0}} = state(name)
      assert {by_id, by_key} == {%{}, %{}}
    end

    test "is not made of one whose configure only waited for a first start" do
      {name, listener} = start(lms: [main: "demo/knn"])
      peer = Peer.accept(listener)
      other = Task.async(fn -> DSPex.configure(name, lms: [other: "no/such"]) end)
      Peer.eventually(fn -> map_size(state(name).calls.by_id) == 2 end)
      {_hello, peer} = Peer.handshake(peer)
      {params, peer} = Peer.accept_configure(peer)
      assert Map.keys(params["lms"]) == ["main"]
      {id, _params, peer} = Peer.request(peer, "configure")
      Peer.fail(peer, id, "invalid_params")
      assert {:error, %Error{code: :invalid_params}} = await(other)
      ping(name, peer)
    end

    test "is tried once more when its supervisor starts the connection again" do
      {name, listener} = start(lms: [main: "demo/knn"])
      refuse_configuration(name, listener, "not now")
      Process.exit(connection(name), :kill)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      {_params, peer} = Peer.accept_configure(peer)
      ping(name, peer)
    end
  end

  test "the next Python is told the fallbacks and limits that were given last" do
    {name, listener} =
      start(
        lms: [main: [model: "m", fallbacks: [:other], limits: [max_calls: 9]], other: "n"],
        default_lm: :main,
        limits: [max_tokens: 100, max_calls: 10]
      )

    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
    {params, peer} = Peer.accept_configure(peer)

    main = %{"model" => "m", "fallbacks" => ["other"], "limits" => %{"max_calls" => 9}}
    assert %{"lms" => %{"main" => ^main, "other" => %{"model" => "n"}}} = params
    assert params["limits"] == %{"max_tokens" => 100, "max_calls" => 10}

    configure = fn -> DSPex.configure(name, lms: [other: "o"], limits: [max_calls: 20]) end
    {{:ok, _}, _params, peer} = answer(peer, "configure", configure, fn _params -> %{} end)
    Peer.kill(peer)
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
    {again, _peer} = Peer.accept_configure(peer)
    # Limits are in place of those before, LMs are added.
    assert again == %{
             params
             | "lms" => %{"main" => main, "other" => %{"model" => "o"}},
               "limits" => %{"max_calls" => 20}
           }
  end

  test "an address, which may have a password in it, is as secret as a key" do
    address = "https://user:pass-never-shown@host.example/v1"
    lm = [model: "openai/x", api_base: address]

    spec = DSPex.child_spec(lms: [main: lm])
    refute inspect(spec, limit: :infinity, structs: false) =~ "never-shown"
    {DSPex, :start_link, [options]} = spec.start
    assert Secret.reveal(options[:lms]["main"].api_base) == address

    {name, listener} = start(lms: [main: lm])
    {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
    {params, peer} = Peer.accept_configure(peer)
    assert params["lms"]["main"]["api_base"] == address

    call = Task.async(fn -> DSPex.execute(name, "qa", %{}, lm: lm) end)
    {id, params, peer} = Peer.request(peer, "execute")
    assert params["lm"]["api_base"] == address

    shown = [
      state(name),
      :sys.get_status(connection(name)),
      :ets.tab2list(Module.concat(name, "Journal")),
      :supervisor.which_children(name),
      :sys.get_state(name)
    ]

    refute inspect(shown, limit: :infinity, printable_limit: :infinity, structs: false) =~
             "never-shown"

    Peer.respond(peer, id, %{outputs: %{}, program: "qa"})
    assert {:ok, _prediction} = await(call)
  end
end
