defmodule DSPex.Fallbacks do
  @moduledoc false
  # LMs that stand in for others. One that leads back to an LM that it stands in for makes a
  # configuration that no bridge takes.

  alias DSPex.{Config, Error}

  @type name :: String.t()

  @doc "The names from an LM, by the fallbacks that `of` gives of each, back to itself; `nil` where none do."
  @spec way_back(name(), (name() -> [name()])) :: [name()] | nil
  def way_back(name, of), do: way_back([[name]], name, of, MapSet.new([name]))

  defp way_back([], _end, _of, _seen), do: nil

  defp way_back([[at | _before] = way | ways], name, of, seen) do
    next = of.(at)

    if name in next do
      Enum.reverse([name | way])
    else
      new = Enum.reject(next, &(&1 in seen))

      way_back(
        for(to <- new, do: [to | way]) ++ ways,
        name,
        of,
        MapSet.union(seen, MapSet.new(new))
      )
    end
  end

  @doc "A configuration after another one; an error where fallbacks of the two together lead back."
  @spec merge(Config.t(), Config.t()) :: {:ok, Config.t()} | {:error, Error.t()}
  def merge(earlier, later) do
    merged = Config.merge(earlier, later)

    case circles(merged, names(later)) do
      [] -> {:ok, merged}
      [way | _others] -> {:error, leads_back(way)}
    end
  end

  @doc """
  What of two configurations is of use where neither can be refused any more: `later`, with those LMs of
  `earlier` that lead back by it, but without their fallbacks. Gives their names, too.
  """
  @spec reconcile(Config.t(), Config.t()) :: {Config.t(), [name()]}
  def reconcile(earlier, later) do
    merged = Config.merge(earlier, later)
    names = merged |> circles(names(earlier) -- names(later)) |> Enum.map(&hd/1)
    cut = for name <- names, into: %{}, do: {name, Map.delete(merged.lms[name], :fallbacks)}

    if cut == %{},
      do: {later, []},
      else: {Map.update(later, :lms, cut, &Map.merge(&1, cut)), names}
  end

  defp names(configuration), do: configuration |> Map.get(:lms, %{}) |> Map.keys()

  defp circles(configuration, names) do
    of = fn name -> get_in(configuration, [:lms, name, :fallbacks]) || [] end
    for name <- names, way = way_back(name, of), do: way
  end

  @doc "The error of an LM that leads back on this way."
  @spec leads_back([name()]) :: Error.t()
  def leads_back([name | _others] = way) do
    param = "lms.#{name}.fallbacks"

    text =
      "#{param}: they lead back to where they began (#{Enum.join(way, " → ")}): an LM cannot stand in " <>
        "for itself"

    Error.new(:invalid_params, text, data: %{"param" => param})
  end
end
