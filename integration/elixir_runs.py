"""The Elixir client's tests, again and again, each time in another order: does any of them fail?

    python -m integration.elixir_runs           the short form
    python -m integration.elixir_runs --full    test.fast and test.protocol 50 times, test.all 5

A run that fails is told with its seed and what it printed; `mix test --seed N` has the same order.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.phases import Phase, run_phases

__all__ = ["main", "repeat"]

CLIENT = Path(__file__).resolve().parent.parent / "elixir_client"

# ExUnit's last line: "46 doctests, 412 tests, 0 failures, 287 excluded".
_COUNTS = re.compile(
    r"^(?:\d+ doctests?, )?(\d+) tests?, (\d+) failures?(?:, (\d+) excluded)?", re.M
)

# Of a whole suite, on a machine that is busy with something else.
_BOUND_S = 1800


def repeat(alias: str) -> Callable[[int, int], dict[str, Any]]:
    """A phase: so many runs of a mix alias, with seeds made of the phase's own."""

    def run(seed: int, runs: int) -> dict[str, Any]:
        seeds = [random.Random(f"{seed}:{number}").randrange(10**6) for number in range(runs)]
        tests: set[int] = set()
        failed = []
        for number, order in enumerate(seeds, 1):
            started = time.monotonic()
            executed, printed = _run(alias, order)
            word = "failed" if executed is None else f"{executed} tests passed"
            took_s = time.monotonic() - started
            _say(f"{alias} {number}/{runs}, seed {order}: {word} in {took_s:.1f} s")
            if executed is None:
                failed.append(order)
                _say(printed)
            else:
                tests.add(executed)
        assert not failed, f"{alias} failed with the seeds {failed}"
        assert len(tests) == 1, f"{alias} ran now more, now fewer tests: {sorted(tests)}"
        return {"runs": runs, "tests_each": tests.pop(), "failed": 0, "seeds": seeds}

    return run


def _run(alias: str, order: int) -> tuple[int | None, str]:
    """How many tests ran and passed, or None; and what was printed."""
    env = {"DSPEX_BRIDGE": f"{sys.executable} -m dspex_bridge", "DSPEX_PYTHON": sys.executable}
    done = subprocess.run(
        ["mix", alias, "--seed", str(order)],
        cwd=CLIENT,
        env={**env, **os.environ, "LC_ALL": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=_BOUND_S,
        check=False,
    )
    found = _COUNTS.findall(done.stdout)
    if done.returncode != 0 or not found or found[-1][1] != "0":
        return None, done.stdout
    tests, _failures, excluded = found[-1]
    return int(tests) - int(excluded or 0), done.stdout


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


_PHASES = {
    "fast": Phase(repeat("test.fast"), 2, 50),
    "protocol": Phase(repeat("test.protocol"), 2, 50),
    "all": Phase(repeat("test.all"), 1, 5),
}


def main() -> int:
    return run_phases("integration.elixir_runs", __doc__, _PHASES)


if __name__ == "__main__":
    sys.exit(main())
