defmodule DSPex.Connection.Caller do
  @moduledoc false
  # The caller's side of a request: it is encoded, awaited and decoded in the process that makes it.
  #
  # What comes for it comes to an alias, which is gone once the answer is there or nobody wants it
  # any more: whatever is late is dropped by the runtime and never reaches a mailbox.

  require Logger

  alias DSPex.Connection.{Failure, Request}
  alias DSPex.{Adapter, Deadline, Error, Journal, Pool}
  alias DSPex.Protocol.Message

  # How much longer than its deadline a caller waits, for the bridge's own answer to it.
  @grace_ms 50

  # Around a request's body: an array's head, its kind and the longest id.
  @max_envelope_bytes 11

  # Of a request that comes with no functions; a literal is not copied into messages.
  @no_functions %{metrics: %{}, tools: %{}, logger: []}

  @enforce_keys [:connection, :ref, :method, :timeout, :give_up_at, :listens?]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          connection: pid(),
          ref: reference(),
          method: String.t(),
          timeout: timeout(),
          give_up_at: Deadline.t(),
          listens?: boolean()
        }

  @typedoc "What it answers means nothing, but for `:stop`: the request is cancelled."
  @type listener :: (method :: String.t(), params :: map() -> :stop | any())

  @typedoc """
    * `:entry` - makes the journal's entry, which is written once the bridge has confirmed the
      request, of the body that makes the request again: without the deadline, which was this call's
      alone.
    * `:metrics` - functions by name that `call_metric` finds while the request is in flight.
    * `:tools` - those of a program that is sent along, and so is in no journal.
    * `:grace` - how much longer than its deadline the bridge may take, where that is not a moment.
    * `:logger` - the caller's metadata for `Logger`.
    * `:listener` - called in this process with each notification about the request; for `request/5`.
  """
  @type option ::
          {:entry, nil | (Journal.body() -> Journal.entry())}
          | {:metrics, %{optional(String.t()) => (map(), map(), [map()] | nil -> term())}}
          | {:tools, [DSPex.Tool.t()]}
          | {:grace, nil | pos_integer()}
          | {:logger, keyword()}
          | {:listener, listener() | nil}

  @type result :: {:ok, term()} | {:error, Error.t()}

  @doc "Sends a request and waits for its result."
  @spec request(Pool.choice(), String.t(), map(), timeout(), [option()]) :: result()
  def request(worker, method, params, timeout, options \\ []) do
    case Keyword.pop(options, :listener) do
      {nil, options} ->
        call(worker, method, params, timeout, options)

      {listener, options} ->
        with {:ok, exchange} <- open(worker, method, params, timeout, true, options),
             do: Adapter.Exchange.await(__MODULE__, exchange, listener)
    end
  end

  # By no exchange: the reference is made where it is waited for, and what was in the mailbox before is
  # not looked through.
  defp call({pid, _pool, _number} = worker, method, params, timeout, options) do
    with {:ok, request} <- make(method, params, timeout, false, options) do
      # Its one answer ends the alias and the monitor.
      ref = :erlang.monitor(:process, pid, alias: :reply_demonitor)
      hand_over(worker, request, ref)

      receive do
        {^ref, answer} -> read_answer(answer)
        {:DOWN, ^ref, :process, _pid, reason} -> {:error, Failure.down(reason, method)}
      after
        patience(timeout, options) ->
          case give_up(pid, ref) do
            nil -> {:error, too_late(timeout)}
            answer -> read_answer(answer)
          end
      end
    end
  end

  defp patience(:infinity, _options), do: :infinity
  defp patience(timeout, options), do: timeout + grace(options)

  defp grace(options), do: options[:grace] || @grace_ms

  @doc """
  Sends a request, whose answer and notifications, where it `listens?`, are for `next/1`. The process
  that opened it has to go on to the answer or `close/1`.
  """
  @spec open(Pool.choice(), String.t(), map(), timeout(), boolean(), [option()]) ::
          {:ok, t()} | {:error, Error.t()}
  def open({pid, _pool, _number} = worker, method, params, timeout, listens?, options \\ []) do
    with {:ok, request} <- make(method, params, timeout, listens?, options) do
      # One answer ends the alias of a request that does not listen, the caller that of others.
      mode = if listens?, do: :demonitor, else: :reply_demonitor
      ref = :erlang.monitor(:process, pid, alias: mode)
      hand_over(worker, request, ref)

      {:ok,
       %__MODULE__{
         connection: pid,
         ref: ref,
         method: method,
         timeout: timeout,
         give_up_at: Deadline.from_now(timeout, grace(options)),
         listens?: listens?
       }}
    end
  end

  # What is handed over, but for its `ref`.
  defp make(method, params, timeout, listens?, options) do
    with {:ok, body} <- Message.body(method, with_deadline(params, timeout)),
         {:ok, entry} <- make_entry(options[:entry], method, params) do
      {:ok,
       %Request{
         ref: nil,
         caller: self(),
         method: method,
         # In a function nothing shows it.
         body: fn -> body end,
         size: byte_size(body) + @max_envelope_bytes,
         entry: entry,
         needs: Request.needs(method, params),
         listens?: listens?,
         functions: functions(options)
       }}
    end
  end

  defp hand_over({pid, _pool, _number} = worker, request, ref) do
    Pool.count(worker)
    GenServer.cast(pid, {:request, %{request | ref: ref}})
  end

  defp functions([]), do: @no_functions
  defp functions(logger: []), do: @no_functions

  defp functions(options) do
    tools = Map.new(Keyword.get(options, :tools, []), &{&1.name, &1})

    %{
      metrics: Keyword.get(options, :metrics, %{}),
      tools: tools,
      logger: Keyword.get(options, :logger, [])
    }
  end

  defp with_deadline(params, :infinity), do: params
  defp with_deadline(params, timeout), do: Map.put(params, :timeout_ms, timeout)

  defp make_entry(nil, _method, _params), do: {:ok, nil}

  defp make_entry(entry, method, params) do
    with {:ok, body} <- Message.body(method, again(method, params)),
         do: {:ok, params |> added(entry.(fn -> body end))}
  end

  # One that is not to replace another is refused where another worker has made that meanwhile.
  defp added(%{replace: true}, entry), do: entry
  defp added(_params, {:put, id, body, signature, tools}), do: {:add, id, body, signature, tools}
  defp added(_params, entry), do: entry

  # On a worker that has an older one under that id it replaces it.
  defp again(method, params) when method in ["create", "load"],
    do: Map.put(params, :replace, true)

  defp again(_method, params), do: params

  @doc """
  Waits for the next notification, or the answer, which is the last. No later than the deadline and
  a moment there is one.
  """
  @spec next(t()) :: {:notification, String.t(), map()} | {:answer, result()}
  def next(%__MODULE__{ref: ref} = exchange) do
    receive do
      {^ref, {:notification, frame}} ->
        notification(exchange, frame)

      {^ref, answer} ->
        answered(exchange, answer)

      {:DOWN, ^ref, :process, _pid, reason} ->
        {:answer, {:error, Failure.down(reason, exchange.method)}}
    after
      Deadline.left(exchange.give_up_at) ->
        case give_up(exchange.connection, exchange.ref) do
          nil -> {:answer, {:error, too_late(exchange.timeout)}}
          answer -> answered(exchange, answer)
        end
    end
  end

  defp notification(exchange, frame) do
    case Message.parse(frame) do
      {:ok, {:notification, method, params}} ->
        {:notification, method, params}

      {:error, error, _id} ->
        Logger.warning("DSPex: a notification could not be read: #{error.message}")
        next(exchange)
    end
  end

  defp answered(exchange, answer) do
    # The one answer to a request that does not listen has ended its alias and its monitor.
    if exchange.listens?, do: forget(exchange)

    {:answer, read_answer(answer)}
  end

  defp read_answer({:ok, frame}), do: read(frame)
  defp read_answer({:error, error}), do: {:error, error}

  # `nil`, or the answer that has come in the last moment.
  defp give_up(connection, ref) do
    # From here on an answer is dropped by the runtime; one that is in the mailbox still counts.
    Process.demonitor(ref, [:flush])

    with nil <- last(ref) do
      GenServer.cast(connection, {:abandon, ref})
      nil
    end
  end

  defp too_late(timeout), do: Error.new(:timeout, "no answer within #{timeout} ms")

  # The answer that is in the mailbox, behind notifications that nobody waits for now.
  defp last(ref) do
    receive do
      {^ref, {:notification, _frame}} -> last(ref)
      {^ref, answer} -> answer
    after
      0 -> nil
    end
  end

  @doc "Lets the bridge send `n` more chunks."
  @spec grant(t(), pos_integer()) :: :ok
  def grant(exchange, n), do: GenServer.cast(exchange.connection, {:grant, exchange.ref, n})

  @doc """
  Has a request cancelled whose answer is still awaited: `cancelled`, or what the bridge makes of it.
  Any process may do so.
  """
  @spec cancel(t()) :: :ok
  def cancel(exchange), do: GenServer.cast(exchange.connection, {:cancel, exchange.ref})

  @doc "Ends a request that nobody wants any more: it is cancelled, unless it has been answered."
  @spec close(t()) :: :ok
  def close(exchange) do
    forget(exchange)
    GenServer.cast(exchange.connection, {:abandon, exchange.ref})
  end

  # What is on its way goes nowhere, what has come is taken out.
  defp forget(exchange) do
    Process.demonitor(exchange.ref, [:flush])
    flush(exchange.ref)
  end

  defp flush(ref) do
    receive do
      {^ref, _message} -> flush(ref)
    after
      0 -> :ok
    end
  end

  @doc """
  Reads the response to a request of ours. One that is no response as the protocol has it is an
  error of the bridge's.
  """
  @spec read(binary()) :: result()
  def read(frame), do: frame |> Message.parse() |> result()

  @doc "The same of a message that has been parsed."
  @spec result({:ok, Message.t()} | {:error, Error.t(), Message.id() | nil}) :: result()
  def result(parsed) do
    case parsed do
      {:ok, {:response, _id, result}} ->
        result

      {:error, %Error{code: :invalid_request} = error, _id} ->
        {:error, Error.new(:internal_error, "the answer is malformed: #{error.message}")}

      {:error, error, _id} ->
        {:error, error}
    end
  end
end
