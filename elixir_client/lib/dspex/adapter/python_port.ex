defmodule DSPex.Adapter.PythonPort do
  @moduledoc """
  The adapter of real instances: DSPy in Python processes under the instance's supervisor, over ports.
  """

  @behaviour DSPex.Adapter

  alias DSPex.{Command, Instance}
  alias DSPex.Connection.Caller

  @impl true
  def start_link(name, configuration, options) do
    with {:ok, command} <- Command.find(options[:command]),
         do: Instance.start_link(name, configuration, Keyword.put(options, :command, command))
  end

  @impl true
  defdelegate request(instance, method, params, timeout, options), to: Instance

  @impl true
  defdelegate open(instance, method, params, timeout, listens?, options), to: Instance

  @impl true
  defdelegate next(exchange), to: Caller

  @impl true
  defdelegate grant(exchange, n), to: Caller

  @impl true
  defdelegate cancel(exchange), to: Caller

  @impl true
  defdelegate close(exchange), to: Caller

  @impl true
  defdelegate signature(instance, program), to: Instance

  @impl true
  defdelegate tools(instance, program), to: Instance

  @impl true
  defdelegate lost_tools(instance, program), to: Instance

  @impl true
  defdelegate state_revision(instance, program), to: Instance

  @impl true
  defdelegate record(instance, entry), to: Instance

  @impl true
  defdelegate workers(instance), to: Instance

  @impl true
  defdelegate restart(instance, drain_timeout), to: Instance
end
