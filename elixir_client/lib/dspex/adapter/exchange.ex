defmodule DSPex.Adapter.Exchange do
  @moduledoc false
  # A request that is open, read to its end in the process that opened it. Every adapter has a module
  # with `next/1`, `cancel/1` and `close/1` of its exchanges; what is done with them is the same.

  @type listener :: (String.t(), map() -> term())

  @doc """
  The answer. `listener` is called with each notification until then, and cancels the request by `:stop`;
  one that raises ends it.
  """
  @spec await(module(), term(), listener() | nil) :: DSPex.Adapter.result()
  def await(module, exchange, listener) do
    read(module, exchange, listener)
  after
    module.close(exchange)
  end

  defp read(module, exchange, listener) do
    case module.next(exchange) do
      {:answer, result} ->
        result

      {:notification, method, params} ->
        if listener.(method, params) == :stop, do: module.cancel(exchange)
        read(module, exchange, listener)
    end
  end
end
