defmodule DSPex.Usage do
  @moduledoc false
  # Tokens as results tell them.

  @type t :: %{
          prompt_tokens: non_neg_integer(),
          completion_tokens: non_neg_integer(),
          total_tokens: non_neg_integer()
        }

  @none %{prompt_tokens: 0, completion_tokens: 0, total_tokens: 0}

  @spec none() :: t()
  def none, do: @none

  @spec from_wire(term()) :: t()
  def from_wire(%{} = usage),
    do: Map.new(@none, fn {key, none} -> {key, Map.get(usage, Atom.to_string(key), none)} end)

  def from_wire(_nothing), do: @none
end
