"""Watches what a long life does to the process, and says when it wants to be replaced."""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .host import Host

__all__ = ["DEFAULT_MAX_STUCK", "Health", "memory_bytes", "tree_bytes"]

# Each holds a thread or a task, and what it was given: a few are bad programs, more are a process
# that is filling up.
DEFAULT_MAX_STUCK = 8

# Often enough to notice a leak before the system does; a look costs 20 µs.
_INTERVAL_S = 1.0

# Work on the loop comes in milliseconds; what takes longer is on threads and in processes.
_FROZEN_AFTER_S = 10.0

_MIB = 1024 * 1024


class Health:
    """Sends `unhealthy` once for each cause."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._told: set[str] = set()

    def watch(self) -> None:
        """Looks now and then: on the timers' thread, which no hanging work holds up."""
        self.check()
        self._host.timers.at(time.monotonic() + _INTERVAL_S, self.watch)

    def check(self) -> None:
        self._host.flush()  # log events that nobody has sent since
        self._host.runner.submit(_nothing)  # so that a loop that stands still is noticed
        lag_s = self._host.runner.lag_s
        if lag_s > _FROZEN_AFTER_S:
            self._tell("frozen", f"the event loop has stood still for {lag_s:.0f} s")
        options = self._host.options
        if options.max_memory_mb is not None:
            used = self._host.memory_bytes() // _MIB
            if used > options.max_memory_mb:
                self._tell("memory", f"{used} MiB are used, {options.max_memory_mb} are the limit")
        stuck = self._host.dispatcher.stuck
        if stuck > options.max_stuck:
            self._tell("stuck", f"{stuck} pieces of work do not end, {options.max_stuck} may")

    def _tell(self, reason: str, message: str) -> None:
        if reason in self._told:
            return
        self._told.add(reason)
        self._host.log.warning(f"unhealthy ({reason}): {message}")
        params = {"reason": reason, "message": message}
        self._host.connection.send_notification("unhealthy", params)
        self._host.flush()


def _nothing() -> None:
    """What the loop is asked to run."""


def tree_bytes(pid: int) -> int:
    """What a process and those under it have of the memory: of pages that several share, as forks
    do, each has its part. 0 where the system does not tell, or it has just ended."""
    children: set[int] = set()
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as listed:  # noqa: PTH123
                children.update(map(int, listed.read().split()))
        with open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:  # noqa: PTH123
            own = next(int(line.split()[1]) for line in rollup if line.startswith(b"Pss:"))
    except (OSError, StopIteration):
        own = 0
    return own * 1024 + sum(map(tree_bytes, children))


def memory_bytes() -> int:
    """The resident memory of this process."""
    try:
        with open("/proc/self/statm", "rb") as statm:  # noqa: PTH123 - pathlib is a slow import
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
