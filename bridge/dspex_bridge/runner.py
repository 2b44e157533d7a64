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

    def __init__(self, end_turn: Callable[[], None]) -> None:
        """`end_turn` is called where `in_turn` was: it must not raise."""
        self._end_turn = end_turn
        self._is_turn_to_end = False
        self._thread_id: int | None = None
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

    def in_turn(self) -> bool:
        """Whether this is the loop's thread; then `end_turn` is called once all that is ready to
        run now has run, however often this is asked."""
        if threading.get_ident() != self._thread_id:
            return False
        if not self._is_turn_to_end:
            self._is_turn_to_end = True
            self.loop.call_soon(self._finish_turn)
        return True

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
        self._is_turn_to_end = True
        try:
            # Not those that come meanwhile: tasks of others want to run, and answers to be sent.
            for _ in range(len(self._waiting)):
                self._waiting.popleft()()
        finally:
            # One of them may have failed, which the loop reports: the others still run.
            if self._waiting:
                self.loop.call_soon(self._run_waiting)
            self._finish_turn()

    def _finish_turn(self) -> None:
        self._is_turn_to_end = False
        self._end_turn()

    def _run(self) -> None:
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.set_default_executor(ThreadPoolExecutor(_EXECUTOR_THREADS, "dspex-worker"))
        self._loop = loop
        self._thread_id = threading.get_ident()
        self._started.set()
        loop.call_soon(self._run_waiting)
        loop.run_forever()
