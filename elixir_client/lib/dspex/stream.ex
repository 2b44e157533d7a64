defmodule DSPex.Stream do
  @moduledoc false
  # An execution as a lazy enumerable: the chunks of its outputs, and what came of it as the last
  # element. The bridge sends no more chunks than it has been granted, and each is granted anew when
  # the consumer asks for what comes after it: one that is slow slows the bridge.

  require Logger

  alias DSPex.{Adapter, Chunk, Error}

  # Chunks under way at one time. A grant goes out for half of them, so that the other half is
  # there meanwhile.
  @default_window 32

  @spec default_window() :: pos_integer()
  def default_window, do: @default_window

  @doc """
  `open` begins the request; `load` makes a prediction of its result. Both run where and when the
  enumerable is enumerated.
  """
  @spec new(
          (() -> {:ok, Adapter.open()} | {:error, Error.t()}),
          pos_integer(),
          (term() -> {:ok, term()} | {:error, Error.t()}),
          DSPex.Signature.t() | nil
        ) :: Enumerable.t()
  def new(open, window, load, signature) do
    batch = max(1, div(window, 2))

    Stream.resource(
      fn ->
        case open.() do
          {:ok, exchange} -> {:open, exchange, 0}
          {:error, error} -> {:failed, error}
        end
      end,
      &next(&1, batch, load, signature),
      &finish/1
    )
  end

  # The consumer asks for more: it is done with the chunks that it has been given.
  defp next({:open, exchange, taken}, batch, load, signature) when taken >= batch do
    Adapter.grant(exchange, taken)
    next({:open, exchange, 0}, batch, load, signature)
  end

  defp next({:open, exchange, taken} = open, batch, load, signature) do
    case Adapter.next(exchange) do
      {:notification, "chunk", params} ->
        case Chunk.from_wire(params, signature) do
          {:ok, chunk} ->
            {[chunk], {:open, exchange, taken + 1}}

          :error ->
            Logger.warning("DSPex: a chunk without field, text, attempt or done was left out")
            next({:open, exchange, taken + 1}, batch, load, signature)
        end

      {:notification, _other, _params} ->
        next(open, batch, load, signature)

      {:answer, {:ok, result}} ->
        {[load.(result)], :over}

      {:answer, {:error, error}} ->
        {[{:error, error}], :over}
    end
  end

  defp next({:failed, error}, _batch, _load, _signature), do: {[{:error, error}], :over}
  defp next(:over, _batch, _load, _signature), do: {:halt, :over}

  # Nobody reads on.
  defp finish({:open, exchange, _taken}), do: Adapter.close(exchange)
  defp finish(_over), do: :ok
end
