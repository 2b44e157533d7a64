defmodule DSPex.Integration.MLTest do
  # The resources of a real server, from Elixir.
  use ExUnit.Case, async: true

  alias DSPex.{Error, ML}
  alias DSPex.ML.{Batch, Dataset, Execution, OptimizationJob, Page, Program}
  alias DSPex.Test.{AdapterCompliance, Serve}
  alias DSPex.Test.AdapterCompliance.Sort

  @moduletag :integration
  @moduletag timeout: 180_000

  setup_all do
    {:ok, url: Serve.start()}
  end

  # Programs are for all tests: each has names of its own.
  setup %{url: url} do
    ML.put_url(url)
    {:ok, name: "n#{System.unique_integer([:positive])}"}
  end

  defp sorter(name),
    do: Program.create!(name: name, signature: Sort, demos: AdapterCompliance.examples())

  defp examples, do: AdapterCompliance.examples()

  test "a signature is kept, and a changed one is a new version", %{name: name} do
    signature = ML.Signature.create!(name: name, signature: Sort)
    assert %{version: 1, state: :active, created_at: %DateTime{}} = signature
    assert signature.text =~ "word: str"
    assert ML.Signature.create!(name: name, signature: Sort).id == signature.id
    assert %{version: 2} = ML.Signature.create!(name: name, signature: "question -> answer")
    assert {:ok, %Page{total: 2, entries: [second, _first]}} = ML.Signature.list(name: name)
    assert second.version == 2
    assert {:ok, %{state: :deprecated}} = ML.Signature.deprecate(signature)
    assert {:ok, %{state: :deprecated}} = ML.Signature.get(signature.id)
    assert {:ok, %Page{total: 1}} = ML.Signature.list(name: name, state: [:active, :draft])

    assert {:error, %Error{code: :wrong_state}} =
             Program.create(name: name, signature: %{signature | state: :active})
  end

  test "a program is run in one call, and its execution read back", %{name: name} do
    program = sorter(name)
    assert %Program{state: :ready, revision: 1, executions: 0} = program
    assert {:ok, execution} = Program.execute(program, %{word: "an apple", day: ~D[2024-02-29]})
    assert execution.state == :completed
    assert execution.outputs.kind in [:fruit, :tool]
    assert execution.total_tokens > 0
    assert {:ok, read} = Execution.get(execution)
    assert read.inputs == %{"word" => "an apple", "day" => "2024-02-29"}
    assert read.outputs["kind"] == Atom.to_string(execution.outputs.kind)
    assert DateTime.compare(read.created_at, read.finished_at) in [:lt, :eq]
    assert {:ok, %Program{executions: 1, signature: %DSPex.Signature{}}} = Program.get(program)

    assert {:ok, by_name} = Program.get(name)
    assert {:ok, again} = Program.execute(by_name, word: "an apple")
    assert again.outputs["kind"] in ["fruit", "tool"]
  end

  test "a program that an application says at each start has a revision for what is new",
       context do
    options = [name: context.name, signature: Sort, replace: true]
    assert %{id: id, revision: 1} = Program.create!(options)
    assert %{id: ^id, revision: 1, state: :ready} = Program.create!(options)
    assert %{id: ^id, revision: 2} = Program.create!([instructions: "Sort it."] ++ options)

    assert {:error, %Error{code: :invalid_params, message: message}} =
             Program.create([draft: true] ++ options)

    assert message =~ "draft"
    Program.archive!(id)
    assert {:error, %Error{code: :wrong_state}} = Program.create([module: :predict] ++ options)
  end

  test "a program that is read with its signature has outputs of its names and types", context do
    sorter(context.name)
    assert {:ok, read} = Program.get(context.name, signature: Sort)
    assert {:ok, execution} = Program.execute(read, word: "an apple")
    assert execution.outputs.kind in [:fruit, :tool]
    assert {:ok, %{signature: signature}} = Program.get(read)
    assert signature == Sort.__signature__()

    named = ML.Signature.create!(name: context.name, signature: Sort)
    assert {:ok, %{signature: %DSPex.Signature{}}} = Program.get(context.name, signature: named)
    assert {:error, %Error{code: :signature_error}} = Program.get(context.name, signature: Enum)
  end

  test "a program of a named signature is linked to it", %{name: name} do
    signature = ML.Signature.create!(name: name, signature: "question -> answer")
    program = Program.create!(name: name, signature: signature, module: :chain_of_thought)
    assert program.module == "chain_of_thought"

    assert {:ok, %Page{total: 1, entries: [%{id: id}]}} = Program.list(signature_id: signature.id)

    assert id == program.id
  end

  test "inputs that do not fit are told, here where their types are known, else there", context do
    program = sorter(context.name)

    for program <- [program, context.name] do
      assert {:error, %Error{code: :input_validation, data: %{"errors" => errors}}} =
               Program.execute(program, %{word: 1, day: "soon"})

      assert Enum.sort(Enum.map(errors, & &1["path"])) == [["day"], ["word"]]
    end

    assert {:ok, %Page{entries: [failed], total: 1}} = Execution.list(program_id: program.id)
    assert %{state: :failed, error: %Error{code: :input_validation}} = failed
  end

  test "an execution that fails is an error that names its row", %{name: name} do
    program = sorter(name)

    assert {:error, %Error{code: :not_found, data: %{"execution_id" => id}}} =
             Program.execute(program, %{word: "?"}, lm: :nobody)

    assert {:ok, %{state: :failed}} = Execution.get(id)
    assert {:error, %Error{code: :wrong_state}} = Execution.cancel(id)
  end

  test "what is not there, or is there already, is said", %{name: name} do
    for get <- [&Program.get/1, &Execution.get/1, &Dataset.get/1, &Batch.get/1] do
      assert {:error, %Error{code: :not_found}} = get.("nobody")
    end

    assert {:error, %Error{code: :not_found}} = OptimizationJob.get("nobody")
    assert {:error, %Error{code: :not_found}} = Program.execute("nobody", %{a: 1})
    sorter(name)

    assert {:error, %Error{code: :already_exists}} =
             Program.create(name: name, signature: "a -> b")

    assert_raise Error, ~r/already_exists/, fn -> sorter(name) end
  end

  test "lists are filtered, sorted and walked page by page", %{name: name} do
    for at <- 1..3, do: Program.create!(name: "#{name}-#{at}", signature: "q -> a")
    options = [name_contains: name, sort: :name, direction: :asc, first: 2]
    assert {:ok, %Page{entries: [first, second], total: 3} = page} = Program.list(options)
    assert {first.name, second.name} == {name <> "-1", name <> "-2"}

    assert {:ok, %Page{entries: [third], next: nil}} = Program.list(options ++ [after: page.next])

    assert third.name == name <> "-3"
    assert {:ok, %Page{total: 0}} = Program.list(name_contains: name, state: :archived)
    future = DateTime.add(DateTime.utc_now(), 3600, :second)
    assert {:ok, %Page{total: 0}} = Execution.list(created_after: future)
    assert {:error, %Error{code: :invalid_params}} = Program.list(after: "nonsense")
    assert {:error, %Error{code: :invalid_params}} = Program.list(state: :gone)
  end

  test "a program goes from deployed to archived, and is deleted", %{name: name} do
    program = sorter(name)
    assert %{state: :deployed, deployed_revision: 1} = Program.deploy!(program)
    assert {:error, %Error{code: :not_found}} = Program.rollback(program, 7)
    assert %{state: :archived, deployed_revision: nil} = Program.archive!(program)

    assert {:error, %Error{code: :wrong_state, data: %{"state" => "archived"}}} =
             Program.deploy(program)

    assert {:error, %Error{code: :wrong_state}} = Program.execute(program, %{word: "?"})
    assert Program.delete(program) == :ok
    assert {:error, %Error{code: :not_found}} = Program.delete(program)
  end

  test "a job makes a better revision, which is deployed and rolled back from", %{name: name} do
    program = Program.create!(name: name, signature: Sort)
    dataset = Dataset.create!(name: name, rows: examples(), signature: Sort)
    assert %{version: 1, size: 2} = dataset
    assert Dataset.create!(name: name, rows: examples(), signature: Sort).id == dataset.id
    assert {:ok, [%{inputs: %{"word" => "a red apple"}}, _second]} = Dataset.rows(dataset)
    assert {:ok, [_second]} = Dataset.rows(name, 1)
    assert {:ok, %Page{total: 1}} = Dataset.list(name: name)

    options = [
      dataset: dataset,
      metric: {:exact_match, :kind},
      optimizer: {:labeled_few_shot, k: 2},
      idempotency_key: name
    ]

    assert {:ok, job} = OptimizationJob.start(program, options)
    assert {:ok, %{id: same}} = OptimizationJob.start(program, options)
    assert same == job.id
    test = self()
    assert {:ok, done} = OptimizationJob.await(job, on_progress: &send(test, &1))
    assert %{state: :completed, result_revision: 2} = done
    assert is_number(done.score) and is_number(done.base_score)

    assert {:ok, %Page{total: 1}} =
             OptimizationJob.list(program_id: program.id, state: :completed)

    assert %{state: :optimized, revision: 2} = Program.get(program) |> elem(1)
    assert %{deployed_revision: 2} = Program.deploy!(program, done.result_revision)
    assert %{deployed_revision: 1} = Program.rollback!(program, 1)
    assert {:error, %Error{code: :wrong_state}} = OptimizationJob.cancel(done)

    assert {:error, %Error{code: :invalid_params, message: message}} =
             OptimizationJob.start(program, dataset: name, metric: fn _example, _got -> 1 end)

    assert message =~ "calls no functions"
  end

  test "many inputs are a job, and each is an execution", %{name: name} do
    program = sorter(name)
    inputs = for word <- ["an apple", "a hammer", "a pear"], do: %{word: word}
    assert {:ok, batch} = Batch.start(program, inputs)
    test = self()
    assert {:ok, done} = Batch.await(batch, on_progress: &send(test, {:progress, &1}))
    assert %{state: :completed, total: 3, completed: 3, failed: 0} = done
    assert_received {:progress, %DSPex.Progress{total: 3}}
    assert {:ok, %Page{entries: entries, total: 3}} = Execution.list(batch_id: batch.id)
    assert Enum.sort(Enum.map(entries, & &1.batch_index)) == [0, 1, 2]

    assert {:error, %Error{code: :input_validation, message: "inputs[1]: " <> _}} =
             Batch.start(program, [%{word: "a"}, %{word: 1}])
  end

  test "a job is awaited for a while, and cancelled", %{name: name} do
    program = sorter(name)
    dataset = Dataset.create!(name: name, rows: examples(), signature: Sort)
    # More work than there is time for.
    optimizer = {:bootstrap_few_shot_random_search, num_candidate_programs: 1000}
    options = [dataset: dataset, metric: {:exact_match, :kind}, optimizer: optimizer]
    assert {:ok, job} = OptimizationJob.start(program, options)
    assert {:error, %Error{code: :timeout}} = OptimizationJob.await(job, timeout: 1)
    assert {:ok, %{state: :cancelled}} = OptimizationJob.cancel(job)
    assert {:error, %Error{code: :cancelled}} = OptimizationJob.await(job)
  end

  defmodule Photo do
    @moduledoc "Describe a photo."
    use DSPex.Signature
    input(:photo, :binary)
    output(:kind, {:one_of, [:fruit, :tool]})
  end

  test "values that JSON has not keep their meaning, in inputs, demonstrations and rows",
       context do
    bytes = <<0, 255, 128>>
    example = %{inputs: %{photo: bytes}, outputs: %{kind: :fruit}}
    program = Program.create!(name: context.name, signature: Photo, demos: [example])
    assert {:ok, execution} = Program.execute(program, photo: bytes)
    assert execution.outputs == %{kind: :fruit}
    assert {:ok, read} = Execution.get(execution)
    assert read.inputs["photo"] == DSPex.Binary.new(bytes)
    dataset = Dataset.create!(name: context.name, rows: [example], signature: Photo)
    assert {:ok, [%{inputs: %{"photo" => photo}}]} = Dataset.rows(dataset)
    assert photo == DSPex.Binary.new(bytes)
  end
end
