defmodule DSPex.Connection.Proc do
  @moduledoc false
  # What the operating system says of a process, where it has a /proc.

  # The line of a process with the longest name.
  @max_stat_bytes 1024

  @doc "How a process is and the ticks of CPU time that it has had."
  @spec sample(pos_integer()) ::
          {:runs | :sleeps | :stopped | :unknown, non_neg_integer() | nil}
  def sample(os_pid) do
    # Raw: the node's file server may wait for another file.
    with {:ok, file} <- :file.open("/proc/#{os_pid}/stat", [:read, :raw, :binary]),
         read = :file.read(file, @max_stat_bytes),
         :ok <- :file.close(file),
         {:ok, line} <- read,
         {:ok, sample} <- parse(line) do
      sample
    else
      _none -> {:unknown, nil}
    end
  end

  # "pid (name) state ...", and the name may be anything.
  defp parse(line) do
    with [_name, rest] <- line |> String.split(~r/\) (?=[A-Za-z] )(?!.*\) )/s, parts: 2),
         [state | fields] <- String.split(rest),
         # From the state, which is field 3: fields 14 and 15 are the user's and the system's time.
         [utime, stime] <- Enum.slice(fields, 10, 2) do
      {:ok, {state(state), String.to_integer(utime) + String.to_integer(stime)}}
    end
  end

  # Uninterruptible sleep is waiting for a disk: swapped out, it does what it can.
  defp state(state) when state in ["R", "D"], do: :runs
  defp state(state) when state in ["T", "t", "Z", "X"], do: :stopped
  defp state(_sleeping), do: :sleeps
end
