from __future__ import annotations

import threading
import time

from dspex_bridge.runner import Runner

BOUND_S = 20.0


def test_a_loop_that_stands_still_lags_and_one_that_runs_does_not() -> None:
    runner = Runner()
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
