defmodule DSPex.Bench.ErlPort do
  @moduledoc false
  # erlport as its users have it: `python:call/4` of a Python function that gives back its argument.
  # The bench has compiled it, from the checkout that it was given.
  #
  # What it does not do: start Python again, look whether it lives, bound what waits, cancel, streams,
  # more than one worker, telemetry; nor does it validate what it calls.

  @compile {:no_warn_undefined, :python}

  def start_link([ebin, python, modules, buffer_bytes]) do
    true = Code.append_path(ebin)

    :python.start_link(
      python: to_charlist(python),
      python_path: [to_charlist(modules)],
      buffer_size: String.to_integer(buffer_bytes)
    )
  end

  def echo(erlport, bytes), do: :python.call(erlport, :bench_echo, :echo, [bytes])
end
