defmodule DSPex.Limits do
  @moduledoc false
  # Ceilings of what LM calls may cost: one shape for a whole Python, LMs, programs and requests.

  alias DSPex.Options

  @schema [
    max_cost_usd:
      {{:is, &__MODULE__.cost/1},
       "of the LM calls, in US dollars. The price of each LM that is called has to be known: to " <>
         "DSPy, or by `input_cost_per_token` and `output_cost_per_token` in its `extra:`."},
    max_tokens: {{:integer, 0, :infinity}, "of the prompts and answers of the LM calls."},
    max_calls: {{:integer, 0, :infinity}, "LM calls, retries among them."},
    requests_per_minute: {{:integer, 1, 1_000_000}, "LM calls that are begun in a minute."},
    max_concurrency: {{:integer, 1, :infinity}, "LM calls at one time."}
  ]

  @spec docs() :: String.t()
  def docs, do: Options.docs(@schema)

  @doc "A check of `DSPex.Options`."
  @spec option(term()) :: {:ok, map()} | {:error, String.t()}
  def option(limits) when is_map(limits) and not is_struct(limits) do
    with {:ok, limits} <- Options.atom_keys(limits, @schema), do: option(limits)
  end

  def option(limits) do
    with {:ok, limits} <- Options.validate(limits, @schema), do: {:ok, Map.new(limits)}
  end

  @doc false
  def cost(value) when is_number(value) and value >= 0, do: {:ok, value}
  def cost(_other), do: {:error, "expected a number from 0"}
end
