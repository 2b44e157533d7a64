"""Group commit: short writes of many callers in one transaction, on a thread of its own.

A commit waits for the disk, and a driver that is not asynchronous costs a change of threads. Both
are paid once for all who came while those before them were written.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_protocol.errors import DSPexError
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy import Connection, Engine

__all__ = ["SYNCED", "GroupCommit"]

T = TypeVar("T")

#: An execution option of a connection: whether its commits wait for the disk.
SYNCED = "dspex_synced"

# Of one transaction: others wait for it to end.
_MAX_WORKS = 64

_log = logging.getLogger("dspex.server")


@dataclass(eq=False)
class _Work:
    run: Callable[[Connection], Any]
    order: str
    is_synced: bool
    outcome: asyncio.Future[Any]


class GroupCommit:
    """Belongs to one event loop. `turn` is held while a transaction is open."""

    def __init__(self, engine: Engine, turn: AbstractAsyncContextManager[Any]) -> None:
        self._engine = engine
        self._turn = turn
        self._thread = ThreadPoolExecutor(1, "dspex-writer")
        self._waiting: list[_Work] = []
        self._writing: asyncio.Task[None] | None = None

    async def write(
        self, work: Callable[[Connection], T], *, order: str = "", is_synced: bool = True
    ) -> T:
        """What `work` returns, once it is committed. It is called on another thread, and again
        where one of its group fails; it raises a DSPexError only before it has written anything.

        Works are done by their `order`, which is that of the rows that several of them lock. One
        that is not `is_synced` may be undone by a power failure, but by no later one that stays.
        Who is cancelled while it waits does not know whether it was written.
        """
        outcome = asyncio.get_running_loop().create_future()
        self._waiting.append(_Work(work, order, is_synced, outcome))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="group commit")
        result: T = await outcome
        return result

    async def close(self) -> None:
        """What waits is written first."""
        if self._writing is not None:
            await self._writing
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            async with self._turn:
                group, self._waiting = self._waiting[:_MAX_WORKS], self._waiting[_MAX_WORKS:]
                works = sorted(
                    (work for work in group if not work.outcome.done()),
                    key=lambda work: work.order,
                )
                outcomes = await loop.run_in_executor(self._thread, self._commit, works)
            for work, outcome in zip(works, outcomes, strict=True):
                if work.outcome.done():
                    continue
                if isinstance(outcome, Exception):
                    work.outcome.set_exception(outcome)
                else:
                    work.outcome.set_result(outcome)

    def _commit(self, works: Sequence[_Work]) -> list[Any]:
        """What each returned, or why nothing of it was kept."""
        try:
            return self._together(works)
        except Exception as error:  # noqa: BLE001 - it is the answer of those who wait
            is_ones_own = not isinstance(error, DBAPIError) or isinstance(
                error, IntegrityError | DataError
            )
            if len(works) == 1 or not is_ones_own:
                return [error] * len(works)
            return [outcome for work in works for outcome in self._commit([work])]

    def _together(self, works: Sequence[_Work]) -> list[Any]:
        outcomes = []
        with self._engine.connect() as connection:
            connection.execution_options(**{SYNCED: any(work.is_synced for work in works)})
            with connection.begin():
                for work in works:
                    try:
                        outcomes.append(work.run(connection))
                    except DSPexError as error:
                        outcomes.append(error)
        return outcomes
