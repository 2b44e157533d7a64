"""Processor time of a process, which other processes on the machine hardly change."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

__all__ = ["processor_ns", "processor_us_a_call"]


def processor_ns(pid: int) -> int:
    """What the threads have used that are alive: a pool of threads that shrinks takes its own
    along. /proc/PID/stat has those too, but counts in hundredths of a second."""
    used = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        try:
            used += int((thread / "schedstat").read_text().split()[0])
        except FileNotFoundError:
            continue  # it ended just now
    return used


def processor_us_a_call(pids: Collection[int], run: Callable[[], object], calls: int) -> float:
    """What the processes use while `run` makes so many calls, for each of them."""
    before = sum(map(processor_ns, pids))
    run()
    return (sum(map(processor_ns, pids)) - before) / calls / 1000
