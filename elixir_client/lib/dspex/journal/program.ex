defmodule DSPex.Journal.Program do
  @moduledoc false
  # A program as the journal knows it: the request that makes it anew, in a function that nothing
  # shows, and what Elixir alone knows of it.

  alias DSPex.{Signature, Tool}

  @enforce_keys [:body, :signature, :tools, :revision]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          body: (... -> binary()),
          signature: Signature.t() | nil,
          tools: %{optional(String.t()) => Tool.t()},
          revision: pos_integer()
        }
end
