"""The measurement of many executes at once runs, and every execute is answered.

What they cost depends on the machine and on who else runs: `python -m integration.concurrency`
tells it.
"""

from __future__ import annotations

import subprocess
import sys


def test_every_execute_of_many_at_once_is_answered() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "integration.concurrency", "--calls", "50", "--rounds", "1"],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("50 of 50 answered") == 7
