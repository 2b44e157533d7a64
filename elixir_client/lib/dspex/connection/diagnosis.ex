defmodule DSPex.Connection.Diagnosis do
  @moduledoc false
  # Why a Python ends at once: what it says on its stderr, which is otherwise a person's. It is
  # started once more for that, with nothing to read. One that ends again would do so a third time,
  # unless the machine is short of something.

  alias DSPex.Connection.{Failure, Python}

  # As long as an interpreter takes that fails at an import.
  @bound_ms 5000

  @max_bytes 64 * 1024
  @max_line 300

  @typedoc "The last line that the command writes, and what to do about it; `nil` where it writes none."
  @type t :: {Failure.cause(), String.t() | nil}

  @spec run({String.t(), [String.t()]}) :: t()
  def run({executable, args}) do
    options = [:binary, :stderr_to_stdout, :exit_status, :hide, args: args]
    port = Port.open({:spawn_executable, executable}, options)
    Process.send_after(self(), {port, :late}, @bound_ms)

    case collect(port, "") do
      {:ended, status, said} ->
        cause = if Python.by_itself?(status), do: Failure.cause(said), else: :passing
        {cause, said |> last_line() |> explain()}

      :runs ->
        {:passing, nil}
    end
  rescue
    error in [ErlangError, ArgumentError, SystemLimitError] ->
      {Failure.cause(error), Exception.message(error)}
  end

  defp collect(port, said) do
    receive do
      {^port, {:data, more}} when byte_size(said) < @max_bytes -> collect(port, said <> more)
      {^port, {:data, _more}} -> collect(port, said)
      {^port, {:exit_status, status}} -> {:ended, status, said}
      {^port, :late} -> close(port)
    end
  end

  defp close(port) do
    Port.close(port)
    :runs
  end

  defp last_line(said) do
    said
    |> String.split(["\r\n", "\n"], trim: true)
    |> List.last()
    |> then(&if(&1 && String.valid?(&1), do: String.slice(String.trim(&1), 0, @max_line)))
  end

  defp explain(nil), do: nil

  defp explain(line) do
    if line =~ "No module named",
      do: line <> ". `mix dspex.install` makes an environment with all that the bridge needs",
      else: line
  end
end
