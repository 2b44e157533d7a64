defmodule DSPex.Adapter do
  @moduledoc """
  What stands between the functions of `DSPex` and whatever runs the programs: the option `:backend` of
  an instance.

    * `DSPex.Adapter.PythonPort` - Python processes under the instance; the default.
    * `DSPex.Adapter.Mock` - no Python and no LM: scripted and made-up answers, for tests.
    * `DSPex.Adapter.Server` - the programs of a `dspex serve`, over HTTP.

  One that has options of its own is given them with its name: `{DSPex.Adapter.Server, url: url}`; it
  finds them as `:backend_options`. Another one is a module with the callbacks below. Signatures, checks, types and results are the same
  over all of them, because they lie above: an adapter gets a method of the protocol and its params
  (terms that MessagePack can carry, and the structs of `DSPex` that stand for such), and answers with
  the decoded result or an error. A suite of tests that an adapter has to pass comes with DSPex's own
  tests: `DSPex.Test.AdapterCompliance`.

  ## What an adapter owes

    * one answer to each request, an error where it fails; within `timeout` and a moment the error
      `:timeout`, the work having been cancelled.
    * a request is cancelled where the process that made it dies, or closes its exchange.
    * an `:entry` is made and recorded once the request has succeeded and before its answer is known:
      `c:signature/2` and `c:tools/2` tell of it from then on, and where what runs the programs is
      started anew, it is told again.
    * the functions among the options are found while the request is in flight.
  """

  alias DSPex.Adapter.Call
  alias DSPex.{Error, Signature, Tool}

  require Logger

  @type instance :: atom()

  @type result :: {:ok, term()} | {:error, Error.t()}

  @typedoc "A request that has been begun, as the adapter has it."
  @type exchange :: term()

  @typedoc "A request that has been begun, with its adapter."
  @opaque open :: {module(), exchange(), Call.t() | nil}

  @typedoc """
    * `:entry` - a function of the body that makes the request again, which gives an entry as
      `c:record/2` takes it.
    * `:metrics` - functions of an example, a prediction and a trace by name, for `call_metric`.
    * `:tools` - those of a program that is sent along.
    * `:retry` - for `c:request/5`: how often it may be made again where what ran it has ended, or the
      error is `retryable`. Without it what may have been done is not done again.
    * `:listener` - for `c:request/5`: called in the calling process with method and params of each
      notification about the request. `:stop` has it cancelled.
    * `:grace` - milliseconds after its timeout that an answer to that may take, where it takes more
      than a moment: that of an optimization with the best so far. `nil` where it does not.
    * `:logger` - the caller's metadata for `Logger`, which logs about the request are to have, too.
  """
  @type option ::
          {:entry, nil | ((... -> binary()) -> entry())}
          | {:metrics, %{optional(String.t()) => (map(), map(), [map()] | nil -> term())}}
          | {:tools, [Tool.t()]}
          | {:retry, non_neg_integer()}
          | {:listener, nil | (String.t(), map() -> :stop | any())}
          | {:grace, nil | pos_integer()}
          | {:logger, keyword()}

  @typedoc """
  What is known of programs and the configuration: a program with the body of the request that made it
  (`:put` takes the place of one of that id, `:add` may be refused there as `:already_exists`), one that
  is told by the `"state"` in the answer, functions for the tools of one that is there, one that is gone,
  changes of the configuration.
  """
  @type entry ::
          {:put | :add, program :: String.t(), (... -> binary()), Signature.t() | nil, [Tool.t()]}
          | {:derived, program :: String.t(), Signature.t() | nil, [Tool.t()]}
          | {:tools, program :: String.t(), [Tool.t()]}
          | {:delete, program :: String.t()}
          | {:configure, map()}

  @doc "Starts the processes of an instance, linked; its options are those of `DSPex.start_link/1`, checked."
  @callback start_link(instance(), configuration :: map(), options :: keyword()) ::
              Supervisor.on_start()

  @doc "Makes a request and waits for what comes of it."
  @callback request(instance(), method :: String.t(), params :: map(), timeout(), [option()]) ::
              result()

  @doc "Begins a request. The process that does goes on to the answer, by `c:next/1`, or to `c:close/1`."
  @callback open(
              instance(),
              method :: String.t(),
              params :: map(),
              timeout(),
              listens? :: boolean(),
              [option()]
            ) :: {:ok, exchange()} | {:error, Error.t()}

  @doc "Waits for the next notification, where it listens, or for the answer, which is the last."
  @callback next(exchange()) ::
              {:notification, method :: String.t(), params :: map()} | {:answer, result()}

  @doc "Allows `n` more chunks of a stream."
  @callback grant(exchange(), n :: pos_integer()) :: :ok

  @doc "Has a request cancelled whose answer is still awaited, from any process."
  @callback cancel(exchange()) :: :ok

  @doc "Ends a request that nobody wants any more."
  @callback close(exchange()) :: :ok

  @doc "The signature of a program, with the names that Elixir has for its fields; `nil` where it is not known."
  @callback signature(instance(), program :: String.t()) :: Signature.t() | nil

  @doc "The tools of a program."
  @callback tools(instance(), program :: String.t()) :: [Tool.t()]

  @doc """
  The tools of a program that came back from where functions cannot be kept, until they are there again:
  by name, with the name of the `DSPex.Program` that declares it, or `nil`.
  """
  @callback lost_tools(instance(), program :: String.t()) ::
              %{optional(String.t()) => module_name :: String.t() | nil}

  @doc "The revision of a program that was made of a state, as an optimized one is; `nil` for others."
  @callback state_revision(instance(), program :: String.t()) :: pos_integer() | nil

  @doc "Writes down what no answer confirms by itself."
  @callback record(instance(), entry()) :: :ok | {:error, Error.t()}

  @doc "The workers of an instance, where it has any; see `DSPex.workers/1`."
  @callback workers(instance()) :: {:ok, [map()]} | {:error, Error.t()}

  @doc "Replaces them one after the other; see `DSPex.restart/2`."
  @callback restart(instance(), drain_timeout :: timeout()) :: :ok | {:error, Error.t()}

  @doc "Checks its own options, those of `{adapter, options}`; what is secret in them is hidden here."
  @callback options(keyword()) :: {:ok, keyword()} | {:error, String.t()}

  @optional_callbacks workers: 1, restart: 2, options: 1, lost_tools: 2, state_revision: 2

  @doc false
  # Which adapter an instance has is asked with every call, and changes with a restart at most.
  @spec start_link(module() | {module(), keyword()}, instance(), map(), keyword()) ::
          Supervisor.on_start()
  def start_link({adapter, own}, name, configuration, options),
    do: start_link(adapter, name, configuration, Keyword.put(options, :backend_options, own))

  def start_link(adapter, name, configuration, options) do
    # Left there when the instance ends: erasing costs every process of the node a collection, names
    # are few, and the adapter says best that it is not running.
    :persistent_term.put({__MODULE__, name}, adapter)
    adapter.start_link(name, configuration, options)
  end

  @doc false
  @spec of(term()) :: module()
  def of(instance), do: :persistent_term.get({__MODULE__, instance}, DSPex.Adapter.PythonPort)

  @doc false
  @spec request(term(), String.t(), map(), timeout(), [option()]) :: result()
  def request(instance, method, params, timeout, options \\ []) do
    options = [logger: Logger.metadata()] ++ options

    Call.run(instance, method, params, fn ->
      of(instance).request(instance, method, params, timeout, options)
    end)
  end

  @doc false
  @spec open(term(), String.t(), map(), timeout(), boolean()) ::
          {:ok, open()} | {:error, Error.t()}
  def open(instance, method, params, timeout, listens?) do
    adapter = of(instance)
    call = Call.start(instance, method, params)
    options = [logger: Logger.metadata()]

    case adapter.open(instance, method, params, timeout, listens?, options) do
      {:ok, exchange} ->
        {:ok, {adapter, exchange, call}}

      {:error, error} ->
        Call.stop(call, {:error, error})
        {:error, error}
    end
  end

  @doc false
  @spec next(open()) :: {:notification, String.t(), map()} | {:answer, result()}
  def next({adapter, exchange, call}) do
    with {:answer, result} <- adapter.next(exchange) do
      Call.stop(call, result)
      {:answer, result}
    end
  end

  @doc false
  @spec grant(open(), pos_integer()) :: :ok
  def grant({adapter, exchange, _call}, n), do: adapter.grant(exchange, n)

  @doc false
  @spec cancel(open()) :: :ok
  def cancel({adapter, exchange, _call}), do: adapter.cancel(exchange)

  @doc false
  @spec close(open()) :: :ok
  def close({adapter, exchange, call}) do
    Call.stop(call, :closed)
    adapter.close(exchange)
  end

  @doc false
  def signature(instance, program), do: of(instance).signature(instance, program)
  @doc false
  def tools(instance, program), do: of(instance).tools(instance, program)
  @doc false
  def lost_tools(instance, program), do: optional(instance, :lost_tools, [program], %{})
  @doc false
  def state_revision(instance, program), do: optional(instance, :state_revision, [program], nil)
  @doc false
  def record(instance, entry), do: of(instance).record(instance, entry)

  @doc false
  def workers(instance), do: optional(instance, :workers, [], {:ok, []})

  @doc false
  def restart(instance, drain_timeout), do: optional(instance, :restart, [drain_timeout], :ok)

  defp optional(instance, callback, arguments, otherwise) do
    adapter = of(instance)

    if function_exported?(adapter, callback, length(arguments) + 1),
      do: apply(adapter, callback, [instance | arguments]),
      else: otherwise
  end

  @doc false
  # A check of `DSPex.Options`.
  def option({module, own}) when is_atom(module) and is_list(own) do
    with {:ok, module} <- option(module),
         {:ok, own} <- own_options(module, own),
         do: {:ok, {module, own}}
  end

  def option(module) when is_atom(module) do
    if Code.ensure_loaded?(module) and function_exported?(module, :start_link, 3) and
         function_exported?(module, :open, 6),
       do: {:ok, module},
       else:
         {:error, "expected a module with the callbacks of DSPex.Adapter, not #{inspect(module)}"}
  end

  def option(_other), do: {:error, "expected a module with the callbacks of DSPex.Adapter"}

  defp own_options(module, own) do
    if function_exported?(module, :options, 1), do: module.options(own), else: {:ok, own}
  end
end
