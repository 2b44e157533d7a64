defmodule DSPex.Test.Waiting do
  @moduledoc false
  # Waiting for something to be so, with a bound. What can be an event is one (a monitor, a message);
  # the state of a worker is read from where callers read it, a look costs a microsecond, and between
  # looks the scheduler has its turn.

  alias DSPex.Deadline

  @default_timeout 10_000

  @spec default_timeout() :: pos_integer()
  def default_timeout, do: @default_timeout

  @doc "What `fun` gives once it gives something; raises after `timeout`, with what was waited for."
  @spec until(String.t(), pos_integer(), (() -> nil | false | found)) :: found when found: term()
  def until(what, timeout, fun) do
    look(what, timeout, Deadline.from_now(timeout), fun)
  end

  defp look(what, timeout, ends, fun) do
    case fun.() do
      nothing when nothing in [nil, false] ->
        if Deadline.passed?(ends), do: late(what, timeout)
        :erlang.yield()
        look(what, timeout, ends, fun)

      something ->
        something
    end
  end

  @spec late(String.t(), pos_integer()) :: no_return()
  def late(what, timeout) do
    raise ExUnit.AssertionError, message: "waited #{timeout} ms for #{what}"
  end
end
