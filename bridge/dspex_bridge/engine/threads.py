"""LM calls of DSPy's blocking code, which runs on threads: made on the event loop all the same."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

__all__ = ["THREADS_SETTING", "ThreadCalls"]

# The key in DSPy's settings under which a run's ThreadCalls travels.
THREADS_SETTING = "dspex_threads"


class ThreadCalls:
    """The way from a run's threads to the loop, where meters, limits and connections are.

    It is closed with the run: what is under way ends, and a thread that goes on ends with its next
    call. Made on the loop's thread.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_closed = False

    def call(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Runs an async function on the loop, in DSPy's context of the calling thread, and waits
        for its result. Raises CancelledError where the run is over."""
        try:
            is_loop = asyncio.get_running_loop() is self._loop
        except RuntimeError:
            is_loop = False
        if is_loop:
            raise RuntimeError("a blocking LM call on the event loop's thread would stop the loop")
        return asyncio.run_coroutine_threadsafe(self._kept(function), self._loop).result()

    def close(self) -> None:
        self._is_closed = True
        for task in self._tasks:
            task.cancel()

    async def _kept(self, function: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        if self._is_closed:
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in one
        self._tasks.add(task)
        try:
            return await function()
        finally:
            self._tasks.discard(task)
