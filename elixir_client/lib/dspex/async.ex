defmodule DSPex.Async do
  @moduledoc """
  An execution that has been begun: what `DSPex.async/4` gives and `DSPex.await/1` waits for, in the
  same process. It is cancelled where that process ends.
  """

  alias DSPex.{Adapter, Error, Prediction}

  @opaque t :: %__MODULE__{
            exchange: Adapter.open(),
            load: (term() -> term()),
            owner: pid()
          }

  @enforce_keys [:exchange, :load, :owner]
  defstruct @enforce_keys

  @doc false
  @spec await(t()) :: {:ok, Prediction.t()} | {:error, Error.t()}
  def await(%__MODULE__{owner: owner} = async) when owner == self() do
    {:answer, answer} = Adapter.next(async.exchange)
    with {:ok, result} <- answer, do: async.load.(result)
  end

  def await(%__MODULE__{owner: owner}) do
    raise ArgumentError,
          "DSPex.await/1: only #{inspect(owner)}, which began it, can wait for it: this is #{inspect(self())}"
  end

  @doc false
  @spec cancel(t()) :: :ok
  def cancel(%__MODULE__{exchange: exchange}), do: Adapter.cancel(exchange)

  defimpl Inspect do
    def inspect(async, _opts), do: "#DSPex.Async<#{inspect(async.owner)}>"
  end
end
