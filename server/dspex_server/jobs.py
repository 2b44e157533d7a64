"""Jobs as they are asked for: written down, put into their queue, cancelled, not forgotten."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import NotFoundError
from sqlalchemy import insert, select, update

from .db.models import Batch, Execution, OptimizationJob, Transition, now
from .errors import DatabaseUnavailableError, WrongStateError
from .resources.datasets import find_dataset
from .resources.executions import EXECUTIONS
from .resources.jobs import (
    BATCHES,
    OPTIMIZATION_JOBS,
    create_batch,
    create_optimization,
    find_batch,
    find_optimization,
)
from .resources.programs import find_program, require_runnable
from .workflows import BATCH_QUEUE, OPTIMIZATION_QUEUE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from .db.database import Database
    from .events import Events
    from .executing import Executor
    from .workflows import Workflows

__all__ = ["Jobs"]

_KINDS = ((OPTIMIZATION_JOBS, OPTIMIZATION_QUEUE), (BATCHES, BATCH_QUEUE))

# DBOS's words for a workflow that will not go on.
_DEAD = frozenset({"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"})

_log = logging.getLogger("dspex.server")


class Jobs:
    def __init__(
        self, database: Database, workflows: Workflows, executor: Executor, events: Events
    ) -> None:
        self._database = database
        self._workflows = workflows
        self._executor = executor
        self._events = events

    async def start_optimization(
        self,
        program_id: str,
        asked: Mapping[str, Any],
        *,
        dataset: str | None,
        valset: str | None,
        idempotency_key: str | None,
    ) -> OptimizationJob:
        """The job, in its queue. Raises what is wrong with it before anything is paid for."""
        async with self._database.write() as session:
            program = await find_program(session, program_id)
            job, is_new = await create_optimization(
                session,
                program,
                require_runnable(program),
                asked,
                dataset=None if dataset is None else await find_dataset(session, dataset),
                valset=None if valset is None else await find_dataset(session, valset),
                idempotency_key=idempotency_key,
            )
        if is_new:
            await self._enqueue(OPTIMIZATION_QUEUE, job.id)
            self._events.changed(job.id, job.program_id)
        return job

    async def start_batch(
        self,
        program_id: str,
        inputs: Sequence[Mapping[str, Any]],
        *,
        idempotency_key: str | None,
        trace_id: str | None,
    ) -> Batch:
        async with self._database.write() as session:
            program = await find_program(session, program_id)
            batch, is_new = await create_batch(
                session,
                program,
                require_runnable(program),
                inputs,
                idempotency_key=idempotency_key,
                trace_id=trace_id,
            )
        if is_new:
            await self._enqueue(BATCH_QUEUE, batch.id)
            self._events.changed(batch.id, batch.program_id)
        return batch

    async def _enqueue(self, queue: str, job_id: str) -> None:
        # It is written down: where this fails, `reconcile` does it within seconds.
        try:
            await self._workflows.enqueue(queue, job_id)
        except DatabaseUnavailableError as error:
            _log.warning("job %s is queued later: %s", job_id, error)

    async def cancel(self, job_id: str) -> OptimizationJob | Batch:
        """Raises NotFoundError, and WrongStateError where it has ended."""
        # To its end, though whoever asked may go: what is written down as cancelled has to stop.
        return await asyncio.shield(self._cancel(job_id))

    async def _cancel(self, job_id: str) -> OptimizationJob | Batch:
        job: OptimizationJob | Batch
        items: list[str] = []
        async with self._database.write() as session:
            try:
                job = await find_optimization(session, job_id)
                await OPTIMIZATION_JOBS.move(session, job_id, "cancelled", finished_at=now())
            except NotFoundError:
                job = await _batch_or_neither(session, job_id)
                items = await _end_batch(session, job_id, "cancelled")
            await session.refresh(job)
        self._events.changed(job_id, job.program_id)
        for item in items:
            self._executor.stop(item)
        try:
            await self._workflows.cancel(job_id)
        except DatabaseUnavailableError as error:
            # Whoever runs it finds that in its row.
            _log.warning("job %s is cancelled, and ends later: %s", job_id, error)
        return job

    async def reconcile(self) -> None:
        """Jobs that were written down and never queued are queued; jobs whose workflow has ended
        without them are failed. Both take a kill at the wrong moment."""
        for machine, queue in _KINDS:
            table: Any = machine.model
            async with self._database.read() as session:
                open_jobs = list(
                    await session.scalars(select(table.id).where(table.state.in_(machine.open)))
                )
            for job_id in open_jobs:
                status = await self._workflows.status(job_id)
                if status is None:
                    await self._workflows.enqueue(queue, job_id)
                elif status in _DEAD:
                    await self._fail(machine, job_id, status)

    async def _fail(self, machine: Any, job_id: str, status: str) -> None:
        message = f"its workflow ended ({status}) and it did not: the server's log says why"
        error = {"code": "internal_error", "message": message, "retryable": False, "data": {}}
        items: list[str] = []
        try:
            async with self._database.write() as session:
                if machine is BATCHES:
                    items = await _end_batch(session, job_id, "failed", error=error)
                else:
                    await machine.move(session, job_id, "failed", error=error, finished_at=now())
        except (WrongStateError, NotFoundError):
            return  # it ended just now
        for item in items:
            self._executor.stop(item)
        _log.error("%s %s: %s", machine.resource, job_id, message)


async def _batch_or_neither(session: AsyncSession, job_id: str) -> Batch:
    try:
        return await find_batch(session, job_id)
    except NotFoundError:
        raise NotFoundError(
            f"there is no job {job_id}", data={"kind": "job", "name": job_id}
        ) from None


async def _end_batch(session: AsyncSession, batch_id: str, target: str, **values: Any) -> list[str]:
    """The batch, and with it those of its items that are open: many rows at once, each with its
    record. The ids of those that were running."""
    rows = (
        await session.execute(
            select(Execution.id, Execution.state)
            .where(Execution.batch_id == batch_id, Execution.state.in_(EXECUTIONS.open))
            # In the order of whoever ends them one by one, and before their batch, as they do.
            .order_by(Execution.id)
            .with_for_update()
        )
    ).all()
    await BATCHES.move(session, batch_id, target, finished_at=now(), **values)
    if not rows:
        return []
    await session.execute(
        update(Execution)
        .where(Execution.batch_id == batch_id, Execution.state.in_(EXECUTIONS.open))
        .values(state="cancelled", finished_at=now())
    )
    await session.execute(
        insert(Transition),
        [
            {
                "resource": EXECUTIONS.resource,
                "resource_id": row.id,
                "source": row.state,
                "target": "cancelled",
                "reason": f"its batch {'was cancelled' if target == 'cancelled' else 'failed'}",
            }
            for row in rows
        ],
    )
    return [row.id for row in rows if row.state == "running"]
