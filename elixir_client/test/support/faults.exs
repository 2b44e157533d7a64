# A history of calls to one pool whose Pythons are killed, crashed and stopped all the while: run by
# integration/faults.py, which checks it afterwards. `faults.exs CALLS FAULTS WORKERS FILE SEED [forked]`;
# the bridge is DSPEX_BRIDGE's. Of forked Pythons the server is killed, too, or stopped before one of
# them is killed: all faults of one worker, and the end of others.
#
# A line of the history is an event: what, its number, microseconds since the start, and more. Callers
# note a call before they make it, its answer when they have it, and whatever else comes to them.

defmodule Faults do
  @callers 64
  @kinds ["KILL", "SEGV", "STOP"]
  @forked_kinds @kinds ++ ["SERVER", "STOPPED_SERVER"]
  @bound_ms 120_000

  # Between faults at most, and after a call that found no worker.
  @pause_ms 50

  def run(calls, faults, workers, path, seed, fork?) do
    :rand.seed(:exsss, {seed, seed, seed})
    Logger.configure(level: :none)
    load_all()

    {:ok, _} =
      Supervisor.start_link([{DSPex, pool_size: workers, fork: fork?}], strategy: :one_for_one)

    history = spawn_link(fn -> write_to(path) end)
    all_ready(workers)

    {:ok, _program} =
      DSPex.create(DSPex, "question -> answer", program: "kept", timeout: @bound_ms)

    # Whatever is loaded, or grows to its size, the first time.
    run = %{
      history: history,
      next: :atomics.new(1, []),
      allowed: :atomics.new(1, []),
      kinds: if(fork?, do: @forked_kinds, else: @kinds)
    }

    warm(run, workers)
    {:ok, [_kept]} = DSPex.list(DSPex, timeout: @bound_ms)
    before = resources()
    note(run, ["before", shown(before)])

    callers = for _ <- 1..@callers, do: Task.async(fn -> caller(run, calls) end)
    inject(run, faults, div(calls, faults), 0, %{})
    :atomics.put(run.allowed, 1, calls)
    Task.await_many(callers, :infinity)
    all_ready(workers)

    note(run, [
      "programs",
      inspect(Enum.map(elem(DSPex.list(DSPex, timeout: @bound_ms), 1), & &1["program"]))
    ])

    note(run, ["after", shown(settled(before))])
    send(history, {:close, self()})

    receive do
      :closed -> :ok
    end
  end

  # Code is loaded when it is first called, and its atoms with it.
  defp load_all do
    _loaded = Application.load(:dspex)

    for app <- [:dspex, :elixir, :logger, :kernel, :stdlib],
        module <- Application.spec(app, :modules),
        do: Code.ensure_loaded(module)
  end

  # --- callers ---

  defp caller(run, calls) do
    number = :atomics.add_get(run.next, 1, 1)
    if number <= calls, do: call(run, number, calls), else: :ok
  end

  defp call(run, number, calls) do
    allowed(run, number)
    note(run, ["call", number])

    case DSPex.ping(DSPex, payload: number, timeout: @bound_ms) do
      {:ok, payload} -> note(run, ["answer", number, "ok", inspect(payload)])
      {:error, error} -> failed(run, number, error)
    end

    strays(run, number)
    caller(run, calls)
  end

  defp failed(run, number, error) do
    note(run, ["answer", number, error.code, inspect(error.retryable)])
    # There is no worker now: as anybody would, it waits a little.
    if error.code == :start_failed, do: pause(@pause_ms)
  end

  defp strays(run, number) do
    receive do
      _message ->
        note(run, ["stray", number])
        strays(run, number)
    after
      0 -> :ok
    end
  end

  # So that there are calls under way at every fault.
  defp allowed(run, number) do
    if :atomics.get(run.allowed, 1) < number do
      pause(1)
      allowed(run, number)
    end
  end

  # --- faults ---

  # One at a time on a worker; on several workers at one time.
  defp inject(run, faults, step, done, open) do
    open = observe(run, open)

    cond do
      done < faults ->
        case Enum.find(
               Enum.shuffle(workers()),
               &(&1.status == :ready and is_integer(&1.os_pid) and not is_map_key(open, &1.worker))
             ) do
          nil ->
            pause(1)
            inject(run, faults, step, done, open)

          worker ->
            kind = Enum.at(run.kinds, rem(done, length(run.kinds)))
            :atomics.add(run.allowed, 1, step)
            note(run, ["fault", done, kind, worker.worker, worker.os_pid])
            signal(worker.os_pid, kind)
            pause(:rand.uniform(@pause_ms))

            inject(
              run,
              faults,
              step,
              done + 1,
              Map.put(open, worker.worker, {done, worker.os_pid})
            )
        end

      open != %{} ->
        pause(1)
        inject(run, faults, step, done, open)

      true ->
        :ok
    end
  end

  # A fault is noticed when its Python is given up, and over when another is ready.
  defp observe(run, open) do
    Enum.reduce(workers(), open, fn worker, open ->
      open |> noticed(run, worker) |> recovered(run, worker)
    end)
  end

  defp noticed(open, run, %{worker: number, os_pid: os_pid}) do
    case open do
      %{^number => {fault, was}} when is_integer(was) and os_pid != was ->
        note(run, ["noticed", fault])
        Map.put(open, number, {fault, :noticed})

      _other ->
        open
    end
  end

  defp recovered(open, run, %{worker: number, status: :ready}) do
    case open do
      %{^number => {fault, :noticed}} ->
        note(run, ["recovered", fault])
        Map.delete(open, number)

      _other ->
        open
    end
  end

  defp recovered(open, _run, _worker), do: open

  defp warm(run, workers) do
    quiet = %{run | history: spawn_link(&ignore/0)}
    :atomics.put(run.allowed, 1, 1000)
    callers = for _ <- 1..@callers, do: Task.async(fn -> caller(quiet, 1000) end)
    inject(quiet, length(run.kinds) * workers, 0, 0, %{})
    Task.await_many(callers, :infinity)
    :atomics.put(run.next, 1, 0)
    :atomics.put(run.allowed, 1, 0)
    all_ready(workers)
    Process.unlink(quiet.history)
    Process.exit(quiet.history, :kill)
  end

  defp ignore do
    receive do
      _any -> ignore()
    end
  end

  defp workers, do: elem({:ok, _} = DSPex.workers(DSPex), 1)

  defp all_ready(count) do
    unless Enum.count(workers(), &(&1.status == :ready)) == count do
      pause(5)
      all_ready(count)
    end
  end

  defp signal(os_pid, "SERVER"), do: signal(parent(os_pid), "KILL")

  defp signal(os_pid, "STOPPED_SERVER") do
    signal(parent(os_pid), "STOP")
    signal(os_pid, "KILL")
  end

  # It has ended by itself.
  defp signal(nil, _name), do: :ok

  defp signal(os_pid, name) do
    # It may have ended by itself.
    {_output, _status} = System.cmd("kill", ["-#{name}", "#{os_pid}"], stderr_to_stdout: true)
  end

  # The fork server of a Python, and nobody who took it in when that had died.
  defp parent(os_pid) do
    with {:ok, stat} <- File.read("/proc/#{os_pid}/stat"),
         [_state, parent | _rest] <- stat |> String.split(") ") |> List.last() |> String.split(),
         {:ok, command} <- File.read("/proc/#{parent}/cmdline"),
         true <- String.contains?(command, "--fork-server"),
         do: parent,
         else: (_gone -> nil)
  end

  # --- what may leak ---

  defp resources do
    :erlang.garbage_collect()

    %{
      atoms: :erlang.system_info(:atom_count),
      ports: length(Port.list()),
      processes: length(Process.list()),
      tables: length(:ets.all()),
      rows: Enum.sum(for table <- :ets.all(), ours?(table), do: :ets.info(table, :size)),
      in_flight: Enum.sum(Enum.map(workers(), & &1.in_flight))
    }
  end

  defp ours?(table) do
    case :ets.info(table, :name) do
      name when is_atom(name) -> name |> Atom.to_string() |> String.starts_with?("Elixir.DSPex")
      _gone -> false
    end
  end

  # The end of a process is told to nobody who could be asked: it is waited for, with a bound.
  defp settled(before, left \\ 5000) do
    now = resources()

    if left == 0 or (now.ports <= before.ports and now.processes <= before.processes) do
      now
    else
      pause(1)
      settled(before, left - 1)
    end
  end

  defp shown(resources), do: Enum.map_join(resources, " ", fn {what, n} -> "#{what}=#{n}" end)

  # --- the history ---

  defp note(run, fields),
    do: send(run.history, {:note, System.monotonic_time(:microsecond), fields})

  defp write_to(path) do
    {:ok, file} = File.open(path, [:write, :raw, :binary, {:delayed_write, 1_000_000, 1000}])
    write(file)
  end

  defp write(file) do
    receive do
      {:note, at, fields} ->
        :ok = :file.write(file, [Enum.map_join([at | fields], " ", &to_string/1), "\n"])
        write(file)

      {:close, from} ->
        :ok = File.close(file)
        send(from, :closed)
    end
  end

  defp pause(ms) do
    receive do
    after
      ms -> :ok
    end
  end
end

[calls, faults, workers, path, seed | forked] = System.argv()

Faults.run(
  String.to_integer(calls),
  String.to_integer(faults),
  String.to_integer(workers),
  path,
  String.to_integer(seed),
  forked != []
)
