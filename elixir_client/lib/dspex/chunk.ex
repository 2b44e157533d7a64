defmodule DSPex.Chunk do
  @moduledoc """
  A piece of the text of one output, as `DSPex.stream/4` yields it.

    * `:field` - the output: an atom where the signature was written in Elixir, else a string.
    * `:text` - the piece, free of the markup in which the LM answers. It may be empty.
    * `:attempt` - 1, and one more each time the answer is begun anew: what came of the field in
      earlier attempts is void then.
    * `:done` - whether it is the field's last in this attempt.

  The chunks of a field's last attempt, joined, are its text: the output itself where that is a string.
  """

  @type t :: %__MODULE__{
          field: atom() | String.t(),
          text: String.t(),
          attempt: pos_integer(),
          done: boolean()
        }

  @enforce_keys [:field, :text, :attempt, :done]
  defstruct @enforce_keys

  @doc false
  @spec from_wire(map(), DSPex.Signature.t() | nil) :: {:ok, t()} | :error
  def from_wire(
        %{"field" => field, "text" => text, "attempt" => attempt, "done" => done},
        signature
      )
      when is_binary(field) and is_binary(text) and is_integer(attempt) and is_boolean(done) do
    field = if signature, do: DSPex.Signature.output_name(signature, field), else: field
    {:ok, %__MODULE__{field: field, text: text, attempt: attempt, done: done}}
  end

  def from_wire(_malformed, _signature), do: :error
end
