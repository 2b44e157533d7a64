defmodule DSPex.Connection.Failure do
  @moduledoc false
  # The errors that are the connection's own: what became of a request that has no answer.

  alias DSPex.Error

  # Requests that can be made again whatever became of the first one: they change nothing, or
  # nothing that a new Python would still have. Others may have called an LM.
  @repeatable ~w(ping stats list describe dump create load delete configure)

  @doc "Python ended after the request had been written to it."
  @spec lost(String.t(), String.t()) :: Error.t()
  def lost(method, why) do
    if method in @repeatable do
      text = "#{why}; #{method} can safely be called again"
      Error.new(:connection_lost, text, retryable: true)
    else
      Error.new(
        :connection_lost,
        "#{why}; #{method} may have been done in part, and paid for, so it is not made again by itself",
        data: %{"method" => method}
      )
    end
  end

  @typedoc "Whether what kept Python from starting may be gone the next time, or a person has to mend it."
  @type cause :: :passing | :lasting

  @doc "Python could not be started, or made ready."
  @spec start_failed(String.t(), cause()) :: Error.t()
  def start_failed(why, cause) do
    text = "Python could not be made ready: #{why}"
    Error.new(:start_failed, text, retryable: cause == :passing)
  end

  # What a machine can be short of for a while, and what it is called then.
  @short [:eagain, :emfile, :enfile, :enomem, :system_limit]
  @short_texts [
    "MemoryError",
    "Cannot allocate memory",
    "No space left on device",
    "Resource temporarily unavailable",
    "Too many open files"
  ]

  @doc "The cause of what a command said before it ended, or of the exception that it could not be run with."
  @spec cause(String.t() | Exception.t() | nil) :: cause()
  def cause(%ErlangError{original: reason}) when reason in @short, do: :passing
  def cause(%SystemLimitError{}), do: :passing
  def cause(said) when is_binary(said), do: short(String.contains?(said, @short_texts))
  def cause(_other), do: :lasting

  defp short(true), do: :passing
  defp short(false), do: :lasting

  @doc "The connection's process ended, for this reason."
  @spec down(term(), String.t()) :: Error.t()
  def down(reason, _method) when reason in [:noproc, :normal, :shutdown], do: not_running()
  def down({:shutdown, _why}, _method), do: not_running()

  def down(_reason, method),
    do: lost(method, "the connection to Python failed before it answered")

  @spec not_running() :: Error.t()
  def not_running,
    do: Error.new(:not_started, "the DSPex instance is not running", retryable: true)

  @doc "So many bytes of requests wait to be written that there is no room for another."
  @spec overloaded(non_neg_integer(), :start | :replacement | :reader | :answers) :: Error.t()
  def overloaded(bytes, waits_for) do
    why =
      case waits_for do
        :start -> "Python is starting"
        :replacement -> "Python is being replaced"
        :reader -> "Python reads too slowly"
        :answers -> "Python works on as many as it takes at one time"
      end

    text = "#{bytes} bytes of requests are waiting (#{why}); this one was not sent"
    Error.new(:overloaded, text, retryable: true)
  end

  @spec too_large(pos_integer(), pos_integer()) :: Error.t()
  def too_large(size, limit) do
    text = "the request has #{size} bytes, the bridge takes #{limit}"
    Error.new(:frame_too_large, text, data: %{"size" => size, "limit" => limit})
  end
end
