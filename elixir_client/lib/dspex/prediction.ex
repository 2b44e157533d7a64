defmodule DSPex.Prediction do
  @moduledoc """
  What a program gave.

    * `:outputs` - the outputs, under atoms where the signature was written in Elixir, else strings:
      those of the signature, and those that the module adds (below).
    * `:usage` - `%{prompt_tokens: n, completion_tokens: n, total_tokens: n}`.
    * `:cost_usd` - what the calls cost, `nil` where the price is not known.
    * `:duration_ms` - how long the bridge took.
    * `:lm` - the name of the LM that answered: one of the `fallbacks:`, where the first has failed.
    * `:cached` - whether the answer came from the cache.
    * `:program` - the program's id.

  Modules that add outputs, in which maps have string keys:

  #{DSPex.ModuleOutputs.docs()}

  `:best_of_n`, `:refine` and `:knn` add what the module does that they are around.

  Outputs can be read from the prediction itself, by atom or string:

      iex> prediction = %DSPex.Prediction{outputs: %{answer: "Paris"}, program: "qa"}
      iex> {prediction[:answer], prediction["answer"], prediction[:other]}
      {"Paris", "Paris", nil}
  """

  @behaviour Access

  alias DSPex.Usage

  @type t :: %__MODULE__{
          outputs: %{optional(atom() | String.t()) => term()},
          usage: %{
            prompt_tokens: non_neg_integer(),
            completion_tokens: non_neg_integer(),
            total_tokens: non_neg_integer()
          },
          cost_usd: float() | nil,
          duration_ms: number(),
          lm: String.t() | nil,
          cached: boolean(),
          program: String.t()
        }

  @enforce_keys [:outputs, :program]
  defstruct [
    :outputs,
    :program,
    :cost_usd,
    :lm,
    usage: Usage.none(),
    duration_ms: 0,
    cached: false
  ]

  @doc false
  @spec new(map(), map()) :: t()
  def new(result, outputs) do
    %__MODULE__{
      outputs: outputs,
      program: result["program"],
      cost_usd: result["cost_usd"],
      duration_ms: Map.get(result, "duration_ms", 0),
      lm: result["lm"],
      cached: Map.get(result, "cached", false),
      usage: Usage.from_wire(result["usage"])
    }
  end

  @impl Access
  def fetch(%__MODULE__{outputs: outputs}, key) do
    with :error <- Map.fetch(outputs, key), do: fetch_same_name(outputs, key)
  end

  defp fetch_same_name(outputs, key) when is_atom(key),
    do: Map.fetch(outputs, Atom.to_string(key))

  defp fetch_same_name(outputs, key) do
    Enum.find_value(outputs, :error, fn {name, value} ->
      if is_atom(name) and Atom.to_string(name) == key, do: {:ok, value}
    end)
  end

  @impl Access
  def get_and_update(%__MODULE__{} = prediction, key, fun) do
    {value, outputs} = Map.get_and_update(prediction.outputs, key, fun)
    {value, %{prediction | outputs: outputs}}
  end

  @impl Access
  def pop(%__MODULE__{} = prediction, key) do
    {value, outputs} = Map.pop(prediction.outputs, key)
    {value, %{prediction | outputs: outputs}}
  end
end
