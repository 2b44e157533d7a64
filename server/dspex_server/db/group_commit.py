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

from dspex_protocol.errors import DSPexError, ShuttingDownError
from sqlalchemy.exc import DBAPIError, OperationalError

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

# PostgreSQL ended a transaction for another's sake, and it may be tried again: a deadlock,
# and one that could not be put in an order with the others.
_CONFLICTS = ("40P01", "40001")
_MAX_CONFLICTS = 5

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
        self._is_closed = False

    async def write(
        self, work: Callable[[Connection], T], *, order: str = "", is_synced: bool = True
    ) -> T:
        """What `work` returns, once it is committed. It is called on another thread, and again
        where one of its group fails; it raises a DSPexError only before it has written anything.

        Works are done by their `order`, which is that of the rows that several of them lock. One
        that is not `is_synced` may be undone by a power failure, but by no later one that stays.
        Who is cancelled while it waits does not know whether it was written. Raises
        ShuttingDownError after `close`.
        """
        if self._is_closed:
            raise ShuttingDownError("the server is shutting down: its database is closed")
        outcome = asyncio.get_running_loop().create_future()
        self._waiting.append(_Work(work, order, is_synced, outcome))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="group commit")
        result: T = await outcome
        return result

    async def close(self) -> None:
        """What waits is written first."""
        self._is_closed = True
        if self._writing is not None:
            await self._writing
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting:
            works: list[_Work] = []
            try:
                async with self._turn:
                    group, self._waiting = self._waiting[:_MAX_WORKS], self._waiting[_MAX_WORKS:]
                    works = sorted(
                        (work for work in group if not work.outcome.done()),
                        key=lambda work: work.order,
                    )
                    outcomes = await loop.run_in_executor(self._thread, self._commit, works)
            except BaseException as error:
                # Nobody waits for ever: not for this group, and not for those after it.
                for work in (*works, *self._waiting):
                    if not work.outcome.done():
                        _end(work.outcome, error)
                self._waiting = []
                if not isinstance(error, Exception):
                    raise
                return
            for work, outcome in zip(works, outcomes, strict=True):
                if work.outcome.done():
                    continue
                if isinstance(outcome, Exception):
                    work.outcome.set_exception(outcome)
                else:
                    work.outcome.set_result(outcome)

    def _commit(self, works: Sequence[_Work]) -> list[Any]:
        """What each returned, or why nothing of it was kept."""
        for attempt in range(1, _MAX_CONFLICTS + 1):
            try:
                return self._together(works)
            except Exception as error:  # noqa: BLE001 - it is the answer of those who wait
                if _is_conflict(error) and attempt < _MAX_CONFLICTS:
                    continue
                if len(works) == 1 or _is_of_all(error):
                    return [error] * len(works)
                return [outcome for work in works for outcome in self._commit([work])]
        raise AssertionError("the last attempt returns")

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


def _is_conflict(error: Exception) -> bool:
    return isinstance(error, DBAPIError) and getattr(error.orig, "sqlstate", None) in _CONFLICTS


def _is_of_all(error: Exception) -> bool:
    """Whether it is the database that fails, and not the statement of one of them."""
    return isinstance(error, OperationalError) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def _end(outcome: asyncio.Future[Any], error: BaseException) -> None:
    if isinstance(error, Exception):
        outcome.set_exception(error)
    else:
        outcome.cancel()
