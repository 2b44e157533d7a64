defmodule DSPex.Integration.ReadmeTest do
  # The examples of the README, as they stand there; those of its guide are in guide_test.exs.
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias DSPex.Test.{Bridge, LM, Readme, Serve}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 300_000

  # The module of that section has no application's name before it.
  setup_all do
    [lines, forms, _validate] = examples("Signatures")
    Code.eval_string(lines <> forms)
    :ok
  end

  # The Elixir of a section.
  defp examples(section), do: for({"elixir", code} <- Readme.blocks(section), do: code)

  # The instance of the examples is named MyApp.DSPex: here each test has its own.
  defp own(code), do: String.replace(code, "MyApp", inspect(own()))
  defp own, do: Process.get(:own) || Process.put(:own, unique()) || Process.get(:own)
  defp unique, do: Module.concat(__MODULE__, "App#{System.unique_integer([:positive])}")

  defp evaluate(code, binding \\ []), do: code |> own() |> Code.eval_string(binding)

  defp start(lm), do: Bridge.start(name: Module.concat(own(), "DSPex"), lms: [main: lm])

  defp program do
    [_dependency, _formatter, _application, program, _run] = examples(Readme.guide())
    evaluate(program)
  end

  test "the forms of a signature mean the same, and what does not fit is told as the README has it" do
    [_lines, _forms, validate] = examples("Signatures")

    [text | others] =
      for name <- [Text, Arrow, Lists] do
        signature = Module.concat([Answer, name]).__signature__()
        DSPex.Signature.to_wire(%{signature | name: nil})
      end

    assert [%{"name" => "question"}, %{"type" => "list[str]"}] = text["inputs"]
    for other <- others, do: assert(other == text)
    {errors, _binding} = evaluate(validate)
    assert errors == [{["answer"], "type"}, {["confidence"], "max"}]
  end

  test "programs, many inputs, scores and better programs are as the README has them" do
    start("demo/knn")
    program()

    [programs] = examples("Programs")
    {_prediction, binding} = evaluate(programs)
    assert is_binary(binding[:prediction].outputs.answer)
    [many] = examples("Many inputs, scores and better programs")

    printed =
      capture_io(fn ->
        {{:ok, program}, binding} = evaluate(many)
        send(self(), {:optimized, program, binding})
      end)

    assert printed != ""
    assert_received {:optimized, program, binding}
    assert binding[:optimization].score >= binding[:optimization].base_score
    desk = Module.concat(own(), "Desk")
    assert program.id == inspect(desk)
    assert {:ok, %{outputs: %{category: :defect}}} = desk.predict(%{email: "The kettle leaks."})
  end

  test "an application's own test runs on the mock as the README has it" do
    program()
    [_child, _config, _test_config, test] = examples("In the tests of an application")
    start_supervised!({DSPex, name: Module.concat(own(), "DSPex"), backend: DSPex.Adapter.Mock})
    # Its one test, as ExUnit would run it: the case is made while ExUnit runs already.
    test =
      test
      |> String.replace("use ExUnit.Case, async: true", "import ExUnit.Assertions")
      |> String.replace(~r/  setup do: (.*)\n/, "  def setup, do: \\1\n")
      |> String.replace(~r/  test "[^"]*" do/, "  def run do")

    {{:module, module, _binary, _last}, _binding} = evaluate(test)
    module.setup()
    assert module.run()
  end

  test "a server is used as the README has it" do
    url = Serve.start()
    at = &String.replace(&1, "http://127.0.0.1:8000", url)
    [child, config, resources] = examples("Over a server")
    {child, _binding} = child |> at.() |> evaluate()
    start_supervised!(child)
    assert {:ok, 1} = DSPex.ping(Module.concat(own(), "DSPex"), payload: 1)

    assert [dspex: [{DSPex.ML, url: ^url}]] =
             Config.Reader.eval!("config.exs", "import Config\n" <> at.(config))

    before = DSPex.ML.put_url(url)

    printed =
      capture_io(fn ->
        {program, binding} = evaluate(resources)
        send(self(), {:done, program, binding[:execution]})
      end)

    assert_received {:done, program, execution}
    assert execution.outputs == %{topic: :defect}
    assert %{state: :deployed, deployed_revision: 1, revision: 2} = program

    # At the next start, which has the module compiled already.
    assert [_all, again] = Regex.run(~r/^(?:.*?)^defmodule .*?^end\n(.*)\z/ms, resources)
    capture_io(fn -> send(self(), {:again, evaluate("alias DSPex.ML\n" <> again)}) end)
    assert_received {:again, {%{id: id, state: :deployed, revision: 3}, _binding}}
    assert id == program.id

    DSPex.ML.put_url(before)
    assert printed =~ ~r/^ticket, version 1: text: str -> topic: /
    assert printed =~ ~r/^1 runs, \d+ tokens for the last one$/m
  end

  test "tokens are told as the README has it" do
    name = Module.concat(own(), "DSPex")
    start_supervised!({DSPex, name: name, backend: DSPex.Adapter.Mock})
    program = DSPex.create!(name, "question -> answer", program: "told")
    [attach] = examples("What happens")
    on_exit(fn -> DSPex.Telemetry.detach("costs") end)

    printed =
      capture_io(fn ->
        assert {:ok, []} = evaluate(attach)
        {:ok, _prediction} = DSPex.execute(name, program, %{question: "Why?"})
      end)

    assert printed =~ ~r/^told: \d+ tokens$/m
  end

  test "tools are called and streams are printed as the README has it" do
    lm =
      LM.start(
        next_thought: "look",
        next_tool_name: "stock",
        next_tool_args: ~s({"article": "kettle"}),
        reasoning: "3 are left",
        answer: "Three."
      )

    start(lm)
    [tools] = examples("Tools")
    {answer, binding} = evaluate(tools)
    assert answer == "Three."

    [stock, reserve] = binding[:tools]
    assert DSPex.Tool.call(stock, %{article: "kettle"}, %{}) == %{article: "kettle", left: 3}
    assert DSPex.Tool.call(reserve, %{count: 2}, %{meta: %{}}) == {:error, "who is the customer?"}
    assert DSPex.Tool.call(reserve, %{count: 2}, %{meta: %{"customer" => 1}}) == {:ok, 2}

    [streams] = examples("Streams")
    printed = capture_io(fn -> evaluate(streams, binding) end)
    assert printed =~ ~r/\AThree\. \(\d+ tokens\)\n\z/
  end
end
