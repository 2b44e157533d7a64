defmodule DSPex.NoSleepTest do
  # A sleep is a guess: too short, and a test fails now and then; too long, and it is slow for ever.
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)

  # Spelled so that this file has none.
  @sleeps [~r/\bProcess\s*\.\s*sleep\b/, ~r/:timer\s*\.\s*(sleep|apply_after)\b/]

  defp found(text), do: Enum.any?(@sleeps, &Regex.match?(&1, text))

  test "nothing in lib, test, demo or bench sleeps" do
    files = Path.wildcard("#{@root}/{lib,test,demo,bench}/**/*.{ex,exs}") -- [__ENV__.file]
    assert length(files) > 100
    assert Enum.filter(files, &found(File.read!(&1))) == []
  end

  test "and the check finds one" do
    assert found("  Process.sleep(10)")
    assert found("  :timer.sleep 10")
    refute found("  Process.send_after(self(), :wake, 10)")
  end
end
