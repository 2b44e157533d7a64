defmodule DSPex.Instance do
  @moduledoc false
  # The processes of an instance, and how they are found by its name.
  #
  #     Supervisor, named as the instance (rest for one)
  #       Journal           what a new Python has to be told
  #       Task.Supervisor   the application's functions, while Python calls them
  #       Connection        Python
  #
  # A connection without its journal would forget, and without its tasks not know of them; both
  # outlive connections.

  alias DSPex.{Connection, Error, Journal}
  alias DSPex.Connection.Caller

  @spec start_link(atom(), DSPex.Config.t(), keyword()) :: Supervisor.on_start()
  def start_link(name, configuration, options) do
    own = [name: connection(name), server: name, journal: journal(name), tasks: tasks(name)]

    children = [
      {Journal, name: journal(name), configuration: configuration},
      {Task.Supervisor, name: tasks(name)},
      {Connection, own ++ options}
    ]

    Supervisor.start_link(children, strategy: :rest_for_one, name: name)
  end

  @doc "Makes a request; see `DSPex.Connection.Caller.request/5`."
  @spec request(term(), String.t(), map(), timeout(), [Caller.option()]) :: Caller.result()
  def request(server, method, params, timeout, options \\ []) do
    with {:ok, pid} <- whereis(server),
         do: Caller.request(pid, method, params, timeout, options)
  end

  @doc "Begins a request, which may listen; see `DSPex.Connection.Caller.open/6`."
  @spec open(term(), String.t(), map(), timeout(), boolean(), [Caller.option()]) ::
          {:ok, Caller.t()} | {:error, Error.t()}
  def open(server, method, params, timeout, listens?, options \\ []) do
    with {:ok, pid} <- whereis(server),
         do: Caller.open(pid, method, params, timeout, listens?, options)
  end

  @doc "Writes down what no answer of the bridge confirms by itself."
  @spec record(atom(), Journal.entry()) :: :ok
  def record(server, entry), do: Journal.record(journal(server), entry)

  @doc "The tools of a program as the instance's journal knows them."
  @spec tools(term(), String.t()) :: [DSPex.Tool.t()]
  def tools(server, program) do
    if is_atom(server) and :ets.whereis(journal(server)) != :undefined,
      do: Journal.tools(journal(server), program),
      else: []
  end

  @doc "The signature of a program as the instance's journal knows it, `nil` where it does not."
  @spec signature(term(), String.t()) :: DSPex.Signature.t() | nil
  def signature(server, program) do
    if is_atom(server) and :ets.whereis(journal(server)) != :undefined,
      do: Journal.signature(journal(server), program)
  end

  defp whereis(server) when is_atom(server) and server not in [nil, true, false] do
    case Process.whereis(connection(server)) do
      nil -> {:error, not_started(server)}
      pid -> {:ok, pid}
    end
  end

  defp whereis(_other) do
    text = "the first argument is the name of a DSPex instance, an atom"
    {:error, Error.new(:invalid_params, text)}
  end

  defp not_started(server) do
    text =
      "no DSPex instance named #{inspect(server)} is running; " <>
        "add {DSPex, name: #{inspect(server)}} to the children of a supervisor"

    Error.new(:not_started, text)
  end

  defp connection(name), do: Module.concat(name, "Connection")
  defp journal(name), do: Module.concat(name, "Journal")
  defp tasks(name), do: Module.concat(name, "Tasks")
end
