defmodule DSPexTest do
  use ExUnit.Case, async: true

  @moduletag :protocol

  alias DSPex.{Error, Prediction, Program}
  alias DSPex.Test.{Peer, Scripted}

  doctest DSPex.Prediction

  @moduletag :capture_log

  defmodule Sorter do
    @moduledoc "Sort."
    use DSPex.Signature
    input :text, :string
    input :attachment, {:optional, :binary}
    output :label, {:one_of, [:good, :bad]}
    output :due, :date
  end

  setup context do
    if context[:instance] == false do
      :ok
    else
      {listener, command} = Peer.listen()
      name = Module.concat(__MODULE__, "I#{System.unique_integer([:positive])}")
      Scripted.start(name: name, command: command)
      {_hello, peer} = listener |> Peer.accept() |> Peer.handshake()
      %{name: name, peer: peer}
    end
  end

  # Calls, and answers the one request that comes of it.
  defp answer(peer, method, result, call) do
    task = Task.async(call)
    {id, params, peer} = Peer.request(peer, method)
    Peer.respond(peer, id, if(is_function(result), do: result.(params), else: result))
    {params, Task.await(task, Scripted.patience_ms())}
  end

  defp created(params) do
    %{
      program: params["program"],
      module: params["module"] || "predict",
      revision: 1,
      signature: params["signature"],
      input_schema: %{"type" => "object"},
      output_schema: %{}
    }
  end

  describe "create" do
    test "sends the signature, the demonstrations by their types, and the options", context do
      {params, result} =
        answer(context.peer, "create", &created/1, fn ->
          DSPex.create(context.name, Sorter,
            program: :sorter,
            module: :chain_of_thought,
            lm: :main,
            adapter: :json,
            config: [temperature: 0],
            options: %{},
            instructions: "Sort well.",
            replace: true,
            demos: [
              %{
                inputs: %{text: "t", attachment: <<0xFF>>},
                outputs: %{label: :good, due: ~D[2024-02-29]}
              },
              %{"inputs" => %{"text" => "t"}, "outputs" => [label: :bad]}
            ],
            timeout: 5000
          )
        end)

      assert {:ok, %Program{id: "sorter", module: "chain_of_thought", revision: 1} = program} =
               result

      assert program.signature == Sorter.__signature__()
      assert program.input_schema == %{"type" => "object"}

      assert inspect(program) ==
               ~s(#DSPex.Program<"sorter", chain_of_thought, text: str, attachment: bytes | None -> ) <>
                 ~s(label: Literal["good", "bad"], due: date>)

      assert params == %{
               "program" => "sorter",
               "module" => "chain_of_thought",
               "lm" => "main",
               "adapter" => "json",
               "config" => %{"temperature" => 0},
               "options" => %{},
               "instructions" => "Sort well.",
               "replace" => true,
               "timeout_ms" => 5000,
               "signature" => %{
                 "name" => "DSPexTest.Sorter",
                 "instructions" => "Sort.",
                 "inputs" => [
                   %{"name" => "text", "type" => "str"},
                   %{"name" => "attachment", "type" => "bytes | None"}
                 ],
                 "outputs" => [
                   %{"name" => "label", "type" => ~s(Literal["good", "bad"])},
                   %{"name" => "due", "type" => "date"}
                 ]
               },
               "demos" => [
                 %{
                   "inputs" => %{"text" => "t", "attachment" => DSPex.Binary.new(<<0xFF>>)},
                   "outputs" => %{"label" => "good", "due" => "2024-02-29"}
                 },
                 %{"inputs" => %{"text" => "t"}, "outputs" => %{"label" => "bad"}}
               ]
             }
    end

    test "chooses ids that differ", context do
      [one, two] =
        for _ <- 1..2 do
          {params, {:ok, program}} =
            answer(context.peer, "create", &created/1, fn ->
              DSPex.create(context.name, "a -> b")
            end)

          assert program.id == params["program"]
          program.id
        end

      assert one != two
    end

    test "refuses what is wrong here, with what would be right", context do
      for {signature, options, code, message} <- [
            {"a -> b", [modul: :predict], :invalid_params,
             "unknown option :modul (did you mean :module?); the options are :program, :module,"},
            {"a -> b", [timeout: 0], :invalid_params,
             "option :timeout: expected milliseconds from 1, or :infinity, got 0"},
            {"a -> b", [program: ""], :invalid_params,
             "option :program: expected a name: an atom or a string, got \"\""},
            {"a -> b", [lm: "a", lm: "b"], :invalid_params, "the option :lm is given twice"},
            {"a -> b", [lm: [model: "m", api_key: "sk-secret"]], :invalid_params,
             "option :lm: expected a name: an atom or a string, got a list"},
            {"a -> b", %{lm: "a"}, :invalid_params, "options are a keyword list"},
            {"a -> b", [demos: [%{inputs: %{}, outputs: %{}}, %{inputs: %{}}]], :invalid_params,
             "demos[1]: expected %{inputs: %{...}, outputs: %{...}}"},
            {"a -> b", [demos: [%{inputs: 5, outputs: %{}}]], :invalid_params,
             "demos[0]: expected"},
            {"a > b", [], :signature_error, "unexpected character \">\" (at character 2)"},
            {nil, [], :signature_error, "a signature is a module that uses DSPex.Signature"}
          ] do
        assert {:error, %Error{code: ^code} = error} =
                 DSPex.create(context.name, signature, options)

        assert {message, String.slice(error.message, 0, String.length(message))} ==
                 {message, message}
      end

      assert Peer.silent?(context.peer, 20)
    end

    test "raises the error in its bang form", context do
      assert_raise Error, ~r/signature_error: expected the name of an input/, fn ->
        DSPex.create!(context.name, "")
      end
    end
  end

  describe "execute" do
    setup %{name: name, peer: peer} do
      {_params, {:ok, program}} =
        answer(peer, "create", &created/1, fn -> DSPex.create(name, Sorter, program: "sorter") end)

      %{program: program}
    end

    @result %{
      "outputs" => %{"label" => "bad", "due" => "2024-02-29", "reasoning" => "so"},
      "program" => "sorter",
      "lm" => "main",
      "usage" => %{"prompt_tokens" => 10, "completion_tokens" => 5, "total_tokens" => 15},
      "cost_usd" => nil,
      "duration_ms" => 12.5,
      "cached" => true
    }

    test "converts inputs and outputs by the signature, by handle and by id", context do
      for program <- [context.program, "sorter"] do
        {params, result} =
          answer(context.peer, "execute", @result, fn ->
            DSPex.execute(context.name, program, %{text: "t", attachment: "bytes"},
              lm: "other",
              adapter: :xml,
              config: %{temperature: 0.5}
            )
          end)

        assert params == %{
                 "program" => "sorter",
                 "inputs" => %{"text" => "t", "attachment" => DSPex.Binary.new("bytes")},
                 "lm" => "other",
                 "adapter" => "xml",
                 "config" => %{"temperature" => 0.5},
                 "timeout_ms" => 60_000
               }

        assert result ==
                 {:ok,
                  %Prediction{
                    outputs: %{label: :bad, due: ~D[2024-02-29], reasoning: "so"},
                    program: "sorter",
                    lm: "main",
                    usage: %{prompt_tokens: 10, completion_tokens: 5, total_tokens: 15},
                    cost_usd: nil,
                    duration_ms: 12.5,
                    cached: true
                  }}
      end
    end

    test "takes an LM of its own, with its key", context do
      {params, {:ok, _prediction}} =
        answer(context.peer, "execute", @result, fn ->
          DSPex.execute(context.name, "sorter", [text: "t"],
            lm: [model: "openai/x", api_key: "sk-1"]
          )
        end)

      assert params["lm"] == %{"model" => "openai/x", "api_key" => "sk-1"}
      assert params["inputs"] == %{"text" => "t"}
    end

    test "gives outputs as they are where nothing is known of the program", context do
      {_params, result} =
        answer(context.peer, "execute", %{@result | "program" => "other"}, fn ->
          DSPex.execute(context.name, "other", %{})
        end)

      assert {:ok, %Prediction{outputs: %{"label" => "bad", "due" => "2024-02-29"}}} = result
    end

    test "knows the signature of a replaced program and forgets a deleted one", context do
      {_params, {:ok, _program}} =
        answer(context.peer, "create", &created/1, fn ->
          DSPex.create(context.name, "text -> label", program: "sorter", replace: true)
        end)

      result = %{@result | "outputs" => %{"label" => "free"}}
      run = fn program -> fn -> DSPex.execute(context.name, program, %{text: "t"}) end end
      # The handle is of the program before.
      {_params, executed} = answer(context.peer, "execute", result, run.(context.program))
      assert {:ok, %Prediction{outputs: %{"label" => "free"}}} = executed

      {params, deleted} =
        answer(context.peer, "delete", %{deleted: true}, fn ->
          DSPex.delete(context.name, context.program)
        end)

      assert {params["program"], deleted} == {"sorter", :ok}
      {_params, executed} = answer(context.peer, "execute", @result, run.("sorter"))
      assert {:ok, %Prediction{outputs: %{"due" => "2024-02-29"}}} = executed
    end

    test "refuses outputs that do not fit the signature", context do
      result = put_in(@result, ["outputs", "label"], "ugly")

      {_params, answer} =
        answer(context.peer, "execute", result, fn ->
          DSPex.execute(context.name, "sorter", %{text: "t"})
        end)

      assert {:error, %Error{code: :output_validation} = error} = answer
      assert Exception.message(error) =~ ~s(- label: expected Literal["good", "bad"], got "ugly")
    end

    test "refuses an answer without outputs", context do
      {_params, answer} =
        answer(context.peer, "execute", %{"oops" => 1}, fn ->
          DSPex.execute(context.name, "sorter", %{text: "t"})
        end)

      assert {:error, %Error{code: :internal_error} = error} = answer
      assert error.message == ~s(the bridge answered execute with %{"oops" => 1})
    end

    test "refuses what is wrong here", context do
      for {program, inputs, options, message} <- [
            {5, %{}, [],
             "a program is a %DSPex.Program{}, its id, or a module that uses DSPex.Program, not 5"},
            {"", %{}, [],
             "a program is a %DSPex.Program{}, its id, or a module that uses DSPex.Program, not \"\""},
            {%{key: "sk-secret"}, %{}, [retry: 0],
             "a program is a %DSPex.Program{}, its id, or a module that uses DSPex.Program, not a map"},
            {"p", [1], [], "inputs: expected a map or a keyword list"},
            {"p", ~D[2024-02-29], [], "inputs: expected a map or a keyword list"},
            {"p", %{}, [lm: [api_key: "sk-secret"]],
             "option :lm: an LM needs a :model, such as \"openai/gpt-5-mini\""},
            {"p", %{}, [lm: [model: "m", api_key: ""]],
             "option :lm: option :api_key: expected a string that is not empty"},
            {"p", %{}, [lm: %{"model" => "m", "api_kee" => "sk-secret"}],
             "option :lm: unknown option \"api_kee\" (did you mean :api_key?)"}
          ] do
        assert {:error, %Error{code: :invalid_params} = error} =
                 DSPex.execute(context.name, program, inputs, options)

        assert {message, String.slice(error.message, 0, String.length(message))} ==
                 {message, message}

        refute inspect(error) =~ "sk-secret"
      end
    end

    test "raises the error in its bang form", context do
      assert_raise Error, ~r/invalid_params/, fn -> DSPex.execute!(context.name, 5, %{}) end
    end
  end

  test "list, describe, stats and ping give what the bridge has", %{name: name, peer: peer} do
    programs = [%{"program" => "qa", "module" => "predict"}]

    {params, result} =
      answer(peer, "list", %{programs: programs}, fn -> DSPex.list(name, prefix: "q") end)

    assert {params["prefix"], result} == {"q", {:ok, programs}}

    {params, result} = answer(peer, "describe", %{"a" => 1}, fn -> DSPex.describe(name, "qa") end)
    assert {params["program"], result} == {"qa", {:ok, %{"a" => 1}}}

    {_params, result} = answer(peer, "stats", %{"in_flight" => 0}, fn -> DSPex.stats(name) end)
    assert result == {:ok, %{"in_flight" => 0}}

    {params, result} =
      answer(peer, "ping", &%{payload: &1["payload"]}, fn -> DSPex.ping(name, payload: [1]) end)

    assert {params["payload"], result} == {[1], {:ok, [1]}}
  end

  test "a dumped state is loaded, under its signature", %{name: name, peer: peer} do
    state = %{
      "signature" => %{
        "inputs" => [%{"name" => "q", "type" => "str"}],
        "outputs" => [%{"name" => "due", "type" => "date"}]
      }
    }

    {params, result} = answer(peer, "dump", %{state: state}, fn -> DSPex.dump(name, "qa") end)
    assert {params["program"], result} == {"qa", {:ok, state}}

    {params, result} =
      answer(peer, "load", &created/1, fn ->
        DSPex.load(name, state, program: "copy", replace: true)
      end)

    assert %{"program" => "copy", "replace" => true, "state" => ^state} = params
    assert {:ok, %Program{id: "copy", signature: signature} = program} = result
    assert to_string(signature) == "q: str -> due: date"

    {_params, result} =
      answer(peer, "execute", %{outputs: %{due: "2024-02-29"}, program: "copy"}, fn ->
        DSPex.execute(name, program, %{q: "?"})
      end)

    assert {:ok, %Prediction{outputs: %{"due" => ~D[2024-02-29]}}} = result

    assert {:error, %Error{code: :invalid_params, message: message}} = DSPex.load(name, %{})
    assert message == "this is no state that DSPex.dump/2 gave"
    assert {:error, %Error{code: :invalid_params}} = DSPex.load(name, "")
  end

  test "a state in a file is loaded by its path, and the journal has what was in it", %{
    name: name,
    peer: peer
  } do
    state = %{"signature" => %{"inputs" => [%{"name" => "q"}], "outputs" => [%{"name" => "a"}]}}
    load = &DSPex.load(name, "a/qa.json", [program: "qa"] ++ &1)
    task = Task.async(fn -> load.([]) end)
    peer = read_file(peer, state)
    {id, %{"program" => "qa", "state" => ^state} = params, peer} = Peer.request(peer, "load")
    peer = Peer.respond(peer, id, created(params))

    assert {:ok, %Program{id: "qa", signature: signature}} =
             Task.await(task, Scripted.patience_ms())

    assert to_string(signature) == "q: str -> a: str"
    before = DSPex.Instance.program(name, "qa")
    assert before.signature == signature

    # What cannot be used takes no program's place.
    task = Task.async(fn -> load.(replace: true) end)
    peer = read_file(peer, Map.put(state, "tools", [%{"name" => "search"}]))

    assert {:error, %Error{code: :invalid_params, message: message}} =
             Task.await(task, Scripted.patience_ms())

    assert message =~ "the state has the tools search"

    # Nor does one that was not read in time, and nothing is left of it.
    task = Task.async(fn -> load.(replace: true, timeout: 200) end)
    {id, params, peer} = Peer.request(peer, "load")
    {_id, _params, _peer} = peer |> Peer.respond(id, created(params)) |> Peer.request("dump")
    assert {:error, %Error{code: :timeout}} = Task.await(task, Scripted.patience_ms())
    refute DSPex.Instance.program(name, params["program"])
    assert DSPex.Instance.program(name, "qa") == before
  end

  # A file is looked at under an id of its own.
  defp read_file(peer, state) do
    {id, %{"path" => "a/qa.json", "program" => own} = params, peer} = Peer.request(peer, "load")
    assert own != "qa"

    {id, %{"program" => ^own}, peer} =
      peer |> Peer.respond(id, created(params)) |> Peer.request("dump")

    peer = Peer.respond(peer, id, %{state: state})
    {id, %{"program" => ^own}, peer} = Peer.request(peer, "delete")
    Peer.respond(peer, id, %{deleted: true})
  end

  test "configure sends LMs and embedders with their keys", %{name: name, peer: peer} do
    {params, result} =
      answer(peer, "configure", %{"adapter" => "chat"}, fn ->
        DSPex.configure(name,
          lms: %{"a" => "demo/knn", b: [model: "m", api_key: "sk-1"]},
          default_lm: :a,
          embedders: [
            words: "demo/tfidf",
            e: [model: "m", api_key: "sk-2", extra: [dimensions: 8]]
          ]
        )
      end)

    assert Map.delete(params, "timeout_ms") == %{
             "lms" => %{
               "a" => %{"model" => "demo/knn"},
               "b" => %{"model" => "m", "api_key" => "sk-1"}
             },
             "default_lm" => "a",
             "embedders" => %{
               "words" => %{"model" => "demo/tfidf"},
               "e" => %{"model" => "m", "api_key" => "sk-2", "extra" => %{"dimensions" => 8}}
             }
           }

    assert result == {:ok, %{"adapter" => "chat"}}
  end

  test "fallbacks and limits are sent by name, of an LM, of all and of one for a call", context do
    {params, _result} =
      answer(context.peer, "configure", %{}, fn ->
        DSPex.configure(context.name,
          lms: [
            main: [model: "m", fallbacks: [:other, "third"], limits: [max_calls: 3]],
            other: %{"model" => "m", "fallbacks" => [], "limits" => %{"max_cost_usd" => 0.5}}
          ],
          limits: %{max_tokens: 100, max_concurrency: 2}
        )
      end)

    assert Map.delete(params, "timeout_ms") == %{
             "lms" => %{
               "main" => %{
                 "model" => "m",
                 "fallbacks" => ["other", "third"],
                 "limits" => %{"max_calls" => 3}
               },
               "other" => %{
                 "model" => "m",
                 "fallbacks" => [],
                 "limits" => %{"max_cost_usd" => 0.5}
               }
             },
             "limits" => %{"max_tokens" => 100, "max_concurrency" => 2}
           }

    # No limits are not the same as nothing said of them.
    {params, _result} =
      answer(context.peer, "configure", %{}, fn -> DSPex.configure(context.name, limits: []) end)

    assert Map.delete(params, "timeout_ms") == %{"limits" => %{}}

    lm = [model: "m", fallbacks: [:main], limits: [requests_per_minute: 6]]

    {params, _result} =
      answer(context.peer, "execute", %{}, fn ->
        DSPex.execute(context.name, "p", %{}, lm: lm)
      end)

    assert params["lm"] == %{
             "model" => "m",
             "fallbacks" => ["main"],
             "limits" => %{"requests_per_minute" => 6}
           }
  end

  test "a prediction names the LM that stood in, and errors have what was tried and spent",
       context do
    execute = fn -> DSPex.execute(context.name, "p", %{}) end
    result = %{"outputs" => %{}, "program" => "p", "lm" => "other"}

    assert {_params, {:ok, %Prediction{lm: "other"}}} =
             answer(context.peer, "execute", result, execute)

    spent = %{
      "scope" => "lm",
      "name" => "main",
      "limit" => "max_calls",
      "allowed" => 1,
      "spent" => 1
    }

    tried = %{
      "kind" => "server",
      "model" => "n",
      "tried" => [%{"lm" => "main", "kind" => "auth"}]
    }

    for {code, data} <- [budget_exceeded: spent, lm_error: tried] do
      task = Task.async(execute)
      {id, _params, peer} = Peer.request(context.peer, "execute")
      Peer.fail(peer, id, "#{code}", %{data: data})
      assert {:error, %Error{code: ^code, data: ^data}} = Task.await(task, Scripted.patience_ms())
    end
  end

  describe "without an instance" do
    @describetag instance: false

    test "calls say what to add to the supervision tree" do
      assert {:error, %Error{code: :not_started} = error} = DSPex.ping(NoSuch)

      assert Exception.message(error) ==
               "not_started: no DSPex instance named NoSuch is running; " <>
                 "add {DSPex, name: NoSuch} to the children of a supervisor"

      assert {:error, %Error{code: :not_started}} = DSPex.execute(NoSuch, "p", %{})
      assert {:error, %Error{code: :invalid_params}} = DSPex.ping("no atom")
    end

    test "wrong options raise, with what is right" do
      for {options, message} <- [
            {[nam: A],
             "DSPex: unknown option :nam (did you mean :name?); the options are :name, :lms,"},
            {[name: "a"], "DSPex: option :name: expected an atom, got \"a\""},
            {[command: "dspex bridge"],
             "DSPex: option :command: expected a list of strings such as [\"dspex\", \"bridge\"], " <>
               "got \"dspex bridge\""},
            {[lms: "openai/x"],
             "DSPex: option :lms: expected a map or keyword list of LMs by name"},
            {[lms: [main: []]], "DSPex: option :lms: main: an LM needs a :model"},
            {[lms: [main: [model: "m", temperatur: 1]]],
             "DSPex: option :lms: main: unknown option :temperatur (did you mean :temperature?)"},
            {[lms: [main: [model: "m", api_key: nil]]],
             "DSPex: option :lms: main: option :api_key: expected a string that is not empty (is the variable set?)"},
            {[lms: [main: [model: "m", temperature: -1]]],
             "DSPex: option :lms: main: option :temperature: expected a number from 0"},
            {[lms: [main: 5]],
             "DSPex: option :lms: main: an LM is a model's name or a keyword list with :model"},
            {[lms: %{5 => "m"}], "DSPex: option :lms: ?: an LM's name is an atom or a string"},
            {[embedders: ["demo/tfidf"]],
             "DSPex: option :embedders: expected a map or keyword list of embedders by name"},
            {[embedders: [words: []]],
             "DSPex: option :embedders: words: an embedder needs a :model, such as \"openai/text-"},
            {[embedders: [words: 5]],
             "DSPex: option :embedders: words: an embedder is a model's name or a keyword list"},
            {[embedders: %{5 => "m"}],
             "DSPex: option :embedders: ?: an embedder's name is an atom or a string"},
            {[embedders: [words: [model: "m", temperature: 1]]],
             "DSPex: option :embedders: words: unknown option :temperature; the options are"},
            {[default_lm: :main], "DSPex: option :default_lm: \"main\" is none of the LMs []"},
            {[max_frame_bytes: 4095],
             "DSPex: option :max_frame_bytes: expected an integer from 4096, got 4095"},
            {[max_queued_bytes: 0],
             "DSPex: option :max_queued_bytes: expected an integer from 1, got 0"},
            {[lms: [main: [model: "m", num_retries: 21]]],
             "DSPex: option :lms: main: option :num_retries: expected an integer from 0 to 20, got 21"},
            {[lms: [main: [model: "m", num_retries: -1]]],
             "DSPex: option :lms: main: option :num_retries: expected an integer from 0 to 20, got -1"},
            {[lms: [main: [model: "m", timeout_ms: 0]]],
             "DSPex: option :lms: main: option :timeout_ms: expected an integer from 1, got 0"},
            {[lms: [main: [model: "m", fallbacks: :other]]],
             "DSPex: option :lms: main: option :fallbacks: expected a list of LMs' names"},
            {[lms: [main: [model: "m", fallbacks: [:other | :third]]]],
             "DSPex: option :lms: main: option :fallbacks: expected a list of LMs' names"},
            {[lms: [main: [model: "m", fallbacks: [:other, nil]]]],
             "DSPex: option :lms: main: option :fallbacks: an LM's name is an atom or a string"},
            {[lms: [main: [model: "m", limits: [max_call: 1]]]],
             "DSPex: option :lms: main: option :limits: unknown option :max_call (did you mean :max_calls?)"},
            {[lms: [main: [model: "m", limits: %{"max_call" => 1}]]],
             "DSPex: option :lms: main: option :limits: unknown option \"max_call\" (did you mean :max_calls?)"},
            {[limits: [max_calls: -1]],
             "DSPex: option :limits: option :max_calls: expected an integer from 0, got -1"},
            {[limits: 5], "DSPex: option :limits: options are a keyword list"},
            {[embedders: [words: [model: "m", limits: [max_calls: 1]]]],
             "DSPex: option :embedders: words: unknown option :limits"},
            {[lms: [main: [model: "m", api_base: 5]]],
             "DSPex: option :lms: main: option :api_base: expected a string that is not empty"}
          ] do
        error = assert_raise ArgumentError, fn -> DSPex.child_spec(options) end

        assert {options, String.slice(error.message, 0, String.length(message))} ==
                 {options, message}

        assert_raise ArgumentError, fn -> DSPex.start_link(options) end
      end
    end

    test "options are checked twice without harm" do
      spec =
        DSPex.child_spec(
          lms: [main: [model: "m", api_key: "sk-1", extra: [a: 1]]],
          default_lm: :main,
          embedders: [words: [model: "m", api_key: "sk-2"]]
        )

      refute inspect(spec, limit: :infinity) =~ "sk-"

      {DSPex, :start_link, [options]} = spec.start
      assert {DSPex, :start_link, [^options]} = DSPex.child_spec(options).start
      assert {spec.id, spec.type} == {DSPex, :supervisor}
    end

    test "a command that is not there says what to do" do
      assert {:error, %Error{code: :start_failed} = error} =
               DSPex.start_link(name: NoCommand, command: ["/no/such/dspex", "bridge"])

      assert error.message =~
               "the option :command names \"/no/such/dspex\", which is no executable file"
    end
  end
end
