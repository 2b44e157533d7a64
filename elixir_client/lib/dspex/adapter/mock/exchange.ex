defmodule DSPex.Adapter.Mock.Exchange do
  @moduledoc false
  # The caller's side of a request to a mock. Params and results go through the codec, so that what has
  # no form on the wire is found here, too.

  alias DSPex.Adapter
  alias DSPex.Adapter.Mock.{Server, Store}
  alias DSPex.{Deadline, Error}
  alias DSPex.Protocol.Codec

  @enforce_keys [:server, :ref, :timeout, :give_up_at]
  defstruct @enforce_keys

  @type t :: %__MODULE__{}

  @spec request(atom(), String.t(), map(), timeout(), keyword()) :: DSPex.Adapter.result()
  def request(instance, method, params, timeout, options) do
    {listener, options} = Keyword.pop(options, :listener)

    with {:ok, exchange} <- open(instance, method, params, timeout, listener != nil, options),
         do: Adapter.Exchange.await(__MODULE__, exchange, listener)
  end

  @spec open(atom(), String.t(), map(), timeout(), boolean(), keyword()) ::
          {:ok, t()} | {:error, Error.t()}
  def open(instance, method, params, timeout, listens?, options) do
    with {:ok, pid} <- Server.whereis(instance),
         {:ok, wire} <- through_wire(params) do
      # Of a process that has ended nothing is sent any more, and nothing is left in the mailbox.
      ref = :erlang.monitor(:process, pid, alias: :demonitor)

      GenServer.cast(
        pid,
        {:request,
         %{
           ref: ref,
           caller: self(),
           owner: Store.owner(instance),
           method: method,
           params: wire,
           listens?: listens?,
           logger: Keyword.get(options, :logger, []),
           entry: entry(options[:entry]),
           metrics: Keyword.get(options, :metrics, %{}),
           tools: Map.new(Keyword.get(options, :tools, []), &{&1.name, &1})
         }}
      )

      {:ok,
       %__MODULE__{
         server: pid,
         ref: ref,
         timeout: timeout,
         give_up_at: Deadline.from_now(timeout)
       }}
    end
  end

  # A mock makes nothing anew, so that no body is needed.
  defp entry(nil), do: nil
  defp entry(make), do: make.(fn -> "" end)

  @doc "A term as it is after MessagePack."
  @spec through_wire(term()) :: {:ok, term()} | {:error, Error.t()}
  def through_wire(term) do
    with {:ok, bytes} <- Codec.encode(term), do: Codec.decode(bytes)
  end

  @spec next(t()) :: {:notification, String.t(), map()} | {:answer, DSPex.Adapter.result()}
  def next(%__MODULE__{ref: ref} = exchange) do
    receive do
      {^ref, {:notification, method, params}} ->
        {:notification, method, params}

      {^ref, {:answer, result}} ->
        forget(ref)
        {:answer, result}

      {:DOWN, ^ref, :process, _pid, _reason} ->
        text = "the mock ended before it answered"
        {:answer, {:error, Error.new(:connection_lost, text, retryable: false)}}
    after
      Deadline.left(exchange.give_up_at) ->
        close(exchange)
        {:answer, {:error, Error.new(:timeout, "no answer within #{exchange.timeout} ms")}}
    end
  end

  @spec grant(t(), pos_integer()) :: :ok
  def grant(exchange, n), do: GenServer.cast(exchange.server, {:grant, exchange.ref, n})

  @spec cancel(t()) :: :ok
  def cancel(exchange), do: GenServer.cast(exchange.server, {:cancel, exchange.ref})

  @spec close(t()) :: :ok
  def close(exchange) do
    forget(exchange.ref)
    GenServer.cast(exchange.server, {:abandon, exchange.ref})
  end

  defp forget(ref) do
    Process.demonitor(ref, [:flush])
    flush(ref)
  end

  defp flush(ref) do
    receive do
      {^ref, _message} -> flush(ref)
    after
      0 -> :ok
    end
  end
end
