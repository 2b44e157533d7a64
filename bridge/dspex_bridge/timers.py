"""Deadlines, kept by a thread that does nothing else: no busy event loop can hold one up."""

from __future__ import annotations

import heapq
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Timer", "Timers"]

# Cancelled timers stay in the heap until they are due, or until they are most of it.
_COMPACT_FROM = 1024

# Python waits for no time that the system cannot count: a deadline in a million years is waited
# for an hour at a time.
_LONGEST_WAIT_S = 3600.0


class Timer:
    """One pending call. Cancelling one that has run, or twice, does nothing."""

    __slots__ = ("_callback", "_timers", "when")

    def __init__(self, timers: Timers, when: float, callback: Callable[[], object]) -> None:
        self.when = when
        self._timers = timers
        self._callback: Callable[[], object] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return self.when < other.when

    @property
    def is_cancelled(self) -> bool:
        return self._callback is None

    def cancel(self) -> None:
        if self._callback is not None:
            self._callback = None  # and with it whatever the callback holds
            self._timers._cancelled_one()

    def run(self) -> None:
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Timers:
    """Calls back at a time of `time.monotonic()`. The thread starts with the first timer."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._cancelled = 0

    def at(self, when: float, callback: Callable[[], object]) -> Timer:
        """`callback` must be quick and must not raise: it runs on the timer thread."""
        timer = Timer(self, when, callback)
        with self._changed:
            heapq.heappush(self._heap, timer)
            if self._heap[0] is timer:
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="dspex-timers", daemon=True)
                self._thread.start()
        return timer

    def __len__(self) -> int:
        return len(self._heap)

    def _cancelled_one(self) -> None:
        with self._changed:
            self._cancelled += 1
            if self._cancelled > _COMPACT_FROM and 2 * self._cancelled > len(self._heap):
                self._heap = [timer for timer in self._heap if not timer.is_cancelled]
                heapq.heapify(self._heap)
                self._cancelled = 0

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._heap or self._heap[0].when > (now := time.monotonic()):
                    left = self._heap[0].when - now if self._heap else _LONGEST_WAIT_S
                    self._changed.wait(min(left, _LONGEST_WAIT_S))
                timer = heapq.heappop(self._heap)
                if timer.is_cancelled:
                    self._cancelled = max(0, self._cancelled - 1)
                    continue
            timer.run()
