defmodule DSPex.Connection.Writer do
  @moduledoc false
  # Waits in the connection's stead. Writing to a port whose program does not read suspends the
  # process that writes until it reads again, and nothing tells when that is. So the connection only
  # ever writes without suspending; what would have suspended it is written here, and told when it
  # is done.

  @doc "Starts a writer for a port, linked to the connection that calls this."
  @spec start_link(port()) :: pid()
  def start_link(port) do
    connection = self()
    spawn_link(fn -> loop(port, connection) end)
  end

  @doc "Has `data` written. The connection then gets `{:written, writer}`."
  @spec write(pid(), iodata()) :: :ok
  def write(writer, data) do
    send(writer, {:write, data})
    :ok
  end

  defp loop(port, connection) do
    receive do
      {:write, data} ->
        try do
          Port.command(port, data)
        rescue
          # The port is closed, which its owner hears by itself. A crash would show the data.
          ArgumentError -> :closed
        end

        send(connection, {:written, self()})
        loop(port, connection)
    end
  end
end
