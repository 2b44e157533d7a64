"""Calls that somebody waits for: a server that ends tells them so, and leaves none cut off."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from dspex_protocol.errors import ShuttingDownError

from .errors import ExecutionInterruptedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

__all__ = ["Calls", "UnderWay"]


class UnderWay:
    """Counts what is under way. Belongs to one event loop."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def one(self) -> Iterator[None]:
        self._count += 1
        self._none.clear()
        try:
            yield
        finally:
            self._count -= 1
            if self._count == 0:
                self._none.set()

    async def ended(self) -> None:
        """Returns when there is none."""
        await self._none.wait()


class Calls:
    """Belongs to one event loop."""

    def __init__(self) -> None:
        #: From before their row is written until after it says how they ended.
        self.under_way = UnderWay()
        self._open: set[asyncio.Timeout] = set()
        self._are_over = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """What is inside is cut short by `interrupt`, and then raises ExecutionInterruptedError.
        Raises ShuttingDownError after that."""
        self.require()
        end = asyncio.timeout(None)
        try:
            async with end:
                self._open.add(end)
                try:
                    with self.under_way.one():
                        yield
                finally:
                    self._open.discard(end)
        except TimeoutError as error:
            if not end.expired():
                raise
            raise ExecutionInterruptedError(
                "the server ended before it did: call it again once there is one"
            ) from error

    def require(self) -> None:
        """Raises ShuttingDownError where no more calls are begun."""
        if self._are_over:
            raise ShuttingDownError("the server is shutting down")

    def interrupt(self) -> None:
        """Ends all of them, and those that come."""
        self._are_over = True
        now = asyncio.get_running_loop().time()
        for end in list(self._open):
            end.reschedule(now)
