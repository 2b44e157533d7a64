defmodule DSPex.Progress do
  @moduledoc """
  How far a batch, an evaluation or an optimization is: what `on_progress:` is called with.

    * `:step`, `:total` - so many of so many, `nil` where it is not known.
    * `:phase`, `:message` - of an optimization: what it is at, in a word and in a sentence.
    * `:score` - of an optimization, the last candidate's on what it was scored on so far.
    * `:best_score` - of an optimization, the best so far of those that were scored on the whole valset;
      it never goes down, and once known is always there.
    * `:candidate` - of an optimization that is asked for its candidates: the last one, a map.
    * `:metric_calls`, `:lm_calls`, `:total_tokens`, `:cost_usd` - what an optimization has spent.
    * `:eta_ms` - how long it will take yet, where that can be told.
  """

  @fields ~w(step total phase message score best_score candidate metric_calls lm_calls total_tokens cost_usd eta_ms)a
  @by_text Map.new(@fields, &{Atom.to_string(&1), &1})

  @type t :: %__MODULE__{
          step: non_neg_integer() | nil,
          total: non_neg_integer() | nil,
          phase: String.t() | nil,
          message: String.t() | nil,
          score: number() | nil,
          best_score: number() | nil,
          candidate: map() | nil,
          metric_calls: non_neg_integer() | nil,
          lm_calls: non_neg_integer() | nil,
          total_tokens: non_neg_integer() | nil,
          cost_usd: float() | nil,
          eta_ms: non_neg_integer() | nil
        }

  defstruct @fields

  @doc false
  @spec from_wire(map()) :: t()
  def from_wire(params) do
    struct!(__MODULE__, for({text, value} <- params, field = @by_text[text], do: {field, value}))
  end

  @doc false
  # Hears the `progress` among the notifications of a request, where anybody wants it.
  @spec listener((t() -> term()) | nil) :: (String.t(), map() -> term()) | nil
  def listener(nil), do: nil

  def listener(fun) do
    fn
      "progress", params -> fun.(from_wire(params))
      _other, _params -> :ok
    end
  end
end
