"""The thread with the event loop: DSPy's asynchronous work runs here, in the order it came."""

from __future__ import annotations

import threading
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["Runner"]

# DSPy makes two to four hops over the loop's default executor a call, each short: enough threads
# that a slow one (a name lookup, a price table being read) does not hold up the others.
_EXECUTOR_THREADS = 64


class Runner:
    """Callbacks from any thread run on the loop, in order, woken up for once a batch."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_woken = False
        # When the loop was woken for what it has not begun to run.
        self._woken_at: float | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dspex-loop", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, callback: Callable[[], None]) -> None:
        """Runs `callback` on the loop's thread. It must not raise."""
        self._waiting.append(callback)
        # The first of a batch wakes the loop; the others find it awake.
        if not self._is_woken:
            self._is_woken = True
            self._woken_at = time.monotonic()
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._run_waiting)

    @property
    def lag_s(self) -> float:
        """How long the loop has been wanted and has not come: something on it stands still."""
        woken_at = self._woken_at
        return 0.0 if woken_at is None or self._loop is None else time.monotonic() - woken_at

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop, once it is there (asyncio takes 50 ms to import)."""
        self._started.wait()
        assert self._loop is not None  # noqa: S101 - set before the event
        return self._loop

    def _run_waiting(self) -> None:
        # Cleared before the queue is emptied: whoever finds it set has queued before this.
        self._woken_at, self._is_woken = None, False
        try:
            while self._waiting:
                self._waiting.popleft()()
        finally:
            if self._waiting:  # one of them failed, which the loop reports: the others still run
                self.loop.call_soon(self._run_waiting)

    def _run(self) -> None:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.set_default_executor(ThreadPoolExecutor(_EXECUTOR_THREADS, "dspex-worker"))
        self._loop = loop
        self._started.set()
        loop.call_soon(self._run_waiting)
        loop.run_forever()
