from __future__ import annotations

import threading
import time

from dspex_bridge.runner import Runner

BOUND_S = 20.0


def test_a_loop_that_stands_still_lags_and_one_that_runs_does_not() -> None:
    runner = Runner(lambda: None)
    runner.start()
    blocked, release, after = threading.Event(), threading.Event(), threading.Event()

    def stand_still() -> None:
        blocked.set()
        release.wait(BOUND_S)

    runner.submit(stand_still)
    assert blocked.wait(BOUND_S)
    assert runner.lag_s == 0.0, "nobody has waited for it yet"
    since = time.monotonic()
    runner.submit(after.set)
    while runner.lag_s < 0.01:
        assert time.monotonic() - since < BOUND_S
    release.set()
    assert after.wait(BOUND_S)
    assert runner.lag_s == 0.0


def test_a_turn_ends_once_after_all_that_was_ready_to_run() -> None:
    seen: list[str] = []
    ended, tasks_ended = threading.Event(), threading.Event()

    def end_turn() -> None:
        seen.append("end")
        ended.set()
        if seen.count("task") == 3:
            tasks_ended.set()

    runner = Runner(end_turn)

    def answer(what: str) -> None:
        seen.append(what)
        assert runner.in_turn()

    async def task() -> None:
        answer("task")

    def start_tasks() -> None:
        for _ in range(3):
            runner.loop.create_task(task())

    for _ in range(3):  # before the loop runs: all in one turn
        runner.submit(lambda: answer("callback"))
    runner.start()
    assert ended.wait(BOUND_S)
    assert seen == ["callback"] * 3 + ["end"]
    seen.clear()
    runner.submit(start_tasks)
    assert tasks_ended.wait(BOUND_S)
    assert seen == ["end", "task", "task", "task", "end"]


def test_a_turn_of_the_loop_is_nobody_elses() -> None:
    runner = Runner(lambda: None)
    runner.start()
    runner.loop  # noqa: B018 - waits until it runs
    assert not runner.in_turn()
