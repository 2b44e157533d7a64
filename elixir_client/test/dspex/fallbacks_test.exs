defmodule DSPex.FallbacksTest do
  use ExUnit.Case, async: true

  alias DSPex.{Error, Fallbacks}

  defp lms(fallbacks), do: %{lms: Map.new(fallbacks, fn {name, to} -> {name, lm(to)} end)}
  defp lm(fallbacks), do: %{model: "m", fallbacks: fallbacks}

  test "the way back has every LM on it, and there is none where none leads back" do
    graph = %{"a" => ["b", "x"], "b" => ["x", "c"], "c" => ["a"], "d" => ["a"]}
    of = &Map.get(graph, &1, [])
    assert Fallbacks.way_back("a", of) == ["a", "b", "c", "a"]
    assert Fallbacks.way_back("b", of) == ["b", "c", "a", "b"]
    # It leads into a circle that it is no part of.
    assert Fallbacks.way_back("d", of) == nil
    assert Fallbacks.way_back("x", of) == nil
    assert Fallbacks.way_back("e", fn "e" -> ["e"] end) == ["e", "e"]
  end

  test "many LMs that stand in for each other are looked at once each" do
    of = fn name -> for at <- (String.to_integer(name) + 1)..30//1, do: "#{at}" end
    assert Fallbacks.way_back("1", of) == nil
  end

  test "two configurations whose fallbacks lead back together are not one" do
    earlier = lms(%{"a" => ["b"], "b" => []})

    assert {:error, %Error{code: :invalid_params} = error} =
             Fallbacks.merge(earlier, lms(%{"b" => ["a"]}))

    assert error.message =~ "lms.b.fallbacks: they lead back to where they began (b → a → b)"
    assert error.data == %{"param" => "lms.b.fallbacks"}
    assert {:ok, merged} = Fallbacks.merge(earlier, Map.put(lms(%{"a" => []}), :adapter, "json"))
    assert merged == Map.put(lms(%{"a" => [], "b" => []}), :adapter, "json")
    assert Fallbacks.merge(%{}, %{}) == {:ok, %{}}
  end

  test "of two that cannot be refused the later one is as it is, and the earlier leads nowhere by it" do
    earlier = lms(%{"a" => ["b"], "b" => [], "c" => ["b"]})
    later = lms(%{"b" => ["a"]})
    assert {reconciled, ["a"]} = Fallbacks.reconcile(earlier, later)
    assert reconciled.lms["b"] == lm(["a"])
    assert {:ok, merged} = Fallbacks.merge(earlier, reconciled)
    assert merged.lms["c"] == lm(["b"])
    assert Fallbacks.reconcile(earlier, lms(%{"b" => []})) == {lms(%{"b" => []}), []}
  end
end
