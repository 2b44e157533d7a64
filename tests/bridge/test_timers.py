from __future__ import annotations

import threading
import time

from dspex_bridge.timers import Timers

BOUND_S = 10.0


def test_callbacks_run_in_the_order_of_their_times() -> None:
    timers, ran, done = Timers(), [], threading.Event()
    now = time.monotonic()
    timers.at(now + 0.04, done.set)
    timers.at(now + 0.03, lambda: ran.append("third"))
    timers.at(now + 0.01, lambda: ran.append("first"))
    timers.at(now + 0.02, lambda: ran.append("second"))
    assert done.wait(BOUND_S)
    assert ran == ["first", "second", "third"]


def test_none_runs_before_its_time() -> None:
    timers, at, done = Timers(), [], threading.Event()
    when = time.monotonic() + 0.05
    timers.at(when, lambda: at.append(time.monotonic()))
    timers.at(when + 0.01, done.set)
    assert done.wait(BOUND_S)
    assert at[0] >= when


def test_an_earlier_timer_is_not_held_up_by_a_later_one_that_was_set_first() -> None:
    timers, done = Timers(), threading.Event()
    timers.at(time.monotonic() + 3600, lambda: None)
    timers.at(time.monotonic() + 0.01, done.set)
    assert done.wait(BOUND_S)


def test_a_timer_that_is_never_due_holds_up_no_other() -> None:
    timers, first, second = Timers(), threading.Event(), threading.Event()
    timers.at(time.monotonic() + 2.0**63, lambda: None)
    timers.at(time.monotonic() + 0.01, first.set)
    assert first.wait(BOUND_S)
    # The thread waits for the far one now, and must live to see an earlier one.
    timers.at(time.monotonic() + 0.01, second.set)
    assert second.wait(BOUND_S)


def test_a_cancelled_timer_does_not_run() -> None:
    timers, ran, done = Timers(), [], threading.Event()
    now = time.monotonic()
    timer = timers.at(now + 0.02, lambda: ran.append("cancelled"))
    timer.cancel()
    timer.cancel()
    timers.at(now + 0.04, done.set)
    assert done.wait(BOUND_S)
    assert ran == []


def test_cancelled_timers_do_not_pile_up() -> None:
    timers = Timers()
    for _ in range(20_000):
        timers.at(time.monotonic() + 3600, lambda: None).cancel()
    assert len(timers) < 5_000
