defmodule DSPex.Integration.ConformanceTest do
  # This client against `dspex conformance --serve`, a bridge that tries what a client has to bear and
  # says what it saw of it.
  use ExUnit.Case, async: true

  alias DSPex.Test.Bridge

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 120_000

  # What this client can do so far, of what some cases need.
  @has ["cancel", "timeout"]

  test "it bears every case that asks for nothing it does not have" do
    name = Bridge.start(command: Bridge.conformance_command())
    %{"cases" => cases} = question(name, "cases", %{})
    cases = Enum.filter(cases, &(&1["needs"] -- @has == []))

    verdicts =
      for %{"case" => case} = told <- cases do
        outcomes = outcomes(name, told)
        {case, outcomes, question(name, "saw", %{case: case, outcomes: outcomes})}
      end

    for {case, outcomes, verdict} <- verdicts do
      assert {case, outcomes, verdict["problems"]} == {case, outcomes, []}
      assert verdict["ok"]
    end

    names = for {case, _outcomes, _verdict} <- verdicts, do: case
    # The list is the bridge's; these are some that it may not lose unseen.
    assert ~w(values twice bad_frames errors cancel timeout dies prints) -- names == []
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
    |> Task.await_many(60_000)
  end

  defp outcome(name, %{"case" => case}, %{"cancel" => true} = call) do
    caller = spawn(fn -> DSPex.execute(name, "conformance/#{case}", call["inputs"]) end)
    question(name, "arrived", %{case: case})
    Process.exit(caller, :kill)
    %{cancelled: true}
  end

  defp outcome(name, %{"case" => case}, call) do
    options = [timeout: Map.get(call, "timeout_ms", 60_000)]

    case DSPex.execute(name, "conformance/#{case}", call["inputs"], options) do
      {:ok, prediction} ->
        assert Process.info(self(), :messages) == {:messages, []}
        %{outputs: prediction.outputs}

      {:error, error} ->
        %{error: %{code: error.code, retryable: error.retryable, data: error.data}}
    end
  end
end
