defmodule DSPex.Adapter.Mock.Fallbacks do
  @moduledoc false
  # What the bridge demands of LMs that stand in for others: they are there, and none leads back to
  # the one that it stands in for.

  alias DSPex.Error

  @doc "Checks the LMs of these names: the others were."
  @spec check(%{optional(String.t()) => map()}, [String.t()]) :: :ok | {:error, Error.t()}
  def check(lms, names) do
    missing = for name <- names, other <- of(lms, name), lms[other] == nil, do: {name, other}

    with [] <- missing,
         nil <- Enum.find(names, &(&1 in reached(lms, of(lms, &1), []))) do
      :ok
    else
      [{name, missing} | _others] ->
        text = "lms.#{name}.fallbacks: there is no LM #{inspect(missing)}"
        data = %{"kind" => "lm", "name" => missing, "param" => "lms.#{name}.fallbacks"}
        {:error, Error.new(:not_found, text, data: data)}

      name ->
        text =
          "lms.#{name}.fallbacks: they lead back to where they began: an LM cannot stand in for itself"

        data = %{"param" => "lms.#{name}.fallbacks"}
        {:error, Error.new(:invalid_params, text, data: data)}
    end
  end

  # With the fallbacks of fallbacks.
  defp reached(_lms, [], seen), do: seen

  defp reached(lms, [name | names], seen) do
    if name in seen,
      do: reached(lms, names, seen),
      else: reached(lms, of(lms, name) ++ names, [name | seen])
  end

  defp of(lms, name), do: lms[name]["fallbacks"] || []
end
