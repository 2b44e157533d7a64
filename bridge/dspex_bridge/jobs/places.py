"""Who may work: a few processes at a time, and more that wait for others meanwhile."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dspex_protocol.errors import OverloadedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from typing import Any, TypeAlias

    Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[Any]]

__all__ = ["Place", "Places"]


class Places:
    """`at_work` processes work at once, of `processes` that there are. A process that waits for an
    answer which may take other processes gives its place to them: else those that wait would hold
    all of them, for ever.

    Used on the event loop's thread only."""

    def __init__(self, at_work: int, processes: int, stall_s: float) -> None:
        """Where every process there may be has waited for `stall_s`, so may they for ever: who
        wants another one then is told."""
        self._max_at_work = at_work
        self._max_processes = processes
        self._stall_s = stall_s
        self._at_work = 0
        self._processes = 0
        self._changes = 0
        self._resuming: deque[asyncio.Future[None]] = deque()
        self._starting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def process(self) -> AsyncIterator[Place]:
        """The place of a new process, in turn. Raises OverloadedError."""
        await self._granted(self._starting)
        place = Place(self)
        try:
            yield place
        finally:
            self._processes -= 1
            place.leave()
            self._admit()

    async def resume(self) -> None:
        """A place for a process that has left its own: before any new process."""
        await self._granted(self._resuming)

    def leave(self) -> None:
        self._at_work -= 1
        self._admit()

    async def _granted(self, queue: deque[asyncio.Future[None]]) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._admit()
        try:
            while not turn.done():
                changes = self._changes
                await asyncio.wait([turn], timeout=self._stall_s)
                if not turn.done() and not self._at_work and changes == self._changes:
                    raise OverloadedError(
                        f"{self._processes} jobs, which is the limit, wait for the client's tools "
                        f"and metrics, since {self._stall_s:g} s at least: run fewer at once, or "
                        "nest them less deeply",
                        data={"max_jobs": self._max_processes},
                    )
        except BaseException:
            if turn.done():
                self._processes -= queue is self._starting
                self.leave()
            else:
                queue.remove(turn)
            raise

    def _admit(self) -> None:
        self._changes += 1
        while self._at_work < self._max_at_work:
            if self._resuming:
                self._resuming.popleft().set_result(None)
            elif self._starting and self._processes < self._max_processes:
                self._starting.popleft().set_result(None)
                self._processes += 1
            else:
                return
            self._at_work += 1


class Place:
    """That of one process, from whose threads several requests may be open."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._is_held = True
        self._waits = 0
        self._resuming = asyncio.Lock()

    def left_meanwhile(self, handler: Handler) -> Handler:
        """`handler`, while whose work the place is others'. The answer waits for one again."""

        async def answer(params: dict[str, Any]) -> Any:
            self._waits += 1
            self.leave()
            try:
                return await handler(params)
            finally:
                self._waits -= 1
                # One that is cancelled has nobody who waits for it.
                if not _is_cancelled():
                    await self._resume()

        return answer

    def leave(self) -> None:
        if self._is_held:
            self._is_held = False
            self._places.leave()

    async def _resume(self) -> None:
        async with self._resuming:
            if not self._is_held and not self._waits:
                await self._places.resume()
                self._is_held = True
                if self._waits:  # for the answer to another request, that came meanwhile
                    self.leave()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
