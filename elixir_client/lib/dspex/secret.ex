defmodule DSPex.Secret do
  @moduledoc false
  # A value that no inspect shows: not in a log, a crash report, a supervisor's child specification
  # or `:sys.get_state/1`. A function holds it, because of a function only the name is ever printed.

  @opaque t(value) :: %__MODULE__{reveal: (... -> value)}
  @type t :: t(term())

  @enforce_keys [:reveal]
  defstruct [:reveal]

  @spec new(value) :: t(value) when value: term()
  def new(%__MODULE__{} = secret), do: secret
  def new(value), do: %__MODULE__{reveal: fn -> value end}

  @spec reveal(t(value)) :: value when value: term()
  def reveal(%__MODULE__{reveal: reveal}), do: reveal.()

  defimpl Inspect do
    def inspect(_secret, _opts), do: "#DSPex.Secret<...>"
  end
end
