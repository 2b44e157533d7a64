defmodule DSPex.Integration.ConformanceTest do
  # This client against `dspex conformance --serve`, a bridge that tries what a client has to bear and
  # says what it saw of it: the driver of the recipe in protocol/CONFORMANCE.md.
  use ExUnit.Case, async: true

  alias DSPex.{Chunk, Tool}
  alias DSPex.Test.Bridge

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 120_000

  @patience_ms 60_000

  test "it bears every case" do
    name = Bridge.start(command: Bridge.conformance_command())
    %{"cases" => cases} = question(name, "cases", %{})

    for %{"case" => case, "needs" => ["tools"]} <- cases do
      assert {:ok, _program} =
               DSPex.create(name, "n: any -> n2", program: "conformance/#{case}", tools: tools())
    end

    verdicts =
      for %{"case" => case} = told <- cases do
        outcomes = outcomes(name, told)
        {case, outcomes, question(name, "saw", %{case: case, outcomes: outcomes})}
      end

    for {case, outcomes, verdict} <- verdicts do
      assert {case, outcomes, verdict["problems"]} == {case, outcomes, []}
      assert verdict["ok"]
    end

    # The list is the bridge's; none may be lost unseen.
    assert length(verdicts) == 30
  end

  defp tools do
    [
      Tool.new(:add, "Adds.", [a: :integer, b: :integer], &(&1.a + &1.b)),
      Tool.new(:nest, "Nests.", [n: :integer], fn %{n: n}, context ->
        DSPex.execute!(context.server, context.program, %{n: n})["n"]
      end),
      Tool.new(:wait, "Waits.", [], fn _args ->
        receive do
          :never -> nil
        end
      end),
      Tool.new(:fail, "Fails.", [], fn _args -> raise "this tool always fails" end)
    ]
  end

  defp question(name, question, inputs) do
    assert {:ok, prediction} = DSPex.execute(name, "conformance/#{question}", inputs)
    prediction.outputs
  end

  defp outcomes(name, %{"calls" => calls, "in_turn" => true} = told),
    do: Enum.map(calls, &outcome(name, told, &1))

  defp outcomes(name, %{"calls" => calls} = told) do
    calls
    |> Enum.map(&Task.async(fn -> outcome(name, told, &1) end))
    |> Task.await_many(@patience_ms)
  end

  defp outcome(name, %{"case" => case}, %{"cancel" => true} = call) do
    caller = spawn(fn -> DSPex.execute(name, "conformance/#{case}", call["inputs"]) end)
    question(name, "arrived", %{case: case})
    Process.exit(caller, :kill)
    %{cancelled: true}
  end

  defp outcome(name, %{"case" => case}, %{"stream" => true} = call) do
    elements =
      name |> DSPex.stream("conformance/#{case}", call["inputs"], window: 4) |> Enum.to_list()

    chunks = for %Chunk{} = chunk <- elements, do: chunk
    last = chunks |> Enum.map(& &1.attempt) |> Enum.max(fn -> 1 end)
    text = for %Chunk{attempt: ^last, text: text} <- chunks, into: "", do: text
    elements |> List.last() |> told() |> Map.put(:text, text)
  end

  defp outcome(name, %{"case" => case}, call) do
    options = [timeout: Map.get(call, "timeout_ms", @patience_ms)]
    told(DSPex.execute(name, "conformance/#{case}", call["inputs"], options))
  end

  defp told({:ok, prediction}) do
    assert Process.info(self(), :messages) == {:messages, []}
    %{outputs: prediction.outputs}
  end

  defp told({:error, error}),
    do: %{error: %{code: error.code, retryable: error.retryable, data: error.data}}
end
