defmodule DSPex.Connection.Python do
  @moduledoc false
  # One Python process: its port, what is read from it and how it ends. One that was forked has a
  # socket in the place of the port.

  require Logger

  alias DSPex.Connection.{Failure, Writer}
  alias DSPex.Protocol.Framing

  # `began` is the moment of its start, as `DSPex.Telemetry.now/0` has it.
  @enforce_keys [:port, :os_pid, :writer, :decoder, :began]
  defstruct @enforce_keys ++ [socket?: false, writing?: false, spoke?: false]

  # Nothing slows what a port delivers. Of a socket this many messages come, each of as much as is
  # there up to the buffer's size, and then none until `go_on/1`.
  @burst 64
  @buffer_bytes 64 * 1024

  # Who is connected to is there already, and waits.
  @connect_ms 5000

  @socket_options [
    # The other backend has no queue: a write would wait for who does not read.
    {:inet_backend, :inet},
    :binary,
    active: @burst,
    buffer: @buffer_bytes,
    # What is not written when it is closed is for a Python that is no more.
    linger: {true, 0}
  ]

  @type t :: %__MODULE__{
          port: port(),
          os_pid: pos_integer() | nil,
          writer: pid(),
          decoder: Framing.t(),
          began: integer(),
          socket?: boolean(),
          writing?: boolean(),
          spoke?: boolean()
        }

  # `spoke?`: whether it has written anything.
  @doc "Starts it. The caller owns its port and reads frames of at most `max_frame_bytes`."
  @spec open({String.t(), [String.t()]}, pos_integer()) ::
          {:ok, t()} | {:error, Failure.cause(), String.t()}
  def open({executable, args}, max_frame_bytes) do
    options = [:binary, :stream, :exit_status, :use_stdio, :hide, args: args]
    port = Port.open({:spawn_executable, executable}, options)

    os_pid =
      case Port.info(port, :os_pid) do
        {:os_pid, os_pid} -> os_pid
        nil -> nil
      end

    decoder = Framing.new(max_frame_bytes)

    {:ok,
     %__MODULE__{
       port: port,
       os_pid: os_pid,
       writer: Writer.start_link(&Port.command(port, &1)),
       decoder: decoder,
       began: DSPex.Telemetry.now()
     }}
  rescue
    error in [ErlangError, ArgumentError, SystemLimitError] ->
      {:error, Failure.cause(error),
       "#{executable} cannot be run: #{Exception.message(error)}. Where its environment is gone, " <>
         "`mix dspex.install` makes another"}
  end

  @doc """
  Connects to one that was forked. The caller owns the socket, whose messages are as a port's but for
  their names: `{:tcp, port, bytes}`, `{:tcp_closed, port}`, and `{:tcp_passive, port}` (see `go_on/1`).
  """
  @spec connect(DSPex.Connection.ForkServer.forked(), pos_integer()) ::
          {:ok, t()} | {:error, Failure.cause(), String.t()}
  def connect(%{path: path, os_pid: os_pid}, max_frame_bytes) do
    case :gen_tcp.connect({:local, path}, 0, @socket_options, @connect_ms) do
      {:ok, socket} ->
        {:ok,
         %__MODULE__{
           port: socket,
           os_pid: os_pid,
           writer: Writer.start_link(&:gen_tcp.send(socket, &1)),
           decoder: Framing.new(max_frame_bytes),
           began: DSPex.Telemetry.now(),
           socket?: true
         }}

      {:error, reason} ->
        why = :inet.format_error(reason)
        {:error, :passing, "the Python that was forked (pid #{os_pid}) cannot be reached: #{why}"}
    end
  end

  @doc "Has more come of a socket that has delivered its burst."
  @spec go_on(t()) :: :ok
  def go_on(%__MODULE__{port: socket}) do
    # Of one that is closed the owner hears by itself.
    _closed = :inet.setopts(socket, active: @burst)
    :ok
  end

  @doc """
  Writes frames without ever waiting for their reader. `:writing` means that Python does not take them
  yet: nothing more may be written until the message `{:written, writer}` comes.
  """
  @spec write(t(), iodata()) :: {:written | :writing, t()} | :closed
  def write(%{writing?: false, socket?: true} = python, data) do
    case :inet.getstat(python.port, [:send_pend]) do
      # What is written to an empty queue does not wait, however long it is.
      {:ok, [send_pend: 0]} ->
        if :gen_tcp.send(python.port, data) == :ok, do: {:written, python}, else: :closed

      {:ok, _pending} ->
        Writer.write(python.writer, data)
        {:writing, %{python | writing?: true}}

      {:error, _closed} ->
        :closed
    end
  end

  def write(%{writing?: false} = python, data) do
    if Port.command(python.port, data, [:nosuspend]) do
      {:written, python}
    else
      Writer.write(python.writer, data)
      {:writing, %{python | writing?: true}}
    end
  rescue
    # The exit status or the exit signal is on its way.
    ArgumentError -> :closed
  end

  @doc "Closes its pipes: the end of its stdin tells Python to stop at once."
  @spec close(t() | nil) :: :ok
  def close(nil), do: :ok

  def close(%__MODULE__{port: port, writer: writer} = python) do
    Process.unlink(writer)
    Process.exit(writer, :kill)
    if python.socket?, do: :gen_tcp.close(port), else: Port.close(port)
    :ok
  rescue
    # It has closed itself.
    ArgumentError -> :ok
  end

  @doc """
  Kills a Python that cannot be trusted to read the end of its stdin. The bridge's guard ends its
  children with it.
  """
  # Never its process group from here: `kill -KILL -1234` of procps 4.0.2 (Debian 12) reads -1 and
  # ends every process there is.
  @spec kill(t() | nil) :: :ok
  def kill(%__MODULE__{os_pid: os_pid}) when is_integer(os_pid) and os_pid > 1 do
    # A slim image has no file named kill; it is in every shell.
    case System.find_executable("sh") do
      nil ->
        Logger.warning(
          "DSPex: Python (pid #{os_pid}) is left to its guard: there is no sh on PATH to kill it with"
        )

      sh ->
        args = ["-c", ~S(kill -KILL "$1"), "sh", "#{os_pid}"]
        spawn(fn -> System.cmd(sh, args, stderr_to_stdout: true) end)
    end

    :ok
  end

  def kill(_none), do: :ok

  # The status of a process that was killed is the signal's number above this one.
  @signals 128

  @doc "Whether a process with this exit status has not been killed."
  @spec by_itself?(non_neg_integer()) :: boolean()
  def by_itself?(status), do: status <= @signals

  @doc "What an exit status says, in words."
  @spec exit_text(non_neg_integer()) :: String.t()
  def exit_text(status) when status > @signals, do: "killed by signal #{status - @signals}"
  def exit_text(status), do: "exit status #{status}"
end
