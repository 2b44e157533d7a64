defmodule DSPex.Integration.OptimizeEndsTest do
  # How an optimization ends before its time, through the real bridge and with a metric in Elixir: what
  # is killed and begun again, cancelled, or out of budget; and what is told meanwhile.
  use ExUnit.Case, async: true

  alias DSPex.{Error, Optimization, Progress}
  alias DSPex.Test.{Bridge, Peer, SupportMessages}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 180_000

  @departments [:billing, :accounts, :engineering, :integrations, :sales]
  @train 16
  @val 12

  # So many candidates that none of it ends by itself.
  @long {:bootstrap_few_shot_random_search, num_candidate_programs: 500, num_threads: 2}

  # One example at a time, so that a run is the same to the letter.
  @same_again {:bootstrap_few_shot_random_search,
               num_candidate_programs: 2, max_labeled_demos: 8, num_threads: 1}

  defmodule Desk do
    @moduledoc "Which department does the message go to?"
    use DSPex.Program, server: DSPex.Integration.OptimizeEndsTest.Instance

    defschema InputSchema do
      field(:message, :string, required: true)
    end

    defschema OutputSchema do
      field(:department, {:one_of, [:billing, :accounts, :engineering, :integrations, :sales]})
    end
  end

  setup_all do
    folder = Path.join(System.tmp_dir!(), "dspex-#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)

    name =
      Bridge.start(
        name: __MODULE__.Instance,
        command: Bridge.command() ++ ["--state-dir", folder],
        lms: [knn: "demo/knn"]
      )

    %{
      name: name,
      train: SupportMessages.examples(:train, @train),
      val: SupportMessages.examples(:val, @val)
    }
  end

  # The metric of the client: counts how often it is asked, and does something at the `at`th time.
  defp metric(asked, at \\ 0, fun \\ fn -> :ok end) do
    fn example, prediction ->
      if :atomics.add_get(asked, 1, 1) == at, do: fun.()
      assert example.outputs.department in @departments
      prediction.department == example.outputs.department
    end
  end

  defp optimize(%{name: name, train: train, val: val}, options) do
    defaults = [valset: val, metric: metric(:atomics.new(1, [])), seed: 7]
    DSPex.optimize(name, Desk, train, Keyword.merge(defaults, options))
  end

  # Once, when there have been two candidates beside the program itself.
  defp after_two_candidates(fun) do
    done = :atomics.new(1, [])

    fn progress ->
      if progress.step >= 2 and :atomics.exchange(done, 1, 1) == 0, do: fun.(), else: :ok
    end
  end

  for victim <- [:bridge, :worker] do
    test "a run whose #{victim} is killed goes on where it was, and ends as one that was not",
         context do
      %{name: name} = context
      asked = :atomics.new(1, [])
      assert {:ok, unbroken} = optimize(context, optimizer: @same_again, metric: metric(asked))
      needed = :atomics.get(asked, 1)
      assert unbroken.checkpoint == nil

      asked = :atomics.new(1, [])
      # While it is asked for a score: in the middle, whatever else the machine does.
      middle = div(needed, 2)
      killing = metric(asked, middle, fn -> kill(unquote(victim), name) end)
      again = [optimizer: @same_again, checkpoint: "#{unquote(victim)}"]
      assert {:error, %Error{code: code}} = optimize(context, again ++ [metric: killing])
      assert code == %{bridge: :connection_lost, worker: :internal_error}[unquote(victim)]
      assert :atomics.get(asked, 1) == middle

      again = again ++ [metric: metric(asked)]
      assert {:ok, %Optimization{} = resumed} = optimize(context, again)
      assert resumed.checkpoint["name"] == "#{unquote(victim)}"
      assert resumed.checkpoint["replayed"] > 0
      assert resumed.stopped == nil

      for what <- [:score, :base_score, :comparison, :trials, :best_trial, :changes] do
        assert {what, Map.fetch!(resumed, what)} == {what, Map.fetch!(unbroken, what)}
      end

      assert resumed.state["predictors"] == unbroken.state["predictors"]

      # But for the answer that was under way.
      assert :atomics.get(asked, 1) in needed..(needed + 1)
    end
  end

  defp kill(:bridge, name), do: Peer.kill(%{os_pid: Bridge.os_pid(name)})
  defp kill(:worker, name), do: Peer.kill(%{os_pid: worker(name)})

  # The process that the optimizer runs in: a grandchild of the bridge. That of a test before may
  # still be going.
  defp worker(name) do
    Peer.eventually(fn ->
      case name |> Bridge.os_pid() |> children() |> Enum.flat_map(&children/1) do
        [worker] -> worker
        _other -> nil
      end
    end)
  end

  defp children(os_pid) do
    {printed, _none} = System.cmd("ps", ["-o", "pid=", "--ppid", "#{os_pid}"])
    for pid <- String.split(printed), do: String.to_integer(pid)
  end

  test "one that is cancelled gives the best so far to who wants it", context do
    stop = after_two_candidates(fn -> :stop end)

    assert {:ok, %Optimization{} = optimization} =
             optimize(context, optimizer: @long, on_stop: :best, on_progress: stop)

    assert_best_so_far(context, optimization, "cancelled")
  end

  # Long enough for the run to have begun, also on a machine that is busy.
  @late_ms 10_000

  # What the protocol gives the bridge to gather it, a moment, and what a busy machine may take.
  @gathered_ms 2_000 + 50 + 500

  test "one that is late gives the best so far to who wants it, about when it has to", context do
    # So that what is measured is not the start of Python.
    assert {:ok, _prediction} = Desk.predict(%{message: "Charged twice!"})
    began = System.monotonic_time(:millisecond)

    assert {:ok, %Optimization{} = optimization} =
             optimize(context, optimizer: @long, on_stop: :best, timeout: @late_ms)

    took = System.monotonic_time(:millisecond) - began
    assert took <= @late_ms + @gathered_ms
    assert_best_so_far(context, optimization, "timeout")
  end

  test "one that is cancelled is an error to who does not, and leaves no program", context do
    %{name: name} = context
    # There before, whichever test is the first.
    assert {:ok, _prediction} = Desk.predict(%{message: "Charged twice!"})
    {:ok, before} = DSPex.list(name)
    stop = after_two_candidates(fn -> :stop end)

    assert {:error, %Error{code: :cancelled}} =
             optimize(context, optimizer: @long, on_progress: stop)

    {:ok, list} = DSPex.list(name)
    ids = fn programs -> programs |> Enum.map(& &1["program"]) |> Enum.sort() end
    assert ids.(list) == ids.(before)
  end

  test "one whose caller ends is cancelled: its process goes", context do
    %{name: name} = context
    test = self()

    tell = fn progress ->
      if progress.step >= 2, do: send(test, {:worker, worker(name)})
    end

    caller = spawn(fn -> optimize(context, optimizer: @long, on_progress: tell) end)
    assert_receive {:worker, worker}, 60_000
    assert Bridge.alive?(worker)
    Process.exit(caller, :kill)
    assert Peer.eventually(fn -> not Bridge.alive?(worker) end)
  end

  test "a budget ends it before it is overrun, with the best so far where it is wanted",
       context do
    limits = [max_calls: 60]

    assert {:error, %Error{code: :budget_exceeded, data: data}} =
             optimize(context, optimizer: @long, limits: limits)

    assert data["limit"] == "max_calls"
    assert data["usage"]["total_tokens"] > 0

    assert {:ok, %Optimization{} = optimization} =
             optimize(context, optimizer: @long, limits: limits, on_stop: :best)

    assert optimization.metric_calls <= 60
    assert_best_so_far(context, optimization, "budget")
  end

  defp assert_best_so_far(%{name: name} = context, optimization, reason) do
    assert optimization.stopped == reason

    # One that has been scored on less than half of the examples does not count.
    scored =
      for %{"examples" => count} = trial <- optimization.trials, count * 2 >= @val, do: trial

    assert length(scored) >= 2
    assert optimization.score == scored |> Enum.map(& &1["score"]) |> Enum.max()
    best = Enum.find(scored, &(&1["trial"] == optimization.best_trial))
    assert best["score"] == optimization.score
    assert optimization.score >= optimization.base_score

    {:ok, evaluation} =
      DSPex.evaluate(name, optimization.program, context.val, metric: {:exact_match, :department})

    if best["examples"] == @val, do: assert(evaluation.score == optimization.score)
    assert :ok = DSPex.delete(name, optimization.program)
  end

  test "progress tells the phases, what was spent, the candidates and a best that is never worse",
       context do
    test = self()

    assert {:ok, optimization} =
             optimize(context,
               optimizer: @same_again,
               include: [:candidates],
               on_progress: &send(test, {:told, &1})
             )

    told = told()
    phases = told |> Enum.map(& &1.phase) |> Enum.dedup()
    # Whether the last is told depends on how long it takes.
    assert phases -- ["evaluate"] == ["start", "baseline", "compile"]
    assert Enum.count(told, &(&1.phase == "start")) == 1

    for spent <- [:lm_calls, :metric_calls, :total_tokens] do
      # Nothing of it is known before the run is under way, which may take a busy machine a second.
      {unknown, values} = told |> Enum.map(&Map.fetch!(&1, spent)) |> Enum.split_while(&is_nil/1)
      assert length(unknown) < length(told)
      assert values == Enum.sort(values)
    end

    # Unknown until the program itself is scored, and never again.
    best = told |> Enum.map(& &1.best_score) |> Enum.drop_while(&is_nil/1)
    assert best == Enum.sort(best)
    assert List.last(best) == optimization.score

    candidates = for %{candidate: candidate} when candidate != nil <- told, do: candidate
    trials = candidates |> Enum.map(& &1["trial"]) |> Enum.uniq()
    assert trials == Enum.map(optimization.trials, & &1["trial"])

    for %{"predictors" => %{"self" => prompt}} <- candidates do
      assert is_binary(prompt["instructions"]) and is_list(prompt["demos"])
    end
  end

  defp told do
    receive do
      {:told, %Progress{} = progress} -> [progress | told()]
    after
      0 -> []
    end
  end
end
