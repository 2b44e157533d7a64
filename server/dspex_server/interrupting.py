"""Calls that somebody waits for: a server that ends tells them so, and leaves none cut off."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from dspex_protocol.errors import ShuttingDownError

from .errors import ExecutionInterruptedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Calls"]


class Calls:
    """Belongs to one event loop."""

    def __init__(self) -> None:
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
