"""Processor time of a process, which other processes on the machine hardly change."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

__all__ = ["below", "busier_us_a_call", "processor_ns", "processor_us_a_call"]


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
    return _used_ns([pids], run)[0] / calls / 1000


def busier_us_a_call(pid: int, run: Callable[[], object], calls: int) -> float:
    """The same of a process or of those that it has started, whichever use more: the time that a
    call takes where each side has a processor of its own, and neither waits for the other."""
    return max(_used_ns([[pid], below(pid)], run)) / calls / 1000


def below(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended just now
        parents[int(entry.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_below(child: int) -> bool:
        while child in parents:
            child = parents[child]
            if child == pid:
                return True
        return False

    return [child for child in parents if is_below(child)]


def _used_ns(groups: Collection[Collection[int]], run: Callable[[], object]) -> list[int]:
    before = [sum(map(processor_ns, pids)) for pids in groups]
    run()
    after = [sum(map(processor_ns, pids)) for pids in groups]
    return [late - early for late, early in zip(after, before, strict=True)]
