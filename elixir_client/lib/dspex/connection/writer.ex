defmodule DSPex.Connection.Writer do
  @moduledoc false
  # Waits in the connection's stead. Writing to a port whose program does not read suspends the
  # process that writes until it reads again, and nothing tells when that is. So the connection only
  # ever writes without suspending; what would have suspended it is written here, and told when it
  # is done.

  @doc """
  Starts a writer, linked to the connection that calls this. `write` waits for the reader; what it
  returns is nobody's.
  """
  @spec start_link((iodata() -> term())) :: pid()
  def start_link(write) do
    connection = self()
    spawn_link(fn -> loop(write, connection) end)
  end

  @doc "Has `data` written. The connection then gets `{:written, writer}`."
  @spec write(pid(), iodata()) :: :ok
  def write(writer, data) do
    send(writer, {:write, data})
    :ok
  end

  defp loop(write, connection) do
    receive do
      {:write, data} ->
        try do
          write.(data)
        rescue
          # The port is closed, which its owner hears by itself. A crash would show the data.
          ArgumentError -> :closed
        end

        send(connection, {:written, self()})
        loop(write, connection)
    end
  end
end
