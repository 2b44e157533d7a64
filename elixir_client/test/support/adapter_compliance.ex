defmodule DSPex.Test.AdapterCompliance do
  @moduledoc false
  # What every `DSPex.Adapter` has to do, as tests: `use` it, with the `tags:` that they are to have (a
  # `@moduletag` behind it comes too late for them), in a case whose `setup` gives
  #
  #   * `:name` - an instance over the adapter, whose programs are the test's own or gone before it;
  #     its LM answers equal inputs equally, and configured is no more than it.
  #   * `:hang` - a function that gives options of `DSPex.execute/4` with which an execution of any
  #     program is not answered.
  #
  # What an LM says is nobody's promise here; that it fits the signature is.
  #
  # An adapter that cannot do some of it says which, `use …, without: […]`, and refuses it clearly:
  #
  #   * `:configure` - LMs are not changed by its client.
  #   * `:files` - it writes and reads no files.
  #   * `:functions` - no metrics that are functions of the application.

  use ExUnit.CaseTemplate

  defmodule Sort do
    @moduledoc "Sort a word."
    use DSPex.Signature
    input(:word, :string)
    input(:day, {:optional, :date})
    output(:kind, {:one_of, [:fruit, :tool]})
    output(:certainty, :probability)
    output(:about, :string)
  end

  def examples do
    for {word, kind, about} <- [
          {"a red apple", :fruit, "it grows on a tree"},
          {"a steel hammer", :tool, "it drives nails into wood"}
        ],
        do: %{inputs: %{word: word}, outputs: %{kind: kind, certainty: 1.0, about: about}}
  end

  @doc "What `save/3` writes, `load/3` makes the same program of."
  def saves_and_loads(name, program) do
    {:ok, prediction} = DSPex.execute(name, program, %{word: "a hammer"})

    assert {:ok, %{"path" => "a/sorter.json", "bytes" => bytes}} =
             DSPex.save(name, program, "a/sorter.json")

    assert bytes > 0
    assert {:ok, loaded} = DSPex.load(name, "a/sorter.json", program: "loaded")
    assert {:ok, same} = DSPex.execute(name, loaded, %{"word" => "a hammer"})
    assert same["about"] == prediction[:about]
  end

  using options do
    without = Keyword.get(options, :without, [])

    quote do
      use ExUnit.Case, async: true
      @moduletag without: unquote(without)
      @moduletag unquote(Keyword.get(options, :tags, []))
      alias DSPex.{Batch, Chunk, Error, Evaluation, Optimization, Prediction, Program, Progress}
      alias DSPex.Test.AdapterCompliance
      alias DSPex.Test.AdapterCompliance.Sort

      defp sorter(name, options \\ []) do
        options = Keyword.merge([program: "sorter", demos: AdapterCompliance.examples()], options)
        DSPex.create!(name, Sort, options)
      end

      describe "compliance:" do
        test "a payload comes back as the value that it was", %{name: name} do
          payload = %{
            "n" => [1, -1.5, nil, true],
            "bytes" => DSPex.Binary.new(<<0, 255>>),
            "d" => "é"
          }

          assert DSPex.ping(name, payload: payload) == {:ok, payload}
        end

        test "many calls at once have each their own answer", %{name: name} do
          answers =
            1..50
            |> Task.async_stream(&DSPex.ping(name, payload: &1),
              max_concurrency: 50,
              timeout: 60_000
            )
            |> Enum.map(fn {:ok, answer} -> answer end)

          assert answers == Enum.map(1..50, &{:ok, &1})
        end

        test "what has no form on the wire is said to have none", %{name: name} do
          assert {:error, %Error{code: :encode_error}} = DSPex.ping(name, payload: self())
        end

        test "an instance that is not there is said not to be", _context do
          assert {:error, %Error{code: :not_started}} = DSPex.ping(__MODULE__.Nowhere)
        end

        test "a program answers with outputs of its types, and what they took", %{name: name} do
          program = sorter(name)
          assert %Program{id: "sorter", module: "predict", revision: 1} = program

          assert {:ok, %Prediction{} = prediction} =
                   DSPex.execute(name, program, %{word: "an apple"})

          assert prediction[:kind] in [:fruit, :tool]
          assert prediction[:certainty] >= 0 and prediction[:certainty] <= 1
          assert is_binary(prediction[:about])
          assert Enum.sort(Map.keys(prediction.outputs)) == [:about, :certainty, :kind]
          assert prediction.program == "sorter"
          assert prediction.usage.total_tokens > 0
          assert is_number(prediction.duration_ms)
          assert {:ok, again} = DSPex.execute(name, "sorter", word: "an apple", day: nil)
          assert again.outputs == prediction.outputs
        end

        test "a chain of thought has its reasoning", %{name: name} do
          demos = [
            %{inputs: %{q: "1"}, outputs: %{reasoning: "one is odd", a: "odd"}},
            %{inputs: %{q: "2"}, outputs: %{reasoning: "two is even", a: "even"}}
          ]

          program = DSPex.create!(name, "q -> a", module: :chain_of_thought, demos: demos)
          assert {:ok, prediction} = DSPex.execute(name, program, %{"q" => "2"})
          assert is_binary(prediction["reasoning"]) and is_binary(prediction["a"])
        end

        test "what a module adds comes under an atom where the signature's outputs do", %{
          name: name
        } do
          for {module, options, added} <- [
                {:predict, %{}, []},
                {:chain_of_thought, %{}, [:reasoning]},
                {:multi_chain_comparison, %{M: 2}, [:rationale]}
              ] do
            options = [module: module, options: options, demos: AdapterCompliance.examples()]
            assert {:ok, prediction} = DSPex.call(name, Sort, [word: "an apple"], options)
            own = [:about, :certainty, :kind]
            assert {module, Map.keys(prediction.outputs) -- own} == {module, added}
            for name <- added, do: assert(is_binary(prediction[name]))
          end
        end

        test "inputs that do not fit are all named", %{name: name} do
          program = sorter(name)

          assert {:error, %Error{code: :input_validation, data: %{"errors" => errors}}} =
                   DSPex.execute(name, program, %{word: 1, day: "soon"})

          assert Enum.sort(Enum.map(errors, & &1["path"])) == [["day"], ["word"]]
        end

        test "an id is taken until its program is replaced or deleted", %{name: name} do
          sorter(name)

          assert {:error, %Error{code: :already_exists}} =
                   DSPex.create(name, Sort, program: "sorter")

          assert {:ok, %Program{revision: 2}} =
                   DSPex.create(name, Sort, program: "sorter", replace: true)

          assert DSPex.delete(name, "sorter") == :ok
          assert {:error, %Error{code: :not_found}} = DSPex.delete(name, "sorter")
          assert {:ok, %Program{}} = DSPex.create(name, Sort, program: "sorter")
        end

        test "a program that is not there is said not to be", %{name: name} do
          for ask <- [&DSPex.describe/2, &DSPex.dump/2, &DSPex.delete/2] do
            assert {:error, %Error{code: :not_found, data: data}} = ask.(name, "nobody")
            assert data["kind"] == "program"
          end

          assert {:error, %Error{code: :not_found}} = DSPex.execute(name, "nobody", %{a: 1})
        end

        test "programs are listed and described", %{name: name} do
          sorter(name)
          DSPex.create!(name, "q -> a", program: "other", module: :chain_of_thought)
          assert {:ok, programs} = DSPex.list(name)
          assert ["other", "sorter"] -- Enum.map(programs, & &1["program"]) == []

          assert {:ok, [%{"program" => "other", "revision" => 1}]} =
                   DSPex.list(name, prefix: "oth")

          assert {:ok, about} = DSPex.describe(name, "sorter")
          assert about["module"] == "predict"
          assert [%{"inputs" => %{"word" => "a red apple"}}, _other] = about["demos"]
          assert [%{"name" => "word"}, %{"name" => "day"}] = about["signature"]["inputs"]
        end

        test "a state makes the program again", %{name: name} do
          program = sorter(name)
          {:ok, prediction} = DSPex.execute(name, program, %{word: "a hammer"})
          assert {:ok, %{"format_version" => 1} = state} = DSPex.dump(name, program)
          assert {:ok, copy} = DSPex.load(name, state, program: "copy")
          assert {:ok, same} = DSPex.execute(name, copy, %{"word" => "a hammer"})
          assert same["about"] == prediction[:about]
          assert {:error, %Error{code: :invalid_params}} = DSPex.load(name, %{"a" => 1})
        end

        test "a file makes the program again", %{name: name, without: without} do
          program = sorter(name)

          if :files in without do
            assert {:error, %Error{code: :unavailable}} = DSPex.save(name, program, "a.json")
          else
            AdapterCompliance.saves_and_loads(name, program)
          end

          assert {:error, %Error{code: :not_found}} = DSPex.load(name, "a/nothing.json")
        end

        test "the configuration is told without keys", %{name: name, without: without} do
          lm = [model: "openai/gpt-5-mini", api_key: "sk-very-secret"]
          told = DSPex.configure(name, lms: [second: lm])
          refute inspect(told) =~ "very-secret"

          if :configure in without do
            assert {:error, %Error{code: :unavailable}} = told
          else
            assert {:ok, %{"lms" => %{"second" => %{"model" => "openai/gpt-5-mini"}}}} = told
          end
        end

        test "fallbacks and limits are in the configuration, and wrong ones change nothing",
             context do
          configure = &DSPex.configure(context.name, &1)

          if :configure in context.without do
            assert {:error, %Error{code: :unavailable}} = configure.(limits: [max_calls: 9])
          else
            lm = [model: "demo/knn", fallbacks: [:b], limits: [max_calls: 5]]

            assert {:ok, %{"lms" => lms, "limits" => %{"max_calls" => 9}}} =
                     configure.(lms: [a: lm, b: "demo/knn"], limits: [max_calls: 9])

            assert lms["a"] ==
                     %{
                       "model" => "demo/knn",
                       "fallbacks" => ["b"],
                       "limits" => %{"max_calls" => 5}
                     }

            assert {:error, %Error{code: :not_found, data: data}} =
                     configure.(lms: [c: [model: "demo/knn", fallbacks: [:a, :none]]])

            assert data == %{"kind" => "lm", "name" => "none", "param" => "lms.c.fallbacks"}

            assert {:error, %Error{code: :invalid_params, data: %{"param" => "lms.b.fallbacks"}}} =
                     configure.(lms: [b: [model: "demo/knn", fallbacks: [:a]]], limits: [])

            assert {:ok, %{"lms" => ^lms, "limits" => %{"max_calls" => 9}}} =
                     configure.(adapter: :chat)

            assert {:ok, %{"limits" => none}} = configure.(limits: [])
            assert none == %{}
          end
        end

        test "a program that is registered nowhere is run", %{name: name} do
          assert {:ok, prediction} =
                   DSPex.call(name, Sort, %{word: "an apple"}, demos: AdapterCompliance.examples())

          assert prediction[:kind] in [:fruit, :tool]
        end

        test "the chunks of a stream are the text, and its end is the answer", %{name: name} do
          program = sorter(name)
          options = [fields: [:about], window: 1]
          parts = name |> DSPex.stream(program, %{word: "a hammer"}, options) |> Enum.to_list()
          {chunks, [{:ok, prediction}]} = Enum.split(parts, -1)
          assert [%Chunk{field: :about} | _others] = chunks
          assert List.last(chunks).done
          assert Enum.map_join(chunks, & &1.text) == prediction[:about]
        end

        test "a stream that is left is over", %{name: name} do
          program = sorter(name)
          stream = DSPex.stream(name, program, %{word: "a hammer"}, window: 1)
          assert [%Chunk{}] = Enum.take(stream, 1)
          assert {:ok, 1} = DSPex.ping(name, payload: 1)
          assert Process.info(self(), :messages) == {:messages, []}
        end

        test "a batch answers in order, also for what does not fit", %{name: name} do
          program = sorter(name)
          test = self()

          assert {:ok, %Batch{results: [ok: first, error: error, ok: second]} = batch} =
                   DSPex.batch(
                     name,
                     program,
                     [%{word: "an apple"}, %{word: 1}, %{word: "a hammer"}],
                     on_item: fn at, {outcome, _} -> send(test, {:item, at, outcome}) end,
                     on_progress: &send(test, &1)
                   )

          assert first[:kind] in [:fruit, :tool] and second[:kind] in [:fruit, :tool]
          assert error.code == :input_validation
          assert batch.usage.total_tokens > 0
          for at <- [0, 2], do: assert_received({:item, ^at, :ok})
          assert_received %Progress{step: 2, total: 2}
        end

        test "a metric in Elixir scores, and where it fails that is its example's", %{
          name: name,
          without: without
        } do
          program = sorter(name)

          metric = fn example, prediction ->
            if example.inputs.word =~ "hammer", do: raise("no tools")
            {prediction.kind in [:fruit, :tool], "well sorted"}
          end

          scored = DSPex.evaluate(name, program, AdapterCompliance.examples(), metric: metric)

          if :functions in without do
            assert {:error, %Error{code: :unavailable}} = scored
          else
            assert {:ok, %Evaluation{score: 0.5, results: [scored, failed]}} = scored
            assert %{score: 1.0, feedback: "well sorted", outputs: %{kind: _}} = scored
            assert %{error: %Error{code: :metric_error}} = failed
          end
        end

        test "a program is scored without a metric, and by a field", %{
          name: name,
          without: without
        } do
          program = sorter(name)
          examples = AdapterCompliance.examples()

          # Of several outputs it is a function that compares them.
          unless :functions in without do
            assert {:ok, %Evaluation{score: score}} = DSPex.evaluate(name, program, examples)
            assert score >= 0 and score <= 1
          end

          assert {:ok, %Evaluation{results: results}} =
                   DSPex.evaluate(name, program, examples, metric: {:exact_match, :kind})

          for result <- results, do: assert(result.score == 0 or result.score == 1)
        end

        test "an optimized program is a new one, and the old one stays", %{
          name: name,
          without: without
        } do
          program = DSPex.create!(name, Sort, program: "plain")
          test = self()

          metric =
            if :functions in without,
              do: {:exact_match, :kind},
              else: fn example, prediction -> example.outputs.kind == prediction.kind end

          optimize = fn ->
            DSPex.optimize(name, program, AdapterCompliance.examples(),
              optimizer: {:labeled_few_shot, k: 2},
              metric: metric,
              save_as: "better",
              on_progress: &send(test, &1)
            )
          end

          assert {:ok, %Optimization{} = optimization} = optimize.()
          assert optimization.program.id == "better"
          assert optimization.base_program == "plain"
          assert is_number(optimization.score) and is_number(optimization.base_score)
          assert [%{"trial" => 0} | _others] = optimization.trials
          assert_received %Progress{phase: phase} when is_binary(phase)
          assert {:ok, prediction} = DSPex.execute(name, "better", %{word: "an apple"})
          assert prediction[:kind] in [:fruit, :tool]
          assert {:ok, %{"demos" => []}} = DSPex.describe(name, "plain")
          assert {:ok, about} = DSPex.describe(name, "better")
          assert about["lineage"]["base_program"] == "plain"
          assert {:error, %Error{code: :already_exists}} = optimize.()
        end

        test "a deadline ends what is not answered, and nothing comes after it", context do
          program = sorter(context.name)
          options = [timeout: 200] ++ context.hang.()
          began = System.monotonic_time(:millisecond)

          assert {:error, %Error{code: :timeout}} =
                   DSPex.execute(context.name, program, %{word: "?"}, options)

          assert System.monotonic_time(:millisecond) - began < 2_000
          assert {:ok, 1} = DSPex.ping(context.name, payload: 1)
          assert Process.info(self(), :messages) == {:messages, []}
        end

        test "what was begun is awaited, or cancelled from anywhere", context do
          program = sorter(context.name)
          {:ok, begun} = DSPex.async(context.name, program, %{word: "an apple"})
          assert {:ok, %Prediction{}} = DSPex.await(begun)

          {:ok, begun} = DSPex.async(context.name, program, %{word: "?"}, context.hang.())

          assert Task.await(
                   Task.async(fn -> DSPex.cancel(begun) end),
                   DSPex.Test.Scripted.patience_ms()
                 ) == :ok

          assert {:error, %Error{code: :cancelled}} = DSPex.await(begun)
          assert DSPex.cancel(begun) == :ok
        end
      end
    end
  end
end
