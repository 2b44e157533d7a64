# What callers see of a Python that stops reading: run by integration/soak.py, which reads the counts
# as JSON on stdout. `silence.exs SECONDS`; the bridge is DSPEX_BRIDGE's.
#
# The bridge is stopped (SIGSTOP). One caller after the other makes a large call, until there is no
# room for more: they wait. Beside them others make calls with a short deadline, which are to be answered meanwhile.
# Then the bridge goes on, and everything that waited is to have its answer.

defmodule Silence do
  @others 8
  @pause_ms 5
  @timeout_ms 20
  @payload String.duplicate("x", 64 * 1024)

  # More than fit. The last comes at half of the time: from then on callers are refused.
  @waiting 320

  def run(seconds) do
    {:ok, _} =
      Supervisor.start_link([{DSPex, heartbeat_interval: :infinity}], strategy: :one_for_one)

    {:ok, nil} = DSPex.ping(DSPex)
    python = DSPex |> DSPex.workers() |> elem(1) |> hd() |> Map.fetch!(:os_pid)
    warm_up()
    before = memory()
    signal(python, "STOP")
    ends = now() + seconds * 1000

    others = for _ <- 1..@others, do: Task.async(fn -> other(ends, []) end)
    sampler = Task.async(fn -> sample(ends, before, 0) end)
    waiting = fill(now(), div(seconds * 1000, 2))

    answers = others |> Task.await_many(:infinity) |> List.flatten()
    growth = Task.await(sampler, :infinity)
    signal(python, "CONT")
    served = Enum.count(Task.await_many(waiting, :infinity), &(&1 == :served))
    late = answers |> Enum.map(&elem(&1, 1)) |> Enum.sort()

    counts = [
      calls: length(answers),
      overloaded: Enum.count(answers, &match?({:overloaded, _late}, &1)),
      timeout: Enum.count(answers, &match?({:timeout, _late}, &1)),
      p50_ms: Enum.at(late, div(length(late), 2)),
      p99_ms: Enum.at(late, div(length(late) * 99, 100)),
      max_ms: List.last(late),
      waited_and_served: served,
      refused: length(waiting) - served,
      growth_bytes: growth
    ]

    IO.puts("{" <> Enum.map_join(counts, ", ", fn {name, n} -> ~s("#{name}": #{n}) end) <> "}")
  end

  # The code is loaded, and the heaps of callers have been there once.
  defp warm_up do
    1..@others
    |> Enum.map(fn _ -> Task.async(fn -> DSPex.ping(DSPex, payload: @payload) end) end)
    |> Task.await_many()
  end

  # One that does not fit is refused at once and ends; the others wait for the bridge.
  defp fill(started, ms) do
    for number <- 1..@waiting do
      pause(max(0, started + div(number * ms, @waiting) - now()))
      Task.async(fn -> wait(number) end)
    end
  end

  # The text is a constant: what grows is what the client makes of it.
  defp wait(number) do
    case DSPex.ping(DSPex, payload: %{"number" => number, "text" => @payload}, timeout: :infinity) do
      {:ok, %{"number" => ^number, "text" => @payload}} -> :served
      {:error, %DSPex.Error{code: :overloaded}} -> :refused
    end
  end

  # How much later than it may be each call is answered: a refusal comes at once.
  defp other(ends, answers) do
    started = now()

    if started > ends do
      answers
    else
      {:error, error} = DSPex.ping(DSPex, payload: @payload, timeout: @timeout_ms)
      took = now() - started
      pause(@pause_ms)

      late =
        case error.code do
          :overloaded -> took
          :timeout -> took - @timeout_ms
        end

      other(ends, [{error.code, late} | answers])
    end
  end

  defp sample(ends, before, growth) do
    if now() > ends do
      growth
    else
      pause(50)
      grown = Enum.zip_with(memory(), before, &(&1 - &2))
      sample(ends, before, Enum.max([growth | grown]))
    end
  end

  # What the operating system sees, and what the BEAM has taken of that: it can grow into what is
  # left of starting up without the former's knowing.
  defp memory do
    [_size, pages | _] = "/proc/self/statm" |> File.read!() |> String.split()
    [String.to_integer(pages) * 4096, :erlang.memory(:total)]
  end

  defp signal(os_pid, name), do: {_, 0} = System.cmd("kill", ["-#{name}", "#{os_pid}"])
  defp now, do: System.monotonic_time(:millisecond)

  defp pause(ms) do
    receive do
    after
      ms -> :ok
    end
  end
end

[seconds] = System.argv()
Silence.run(String.to_integer(seconds))
