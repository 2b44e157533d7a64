defmodule DSPex.Deadline do
  @moduledoc false
  # The moment by which something is to be done, so that one timeout holds for all the steps of it:
  # each takes what is `left/1`. Milliseconds, `:infinity` where there is no such moment.

  alias DSPex.Error

  @opaque t :: integer() | :infinity

  @doc "The moment that is so far away; `grace_ms` is for who else keeps the timeout and says so."
  @spec from_now(timeout(), non_neg_integer()) :: t()
  def from_now(timeout, grace_ms \\ 0)
  def from_now(:infinity, _grace_ms), do: :infinity
  def from_now(timeout, grace_ms), do: now() + timeout + grace_ms

  @doc "What is left until then, as a timeout: 0 once it has passed."
  @spec left(t()) :: timeout()
  def left(:infinity), do: :infinity
  def left(deadline), do: max(0, deadline - now())

  @doc "The same for one step of several, of at most `longest`."
  @spec left(t(), timeout()) :: timeout()
  # Numbers are less than atoms.
  def left(deadline, longest), do: min(longest, left(deadline))

  @spec passed?(t()) :: boolean()
  def passed?(deadline), do: left(deadline) == 0

  @doc """
  Does what a call needs first, and gives with its result what is left for the rest of the call. Where
  nothing is, the call is late.
  """
  @spec step(timeout(), (timeout() -> {:ok, result} | {:error, Error.t()})) ::
          {:ok, result, timeout()} | {:error, Error.t()}
        when result: term()
  def step(timeout, step) do
    ends = from_now(timeout)

    with {:ok, result} <- step.(timeout) do
      case left(ends) do
        0 -> {:error, Error.new(:timeout, "no answer within #{timeout} ms")}
        left -> {:ok, result, left}
      end
    end
  end

  @doc "Waits before something is tried again, and no longer than until the deadline."
  @spec pause(t(), non_neg_integer()) :: :ok
  def pause(deadline \\ :infinity, ms) do
    receive do
    after
      left(deadline, ms) -> :ok
    end
  end

  @doc "Has this process sent the message when the timeout is over; never where it is `:infinity`."
  @spec send_after(term(), timeout()) :: :ok
  def send_after(_message, :infinity), do: :ok

  def send_after(message, timeout) do
    Process.send_after(self(), message, timeout)
    :ok
  end

  defp now, do: System.monotonic_time(:millisecond)
end
