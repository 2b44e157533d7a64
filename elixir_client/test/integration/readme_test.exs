defmodule DSPex.Integration.ReadmeTest do
  # The examples of the README's sections on tools and streams, as they stand there.
  use ExUnit.Case, async: true

  import ExUnit.CaptureIO

  alias DSPex.Test.{Bridge, LM}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 120_000

  @readme Path.expand("../../README.md", __DIR__)

  defp example(section) do
    [_before, text] = @readme |> File.read!() |> String.split("\n## #{section}\n", parts: 2)
    [_text, code] = Regex.run(~r/```elixir\n(.*?)```/s, text)
    code
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

    Bridge.start(name: MyApp.DSPex, lms: [main: lm])
    {answer, binding} = Code.eval_string(example("Tools"), [])
    assert answer == "Three."

    [stock, reserve] = binding[:tools]
    assert DSPex.Tool.call(stock, %{article: "kettle"}, %{}) == %{article: "kettle", left: 3}
    assert DSPex.Tool.call(reserve, %{count: 2}, %{meta: %{}}) == {:error, "who is the customer?"}
    assert DSPex.Tool.call(reserve, %{count: 2}, %{meta: %{"customer" => 1}}) == {:ok, 2}

    printed = capture_io(fn -> Code.eval_string(example("Streams"), binding) end)
    assert printed =~ ~r/\AThree\. \(\d+ tokens\)\n\z/
  end
end
