defmodule DSPex.Test.Terms do
  @moduledoc false
  # Random values that have a form on the wire and come back as themselves.

  @doc "Seeds this process from the suite's own seed, which ExUnit prints."
  def seed, do: :rand.seed(:exsss, ExUnit.configuration()[:seed])

  def random(depth \\ 4) do
    kinds = if depth > 0, do: 14, else: 11

    case :rand.uniform(kinds) do
      1 -> Enum.random([nil, true, false, :nan, :infinity, :neg_infinity])
      2 -> integer()
      3 -> integer()
      4 -> (:rand.uniform() - 0.5) * :math.pow(10, :rand.uniform(600) - 300)
      5 -> text(:rand.uniform(40))
      6 -> text(Enum.random([0, 31, 32, 255, 256, 70_000]))
      7 -> DSPex.Binary.new(:rand.bytes(Enum.random([0, 1, 255, 256, 66_000])))
      8 -> datetime()
      9 -> tensor()
      10 -> elem(DSPex.Decimal.new("#{integer()}.#{:rand.uniform(999)}"), 1)
      11 -> integer()
      12 -> for _ <- 1..size(), do: random(depth - 1)
      13 -> Map.new(1..size(), fn _ -> {text(:rand.uniform(12)), random(depth - 1)} end)
      14 -> Enum.random([[], %{}])
    end
  end

  # Sizes around the edges of the short forms.
  defp size, do: Enum.random([1, 2, 3, 15, 16, 17])

  # Every width, and the neighbours of every power of two.
  defp integer do
    power = Integer.pow(2, :rand.uniform(140))
    Enum.random([1, -1]) * (power + Enum.random([-2, -1, 0, 1, :rand.uniform(power)]))
  end

  defp text(length) do
    alphabet = Enum.random([~c"abc xyz", ~c"äöüß", ~c"日本語", [0x1F600, ?a, 0x10FFFF, 0]])
    for _ <- 1..length//1, into: "", do: <<Enum.random(alphabet)::utf8>>
  end

  defp datetime do
    second = Enum.random(-62_135_596_800..253_402_300_799)
    microsecond = Enum.random([0, 1, 999_999, :rand.uniform(999_999)])
    DateTime.from_unix!(second * 1_000_000 + microsecond, :microsecond)
  end

  defp tensor do
    {:ok, tensor} = DSPex.Tensor.new(:i16, {2, 3}, :rand.bytes(12))
    tensor
  end
end
