defmodule DSPex.Integration.PoolTest do
  # Many callers, several real Pythons.
  use ExUnit.Case, async: true

  import DSPex.Test.{MonitorHelpers, SupervisionHelpers}

  @moduletag :integration
  @moduletag :capture_log
  @moduletag timeout: 300_000

  @calls 10_000
  @bound_ms 240_000

  test "ten thousand concurrent calls through one pool are answered, each with its own answer" do
    instance = start_instance(command: DSPex.Test.Bridge.command(), pool_size: 2)
    wait_for_health_status(instance, :ready, timeout: 60_000)

    tasks =
      for n <- 1..@calls do
        Task.async(fn -> {n, DSPex.ping(instance, payload: n, timeout: @bound_ms)} end)
      end

    for {n, answer} <- Task.await_many(tasks, @bound_ms), do: assert(answer == {:ok, n})
    wait_for_in_flight(instance, 0)
  end

  test "a rolling restart under load loses no call" do
    instance =
      start_instance(
        command: DSPex.Test.Bridge.command(),
        pool_size: 2,
        lms: [main: "demo/knn"],
        default_lm: :main
      )

    demos = [%{inputs: %{question: "What?"}, outputs: %{answer: "That."}}]
    {:ok, program} = DSPex.create(instance, "question -> answer", demos: demos)
    before = workers(instance)

    load =
      Task.async_stream(
        1..200,
        fn _n -> DSPex.execute(instance, program, %{question: "What?"}, timeout: @bound_ms) end,
        max_concurrency: 8,
        timeout: @bound_ms
      )

    restart = Task.async(fn -> DSPex.restart(instance) end)
    for {:ok, answer} <- load, do: assert({:ok, %{outputs: %{"answer" => "That."}}} = answer)
    assert Task.await(restart, @bound_ms) == :ok

    for {old, new} <- Enum.zip(before, workers(instance)), do: assert(old.os_pid != new.os_pid)
  end
end
