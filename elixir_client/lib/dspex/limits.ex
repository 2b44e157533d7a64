defmodule DSPex.Limits do
  @moduledoc false
  # Ceilings of what LM calls may cost: one shape for LMs, programs and requests.

  alias DSPex.Options

  @schema [
    max_cost_usd: {{:is, &__MODULE__.cost/1}, "of the LM calls, in US dollars."},
    max_tokens: {{:integer, 0, :infinity}, "of the LM calls."},
    max_calls: {{:integer, 0, :infinity}, "of an LM."},
    requests_per_minute: {{:integer, 1, 1_000_000}, "LM calls that are begun in a minute."},
    max_concurrency: {{:integer, 1, :infinity}, "LM calls at one time."}
  ]

  @doc "A check of `DSPex.Options`."
  @spec option(term()) :: {:ok, map()} | {:error, String.t()}
  def option(limits) when is_map(limits) and not is_struct(limits),
    do: option(Map.to_list(limits))

  def option(limits) do
    with {:ok, limits} <- Options.validate(limits, @schema), do: {:ok, Map.new(limits)}
  end

  @doc false
  def cost(value) when is_number(value) and value >= 0, do: {:ok, value}
  def cost(_other), do: {:error, "expected a number from 0"}
end
