defmodule DSPex.Adapter.Server.Known do
  @moduledoc false
  # The process of an instance over a server: where that is, and the signatures of the programs that
  # this instance made, with the names and types that Elixir has for their fields.

  use GenServer

  alias DSPex.{Error, Signature}
  alias DSPex.Server.Address

  @type about :: %{address: Address.t(), max_bytes: pos_integer()}

  @spec start_link(atom(), Address.t(), pos_integer()) :: GenServer.on_start()
  def start_link(name, address, max_bytes),
    do: GenServer.start_link(__MODULE__, {name, address, max_bytes}, name: name)

  @doc "Where the server of an instance is, and the longest answer that is taken."
  @spec about(term()) :: {:ok, about()} | {:error, Error.t()}
  def about(instance) do
    case :ets.lookup(table(instance), :about) do
      [{:about, about}] -> {:ok, about}
      # Between the table and what is written into it first.
      [] -> not_started(instance)
    end
  rescue
    ArgumentError -> not_started(instance)
  end

  defp not_started(instance) do
    text =
      "no DSPex instance named #{inspect(instance)} is running; add {DSPex, name: " <>
        "#{inspect(instance)}, backend: DSPex.Adapter.Server} to the children of a supervisor"

    {:error, Error.new(:not_started, text)}
  end

  @spec signature(atom(), String.t()) :: Signature.t() | nil
  def signature(instance, program) do
    case :ets.lookup(table(instance), {:signature, program}) do
      [{_key, signature}] -> signature
      [] -> nil
    end
  rescue
    ArgumentError -> nil
  end

  @spec record(atom(), DSPex.Adapter.entry()) :: :ok | {:error, Error.t()}
  def record(instance, {kind, program, _body, signature, _tools}) when kind in [:put, :add],
    do: put(instance, program, signature)

  def record(instance, {:derived, program, signature, _tools}),
    do: put(instance, program, signature)

  def record(instance, {:delete, program}),
    do: change(instance, &:ets.delete(&1, {:signature, program}))

  def record(_instance, {:tools, _program, _tools}) do
    text = "a server calls no functions of this application: a program there has no tools"
    {:error, Error.new(:invalid_params, text)}
  end

  # It is the server's, and no client of it changes it.
  def record(_instance, {:configure, _configuration}), do: :ok

  defp put(instance, program, signature),
    do: change(instance, &:ets.insert(&1, {{:signature, program}, signature}))

  defp change(instance, fun) do
    true = fun.(table(instance))
    :ok
  rescue
    ArgumentError -> not_started(instance)
  end

  defp table(instance), do: Module.concat(instance, "Server")

  @impl true
  def init({name, address, max_bytes}) do
    # Written by whoever made a program, before that one's call is answered.
    :ets.new(table(name), [:named_table, :public, read_concurrency: true])
    :ets.insert(table(name), {:about, %{address: address, max_bytes: max_bytes}})
    {:ok, nil}
  end

  # Nobody of DSPex asks it anything; whoever does is not to end it, and what it knows.
  @impl true
  def handle_call(_unknown, _from, state), do: {:reply, {:error, :unknown_call}, state}

  @impl true
  def handle_cast(_unknown, state), do: {:noreply, state}

  @impl true
  def handle_info(_unknown, state), do: {:noreply, state}
end
