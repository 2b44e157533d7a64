defmodule DSPex.Adapter.Server.Known do
  @moduledoc false
  # The process of an instance over a server: where that is, and the signatures of the programs that
  # this instance made, with the names and types that Elixir has for their fields.

  use GenServer

  alias DSPex.{Error, Signature}
  alias DSPex.Server.HTTP

  @type about :: %{address: HTTP.address(), max_bytes: pos_integer()}

  @spec start_link(atom(), HTTP.address(), pos_integer()) :: GenServer.on_start()
  def start_link(name, address, max_bytes),
    do: GenServer.start_link(__MODULE__, {name, address, max_bytes}, name: name)

  @doc "Where the server of an instance is, and the longest answer that is taken."
  @spec about(term()) :: {:ok, about()} | {:error, Error.t()}
  def about(instance) do
    [{:about, about}] = :ets.lookup(table(instance), :about)
    {:ok, about}
  rescue
    ArgumentError ->
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
  def record(instance, {:put, program, _body, signature, _tools}),
    do: put(instance, program, signature)

  def record(instance, {:derived, program, signature, _tools}),
    do: put(instance, program, signature)

  def record(instance, {:delete, program}), do: put(instance, program, nil)

  # It is the server's, and no client of it changes it.
  def record(_instance, {:configure, _configuration}), do: :ok

  defp put(instance, program, signature) do
    with {:ok, _about} <- about(instance) do
      :ets.insert(table(instance), {{:signature, program}, signature})
      :ok
    end
  end

  defp table(instance), do: Module.concat(instance, "Server")

  @impl true
  def init({name, address, max_bytes}) do
    # Written by whoever made a program, before that one's call is answered.
    :ets.new(table(name), [:named_table, :public, read_concurrency: true])
    :ets.insert(table(name), {:about, %{address: address, max_bytes: max_bytes}})
    {:ok, nil}
  end
end
