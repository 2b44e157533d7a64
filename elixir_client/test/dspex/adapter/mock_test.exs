defmodule DSPex.Adapter.MockTest do
  use ExUnit.Case, async: true

  alias DSPex.Adapter.Mock
  alias DSPex.{Error, Signature, Tool}

  @moduletag :capture_log

  defmodule Sort do
    use DSPex.Program, server: DSPex.Adapter.MockTest.Instance

    defschema InputSchema do
      field(:word, :string, required: true)
      field(:temperature, :float, default: 0.5, variable: [low: 0, high: 2])
    end

    defschema OutputSchema do
      field(:kind, {:one_of, [:fruit, :tool]})
      field(:about, :string)
    end
  end

  setup_all do
    name = __MODULE__.Instance

    start_supervised!(
      {DSPex,
       name: name,
       backend: Mock,
       lms: [main: [model: "m", api_key: "sk-1"]],
       embedders: [words: "demo/tfidf", team: [model: "e", api_key: "sk-1"]]}
    )

    {:ok, _program} = DSPex.create(name, "q -> a", program: "everybody's")
    %{name: name}
  end

  setup %{name: name}, do: Mock.checkout(name)

  test "answers are given in the order of the script, then by the stub, then made up", %{
    name: name
  } do
    Mock.script(name, Sort, [%{kind: :tool, about: "one"}, [kind: "fruit"]])
    assert {:ok, prediction} = Sort.predict(%{word: "a"})
    assert prediction.outputs == %{kind: :tool, about: "one"}
    assert {:ok, prediction} = Sort.predict(%{word: "a"})
    assert prediction[:kind] == :fruit
    assert prediction[:about] =~ "mock about"
    Mock.stub(name, :any, %{about: "two"})
    assert {:ok, %{outputs: %{about: "two"}}} = Sort.predict(%{word: "a"})
    assert {:ok, %{outputs: %{about: "two"}}} = Sort.predict(%{word: "a"})
  end

  test "a program that is a module is run with options, and streamed, in its own instance" do
    assert {:ok, _prediction} = Sort.predict(%{word: "a"}, timeout: 10_000)
    assert {:error, %Error{code: :invalid_params}} = Sort.predict(%{word: "a"}, timeout: -1)

    for stream <- [
          DSPex.stream(Sort, %{word: "a"}),
          DSPex.stream(Sort, [word: "a"], fields: [:about])
        ] do
      assert [_chunk | _more] = parts = Enum.to_list(stream)
      assert {:ok, %{outputs: %{kind: _kind}}} = List.last(parts)
    end

    assert %DSPex.Prediction{} =
             Sort |> DSPex.stream!(%{word: "a"}) |> Enum.to_list() |> List.last()

    assert [{:error, %Error{code: :invalid_params}}] =
             Enum.to_list(DSPex.stream(Enum, %{word: "a"}))

    assert_raise Error, fn -> Enum.to_list(DSPex.stream!(Enum, %{word: "a"})) end
  end

  test "failures are scripted by their code or as they are", %{name: name} do
    error = Error.new(:lm_error, "slow down", retryable: true, data: %{"kind" => "rate_limit"})

    Mock.script(name, Sort, [
      {:error, :budget_exceeded},
      {:error, error},
      %{kind: :neither},
      fn _inputs -> :nonsense end,
      fn _inputs -> {:error, :budget_exceded} end
    ])

    assert {:error, %Error{code: :budget_exceeded}} = Sort.predict(%{word: "a"})
    assert {:error, ^error} = Sort.predict(%{word: "a"})
    assert {:error, %Error{code: :output_validation} = misfit} = Sort.predict(%{word: "a"})
    assert Exception.message(misfit) =~ "kind"
    assert {:error, %Error{code: :invalid_params, message: message}} = Sort.predict(%{word: "a"})
    assert message =~ "a scripted answer is outputs"
    assert {:error, %Error{code: :invalid_params, message: message}} = Sort.predict(%{word: "a"})
    assert message =~ "which is no code (did you mean :budget_exceeded?)"
  end

  test "what is no answer is told where it is scripted", %{name: name} do
    for {answer, why} <- [
          {{:error, :lm_eror}, "{:error, :lm_eror}, which is no code (did you mean :lm_error?)"},
          {:nonsense, "not :nonsense"},
          {["a list"], ~s(not ["a list"])}
        ] do
      error = assert_raise ArgumentError, fn -> Mock.script(name, Sort, [answer]) end
      assert error.message =~ why
      error = assert_raise ArgumentError, fn -> Mock.stub(name, Sort, answer) end
      assert error.message =~ why
    end
  end

  test "a function answers by the inputs, and one that raises is an error with its message", %{
    name: name
  } do
    Mock.stub(name, Sort, fn
      %{"word" => "hammer"} -> %{kind: :tool}
      %{"word" => "?"} -> {:error, :lm_error}
      _inputs -> raise "who?"
    end)

    assert {:ok, %{outputs: %{kind: :tool}}} = Sort.predict(%{word: "hammer"})
    assert {:error, %Error{code: :lm_error}} = Sort.predict(%{word: "?"})
    assert {:error, %Error{code: :internal_error, message: message}} = Sort.predict(%{word: "x"})
    assert message =~ "who?"
  end

  test "a function calls the program's tools, which may call the instance again", %{name: name} do
    tool =
      Tool.new(:double, "Doubles.", [n: :integer], fn %{n: n}, context ->
        if n < 0, do: raise("less than nothing")
        {:ok, prediction} = DSPex.execute(context.server, Sort, %{word: "nested"})
        %{twice: 2 * n, kind: to_string(prediction[:kind]), who: context.meta["who"]}
      end)

    Mock.stub(name, Sort, %{kind: :fruit})
    DSPex.create!(name, "q -> a, b", program: "agent", module: :react, tools: [tool])

    Mock.stub(name, "agent", fn %{"q" => _}, call ->
      {:ok, told} = call.(:double, %{n: 2})
      {:error, failure} = call.("double", %{n: -1})
      {:error, missing} = call.("other", %{})
      %{a: inspect(told), b: "#{failure.message} #{missing.code}"}
    end)

    assert {:ok, prediction} = DSPex.execute(name, "agent", %{q: "?"}, meta: %{who: "me"})
    assert prediction["a"] == inspect(%{twice: 4, kind: "fruit", who: "me"})
    assert prediction["b"] == "less than nothing not_found"
  end

  test "a program's tools are replaced by their names", %{name: name} do
    tool = &Tool.new(:double, "Doubles.", [n: :integer], &1)
    options = [program: "agent", module: :react, tools: [tool.(fn %{n: n} -> 2 * n end)]]
    DSPex.create!(name, "q -> a", options)
    :ok = DSPex.put_tools(name, "agent", [tool.(fn %{n: n} -> 3 * n end)])

    Mock.stub(name, "agent", fn _inputs, call ->
      {:ok, told} = call.(:double, %{n: 2})
      %{a: "#{told}"}
    end)

    assert {:ok, %{outputs: %{"a" => "6"}}} = DSPex.execute(name, "agent", %{q: "?"})
    other = Tool.new(:other, "", [], fn _args -> 1 end)
    assert {:error, %Error{code: :invalid_params}} = DSPex.put_tools(name, "agent", [other])
    assert {:error, %Error{code: :not_found}} = DSPex.put_tools(name, "gone", [other])
    assert {:error, %Error{code: :not_started}} = DSPex.put_tools(Nowhere, "agent", [other])
  end

  test "calls are told in their order, without what others did", %{name: name} do
    Sort.predict(%{word: "a", temperature: 1.5})
    DSPex.ping(name, payload: 1)
    assert [create, execute, ping] = Mock.calls(name)
    assert {create.method, ping.method} == {"create", "ping"}
    assert %{method: "execute", program: "DSPex.Adapter.MockTest.Sort", from: from} = execute
    assert from == self()
    assert execute.params["inputs"] == %{"word" => "a"}
    assert execute.params["config"] == %{"temperature" => 1.5}
    assert Mock.calls(name, "execute") == [execute]
  end

  test "each owner has its own, its tasks too, and others that it allows", %{name: name} do
    Mock.script(name, Sort, [%{about: "mine"}, %{about: "mine too"}, %{about: "my friend's"}])
    assert {:ok, %{outputs: %{about: "mine"}}} = Sort.predict(%{word: "a"})

    in_task = Task.async(fn -> Sort.predict(%{word: "a"}) end)

    assert {:ok, %{outputs: %{about: "mine too"}}} =
             Task.await(in_task, DSPex.Test.Scripted.patience_ms())

    test = self()

    other =
      spawn(fn ->
        receive do
          :go -> send(test, {:said, Sort.predict(%{word: "a"})})
        end
      end)

    Mock.allow(name, other)
    send(other, :go)
    assert_receive {:said, {:ok, %{outputs: %{about: "my friend's"}}}}

    # A test of its own beside this one.
    {pid, ref} =
      spawn_monitor(fn ->
        Mock.checkout(name)
        Mock.script(name, Sort, [%{about: "another's"}])
        {:ok, prediction} = Sort.predict(%{word: "a"})
        {:ok, programs} = DSPex.list(name)
        exit({prediction[:about], length(Mock.calls(name)), length(programs)})
      end)

    assert_receive {:DOWN, ^ref, :process, ^pid, {"another's", 3, 2}}
    assert length(Mock.calls(name, "execute")) == 3
  end

  test "what is made when nobody owns it is everybody's", %{name: name} do
    assert {:ok, %{outputs: %{"a" => _}}} = DSPex.execute(name, "everybody's", %{q: "?"})
    assert {:error, %Error{code: :not_found}} = DSPex.delete(name, "everybody's")
  end

  test "an owner that ends leaves nothing behind", %{name: name} do
    table = Module.concat(name, "Mock")

    {pid, ref} =
      spawn_monitor(fn ->
        Mock.checkout(name)
        Mock.script(name, Sort, [%{about: "never"}])
        {:ok, _prediction} = DSPex.call(name, "q -> a", %{q: "?"})
        {:ok, _program} = DSPex.create(name, Sort)
        {:ok, _configuration} = DSPex.configure(name, lms: [x: "y"])
        exit(:done)
      end)

    assert_receive {:DOWN, ^ref, :process, ^pid, :done}
    server = Process.whereis(Module.concat(name, "MockServer"))
    # Its own monitor of the owner may be told a moment later.
    DSPex.Test.Peer.eventually(fn -> not is_map_key(:sys.get_state(server).owners, pid) end)
    state = :sys.get_state(server)
    refute inspect(:ets.tab2list(table), limit: :infinity) =~ inspect(pid)
    refute inspect(state, limit: :infinity) =~ inspect(pid)
  end

  test "no key is held", %{name: name} do
    refute inspect(:ets.tab2list(Module.concat(name, "Mock")), limit: :infinity) =~ "sk-1"
    server = Process.whereis(Module.concat(name, "MockServer"))
    refute inspect(:sys.get_state(server), limit: :infinity) =~ "sk-1"
    keyed = [model: "m", api_key: "sk-2", extra: %{token: "sk-2"}]
    DSPex.configure(name, lms: [other: keyed], embedders: [another: keyed])
    assert {:ok, _prediction} = DSPex.execute(name, "everybody's", %{q: "?"}, lm: keyed)

    assert [%{params: configured}, %{params: %{"lm" => %{"model" => "m"}}}] = Mock.calls(name)
    assert configured["embedders"] == %{"another" => %{"model" => "m"}}
    refute inspect(Mock.calls(name)) =~ "sk-2"
  end

  test "LMs and embedders are added to those there are, or replaced by name", %{name: name} do
    {:ok, configuration} =
      DSPex.configure(name, lms: [main: "n"], embedders: [words: "demo/tfidf", more: "f"])

    assert configuration["lms"] == %{"main" => %{"model" => "n"}}

    assert configuration["embedders"] == %{
             "words" => %{"model" => "demo/tfidf"},
             "team" => %{"model" => "e"},
             "more" => %{"model" => "f"}
           }

    # Another owner sees nothing of it.
    Mock.checkout(name)
    {:ok, configuration} = DSPex.configure(name, adapter: :json)
    assert Map.keys(configuration["embedders"]) == ["team", "words"]
  end

  test "who ends takes what it asked for along", %{name: name} do
    Mock.stub(name, :any, :hang)

    asker =
      spawn(fn ->
        receive do: (:allowed -> DSPex.call(name, "q -> a", %{q: "?"}, timeout: :infinity))
      end)

    Mock.allow(name, asker)
    send(asker, :allowed)
    server = Process.whereis(Module.concat(name, "MockServer"))

    works? = fn ->
      Enum.any?(:sys.get_state(server).by_ref, &match?({_, %{request: %{caller: ^asker}}}, &1))
    end

    DSPex.Test.Peer.eventually(works?)
    Process.exit(asker, :kill)
    DSPex.Test.Peer.eventually(fn -> not works?.() end)
  end

  test "made-up outputs are of their types and constraints, and the same for the same inputs", %{
    name: name
  } do
    outputs = [
      a: {:string, min_length: 30},
      b: {:string, max_length: 3},
      c: {:string, format: :email},
      d: {:integer, min: 7, max: 9, multiple_of: 4},
      e: {:float, max: -1},
      f: :boolean,
      g: :any,
      h: :map,
      i: :binary,
      j: :date,
      k: :time,
      l: :datetime,
      m: :decimal,
      n: {:embedding, 3},
      o: :reasoning_chain,
      p: {{:list, :integer}, min_items: 4},
      q: {:set, :string},
      r: {:tuple, [:integer, :string]},
      s: {:dict, :string, :float},
      t: {:optional, :date},
      u: {:union, [:integer, :string]},
      v: {:one_of, [:x, :y]},
      w: {:constrained, :integer, min: 3, max: 3},
      x: {:tagged, :t, :integer},
      y: %{name: :string, age: :integer},
      z: :token_count
    ]

    defmodule Everything do
      use DSPex.Signature
      input(:question, :string)

      for {name, spec} <- outputs do
        case spec do
          {type, [_ | _] = options} when type not in [:tuple, :union, :one_of] ->
            output(name, type, options)

          type ->
            output(name, type)
        end
      end
    end

    made =
      for question <- ["1", "1" | Enum.map(1..50, &"question #{&1}")] do
        assert {:ok, prediction} = DSPex.call(name, Everything, %{question: question})

        assert {:ok, _outputs} =
                 Signature.validate_outputs(Everything.__signature__(), prediction.outputs)

        prediction.outputs
      end

    assert Enum.at(made, 0) == Enum.at(made, 1)
    assert length(Enum.uniq(made)) == 51
    assert made |> Enum.map(& &1.v) |> Enum.uniq() |> Enum.sort() == [:x, :y]
  end

  test "what cannot be made up is to be scripted", %{name: name} do
    assert {:error, %Error{code: :unavailable, message: message}} =
             DSPex.call(name, "q -> picture: image", %{q: "?"})

    assert message =~ "cannot make up the output picture: script an answer"
  end

  test "a mock that ends is the end of what waits for it" do
    name = __MODULE__.Ending
    start_supervised!({DSPex, name: name, backend: Mock})
    Mock.stub(name, :any, :hang)
    {:ok, begun} = DSPex.async(name, DSPex.create!(name, "q -> a"), %{q: "?"})
    stop_supervised!(name)
    assert {:error, %Error{code: :connection_lost}} = DSPex.await(begun)
    assert {:error, %Error{code: :not_started}} = DSPex.ping(name)
    assert_raise Error, ~r/no DSPex instance/, fn -> Mock.calls(name) end
  end

  test "only an adapter is one" do
    assert_raise ArgumentError, ~r/expected a module with the callbacks of DSPex.Adapter/, fn ->
      DSPex.start_link(backend: String)
    end
  end
end
