"""SIGKILL that is counted by deaths: one that nobody died of is none."""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["handles_of", "kill", "wait_for_ends"]

# For the kernel to end a process that may be waiting for a disk.
_DEATH_S = 60.0


def kill(pid: int) -> bool:
    """True where a process that ran is dead by this: gone, or waiting to be reaped. False where
    there was none any more. So that nobody dies twice: a zombie is dead, and one that was shot is
    waited for. Raises TimeoutError where it does not die."""
    try:
        # It stays this process, also where the number is given to another one meanwhile.
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if _has_ended(process, 0.0):
            return False
        signal.pidfd_send_signal(process, signal.SIGKILL)
        if not _has_ended(process, _DEATH_S):
            raise TimeoutError(f"process {pid} is alive {_DEATH_S:g} s after SIGKILL")
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(process)


def handles_of(pids: Iterable[int]) -> list[int]:
    """Of those that run. A handle stays that of its process, also where the number is given away;
    `wait_for_ends` closes them."""
    handles = []
    for pid in pids:
        with suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    return handles


def wait_for_ends(handles: list[int]) -> None:
    """Raises TimeoutError where one of the processes does not end."""
    while handles:
        process = handles.pop()
        try:
            if not _has_ended(process, _DEATH_S):
                raise TimeoutError(f"a process has not ended within {_DEATH_S:g} s")
        finally:
            os.close(process)


def _has_ended(process: int, bound_s: float) -> bool:
    # The kernel makes it readable when the last of its threads has ended.
    poll = select.poll()
    poll.register(process, select.POLLIN)
    return bool(poll.poll(bound_s * 1000))
