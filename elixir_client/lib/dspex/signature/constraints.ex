defmodule DSPex.Signature.Constraints do
  @moduledoc false
  # Constraints that no value at all meets. What else is wrong with one the bridge says.

  @pairs [min: :max, min_length: :max_length, min_items: :max_items]

  @doc """
  Whether some value may meet constraints together; if not, why.

      iex> DSPex.Signature.Constraints.check(:integer, min: 3, max: 2)
      {:error, "min (3) is above max (2), so nothing fits"}
  """
  @spec check(term(), Enumerable.t()) :: :ok | {:error, String.t()}
  def check(type, constraints) do
    constraints = Map.new(constraints)

    with :ok <- check_pairs(constraints),
         :ok <- check_values(constraints),
         :ok <- check_multiples(constraints) do
      check_keys(type, constraints)
    end
  end

  defp check_pairs(constraints) do
    Enum.find_value(@pairs, :ok, fn {low, high} ->
      with %{^low => least, ^high => most} <- constraints,
           {least_number, most_number} when least_number > most_number <-
             {number(least), number(most)} do
        nothing("#{low} (#{least}) is above #{high} (#{most})")
      else
        _fits -> nil
      end
    end)
  end

  defp check_values(%{one_of: values} = constraints) when is_list(values) do
    if Enum.any?(values, &within?(&1, constraints)),
      do: :ok,
      else: nothing("no value of one_of meets the other constraints")
  end

  defp check_values(_constraints), do: :ok

  defp within?(value, constraints) when is_number(value) do
    low = number(constraints[:min])
    high = number(constraints[:max])
    (low == nil or value >= low) and (high == nil or value <= high)
  end

  defp within?(value, constraints) when is_binary(value) do
    size = String.length(value)

    size >= Map.get(constraints, :min_length, 0) and
      size <= Map.get(constraints, :max_length, size)
  end

  defp within?(_value, _constraints), do: true

  # Whole numbers alone, which can be told exactly.
  defp check_multiples(%{multiple_of: step, min: low, max: high})
       when is_integer(step) and step > 0 and is_integer(low) and is_integer(high) do
    if Integer.floor_div(high, step) * step < low,
      do: nothing("no multiple of multiple_of lies between min and max"),
      else: :ok
  end

  defp check_multiples(_constraints), do: :ok

  defp check_keys({:dict, {:one_of, keys}, _type}, %{min_items: least})
       when is_integer(least) and least > length(keys),
       do: nothing("min_items (#{least}) is above the number of its keys (#{length(keys)})")

  defp check_keys(_type, _constraints), do: :ok

  defp nothing(reason), do: {:error, reason <> ", so nothing fits"}

  # A decimal's bound may be text.
  defp number(text) when is_binary(text) do
    case Float.parse(text) do
      {number, ""} -> number
      _other -> nil
    end
  end

  defp number(number) when is_number(number), do: number
  defp number(_other), do: nil
end
