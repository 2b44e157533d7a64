"""An asyncio loop on a thread of its own, for tests that have no loop, or each another one."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from concurrent.futures import Future

__all__ = ["Background"]

T = TypeVar("T")

# Ending the loop cancels what runs on it; that takes no time unless something does not let go.
_STOP_S = 10.0


class Background:
    """The loop. It runs from the start to `close`."""

    def __init__(self) -> None:
        started = threading.Event()
        # A daemon, so that a test run that is interrupted can end.
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="dspex-tests", daemon=True
        )
        self._thread.start()
        started.wait()

    async def _serve(self, started: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        started.set()
        await self._stop.wait()

    def submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Starts it on the loop; cancelling the future cancels it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Calls it on the loop, soon."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Its result. Cancels it and raises TimeoutError where it takes longer."""
        future = self.submit(work)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():
                raise
            raise TimeoutError(f"it took longer than {timeout_s:g} s") from None
        finally:
            future.cancel()

    def close(self) -> None:
        self.call(self._stop.set)
        self._thread.join(_STOP_S)
        if self._thread.is_alive():
            raise RuntimeError(f"the loop of the dspex fixtures did not end within {_STOP_S:g} s")
