defmodule DSPex.Connection.Python do
  @moduledoc false
  # One Python process: its port, what is read from it and how it ends.

  require Logger

  alias DSPex.Connection.{Failure, Writer}
  alias DSPex.Protocol.Framing

  # `began` is the moment of its start, as `DSPex.Telemetry.now/0` has it.
  @enforce_keys [:port, :os_pid, :writer, :decoder, :began]
  defstruct @enforce_keys ++ [writing?: false, spoke?: false]

  @type t :: %__MODULE__{
          port: port(),
          os_pid: pos_integer() | nil,
          writer: pid(),
          decoder: Framing.t(),
          began: integer(),
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
       writer: Writer.start_link(port),
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
  Writes frames without ever waiting for their reader. `:writing` means that Python does not take them
  yet: nothing more may be written until the message `{:written, writer}` comes.
  """
  @spec write(t(), iodata()) :: {:written | :writing, t()} | :closed
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

  def close(%__MODULE__{port: port, writer: writer}) do
    Process.unlink(writer)
    Process.exit(writer, :kill)
    Port.close(port)
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
