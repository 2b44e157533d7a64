defmodule DSPex.Metric.Agreement do
  @moduledoc false
  # The share of an example's outputs that a prediction has, too. Text is compared as the bridge's
  # `exact_match` does it: without regard to case, ASCII punctuation, English articles and space.

  @spec score(map(), map()) :: number() | {number(), String.t()}
  def score(%{outputs: expected}, _prediction) when expected == %{},
    do: raise(ArgumentError, "the example has no outputs to compare with")

  def score(%{outputs: expected}, prediction) do
    case compare(expected, prediction) do
      {score, nil} -> score
      scored -> scored
    end
  end

  @doc "The share of these values that are the same, and what is not."
  @spec compare(map(), map()) :: {number(), String.t() | nil}
  def compare(expected, prediction) do
    case Enum.reject(expected, fn {name, value} -> same?(value, prediction[name]) end) do
      [] ->
        {1.0, nil}

      wrong ->
        feedback =
          Enum.map_join(wrong, "; ", fn {name, value} ->
            "#{name}: expected #{shown(value)}, got #{shown(prediction[name])}"
          end)

        {1 - length(wrong) / map_size(expected), feedback}
    end
  end

  defp same?(one, other) when is_binary(one) and is_binary(other), do: text(one) == text(other)
  defp same?(one, other), do: one == other

  # Bytes that are no text are the same or not.
  defp text(value) do
    if String.valid?(value) do
      value
      |> String.normalize(:nfd)
      |> String.downcase()
      |> String.replace(~r/[!-\/:-@\[-`{-~]/, "")
      |> String.replace(~r/\b(a|an|the)\b/u, " ")
      |> String.split()
    else
      value
    end
  end

  defp shown(value), do: inspect(value, limit: 20, printable_limit: 200)
end
