"""One batch: those of its executions that have not ended are run, whoever began them."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from dspex_protocol.errors import NotFoundError
from sqlalchemy import select, update

from .db.models import Execution, now
from .errors import DatabaseUnavailableError, WrongStateError
from .executing import Call
from .resources.executions import EXECUTIONS
from .resources.jobs import BATCHES, find_batch
from .resources.programs import Runnable, find_program

if TYPE_CHECKING:
    from .db.database import Database
    from .db.models import Batch, Program
    from .events import Events
    from .executing import Executor
    from .workflows import Attempt

__all__ = ["Batcher"]

# Items of one batch under way at once: single calls have places beside them.
_CONCURRENCY = 16

# Rows that are read at a time.
_CHUNK = 256

_log = logging.getLogger("dspex.server")


class Batcher:
    def __init__(
        self, database: Database, executor: Executor, events: Events, server_id: str
    ) -> None:
        self._database = database
        self._executor = executor
        self._events = events
        self._server_id = server_id

    async def run(self, batch_id: str, attempt: Attempt) -> None:
        """Returns when the batch has ended. It may be called again at any point."""
        begun = await self._begin(batch_id, attempt)
        if begun is None:
            return
        batch, program = begun
        places = asyncio.Semaphore(_CONCURRENCY)
        async with self._database.read() as session:
            stored = await self._executor.stored(session, program, batch.revision)
        runnable = Runnable(program.id, program.state, batch.revision)

        async def one(row: Execution) -> None:
            async with places:
                await self._executor.run(
                    row.id,
                    runnable,
                    stored,
                    row.inputs,
                    Call(trace_id=row.trace_id),
                    is_started=row.state == "running",
                )

        after = -1
        while rows := await self._open(batch_id, after):
            after = rows[-1].batch_index or 0
            try:
                async with asyncio.TaskGroup() as group:
                    for row in rows:
                        group.create_task(one(row))
            except BaseExceptionGroup as errors:
                raise _first(errors) from errors
        try:
            async with self._database.write() as session:
                await BATCHES.move(
                    session, batch_id, "completed", source="running", finished_at=now()
                )
        except (WrongStateError, NotFoundError):
            return  # it was cancelled, or deleted
        self._events.changed(batch_id, program.id)

    async def _begin(self, batch_id: str, attempt: Attempt) -> tuple[Batch, Program] | None:
        """None where there is nothing to do: it has ended, also meanwhile, or was deleted."""
        try:
            async with self._database.write() as session:
                batch = await find_batch(session, batch_id)
                program = await find_program(session, batch.program_id)
                goes_on = batch.state == "running" and not attempt.has_begun
                if batch.state == "queued":
                    await BATCHES.move(
                        session,
                        batch_id,
                        "running",
                        source="queued",
                        started_at=batch.started_at or now(),
                        attempts=batch.attempts + 1,
                    )
                elif batch.state != "running":
                    return None
                # Those that a server which is no more had begun are this one's now.
                await session.execute(
                    update(Execution)
                    .where(Execution.batch_id == batch_id, Execution.state == "running")
                    .values(owner=self._server_id)
                )
                if goes_on:
                    # Written last: whoever cancels it locks its executions first, too.
                    batch.attempts += 1
        except (NotFoundError, WrongStateError):
            return None
        if goes_on:
            _log.warning(
                "batch %s had begun and not ended: it goes on here (attempt %d), "
                "with %d of %d done",
                *(batch_id, batch.attempts, batch.completed + batch.failed, batch.total),
            )
        attempt.has_begun = True
        self._events.changed(batch_id, program.id)
        return batch, program

    async def _open(self, batch_id: str, after: int) -> list[Execution]:
        async with self._database.read() as session:
            rows = await session.scalars(
                select(Execution)
                .where(
                    Execution.batch_id == batch_id,
                    Execution.batch_index > after,
                    Execution.state.in_(EXECUTIONS.open),
                )
                .order_by(Execution.batch_index)
                .limit(_CHUNK)
            )
            return list(rows)


def _first(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """What the batch ends with: the items were run together, and each of their errors is its.
    Where the database was away it is begun again, and the others come again if they have to."""
    away = (error for error in errors.exceptions if isinstance(error, DatabaseUnavailableError))
    return next(away, errors.exceptions[0])
