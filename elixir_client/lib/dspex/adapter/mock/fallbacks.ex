defmodule DSPex.Adapter.Mock.Fallbacks do
  @moduledoc false
  # What the bridge demands of LMs that stand in for others: they are there, and none leads back to
  # the one that it stands in for.

  alias DSPex.{Error, Fallbacks}

  @doc "Checks the LMs of these names: the others were."
  @spec check(%{optional(String.t()) => map()}, [String.t()]) :: :ok | {:error, Error.t()}
  def check(lms, names) do
    missing = for name <- names, other <- of(lms, name), lms[other] == nil, do: {name, other}

    with [] <- missing,
         nil <- Enum.find_value(names, &Fallbacks.way_back(&1, fn name -> of(lms, name) end)) do
      :ok
    else
      [{name, missing} | _others] ->
        text = "lms.#{name}.fallbacks: there is no LM #{inspect(missing)}"
        data = %{"kind" => "lm", "name" => missing, "param" => "lms.#{name}.fallbacks"}
        {:error, Error.new(:not_found, text, data: data)}

      way ->
        {:error, Fallbacks.leads_back(way)}
    end
  end

  defp of(lms, name), do: lms[name]["fallbacks"] || []
end
