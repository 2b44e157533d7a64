"""Durable background work by DBOS: a workflow goes on where its process was killed.

The workflows hold ids alone; what there is to know is in the rows, and their work may be begun
again at any point. DBOS brings the queue, its concurrency, retries with back-off, and the record
of whose work it was. Its values are JSON: its own default is pickle.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from dbos import (
    DBOS,
    DBOSConfig,
    DBOSPortableJSONSerializer,
    SetWorkflowID,
    WorkflowSerializationFormat,
)
from dbos import error as dbos_error
from sqlalchemy.exc import SQLAlchemyError

from .errors import DatabaseUnavailableError
from .optimizing import is_retryable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine

    from .batching import Batcher
    from .optimizing import Optimizer

__all__ = ["BATCH_QUEUE", "OPTIMIZATION_QUEUE", "Attempt", "Workflows", "outlasting"]

T = TypeVar("T")

OPTIMIZATION_QUEUE = "optimizations"
BATCH_QUEUE = "batches"

# A second, then two, four… between attempts: five of them outlast a restart of a provider.
_MAX_ATTEMPTS = 6
_INTERVAL_S = 1.0
_BACKOFF = 2.0

# How long a job waits in its queue where nothing is before it.
_POLL_S = 0.5

# Longer than any answer of a database that is well.
_PATIENCE_S = 10.0

# Between looks at a database that is away.
_PAUSE_S = 1.0

# Another number when workflows that are under way could not be gone on with by this version.
_VERSION = "1"

_PORTABLE = WorkflowSerializationFormat.PORTABLE

_log = logging.getLogger("dspex.server")


@dataclass
class Attempt:
    """One of a job's. Where the database is away it begins again and again, and is the same one."""

    has_begun: bool = False


@dataclass
class _Host:
    """DBOS's loop is its own; the work belongs to the server's."""

    loop: asyncio.AbstractEventLoop
    optimizer: Optimizer
    batcher: Batcher
    working: set[asyncio.Task[None]] = field(default_factory=set)

    async def there(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._here(work), self.loop))

    async def _here(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        this = asyncio.current_task()
        assert this is not None  # noqa: S101 - it is run as a task of its own
        self.working.add(this)
        try:
            await outlasting(work)
        finally:
            self.working.discard(this)

    async def stop(self) -> None:
        """Ends what DBOS has let go of, and waits for it."""
        for working in self.working:
            if not working.cancelling():  # it may be writing down how it ends
                working.cancel()
        if self.working and (await asyncio.wait({*self.working}, timeout=_PATIENCE_S))[1]:
            _log.warning("jobs did not stop within %.0f s: they are left as they are", _PATIENCE_S)


async def outlasting(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begins again for as long as the database is away: that is no fault of the job's, and no
    attempt of its own."""
    while True:
        try:
            return await work()
        except DatabaseUnavailableError as error:
            _log.warning("a job waits for the database: %s", error)
            await asyncio.sleep(_PAUSE_S)


# DBOS is one to a process, and calls functions, not objects.
_host: _Host | None = None


class _CancelledJobs(logging.Filter):
    """Takes one message out of DBOS's log: it tells of each cancelled workflow with a traceback, as
    of an error. No workflow here waits for another one, so that it is always of itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, dbos_error.DBOSAwaitedWorkflowCancelledError)


_dbos_log = logging.getLogger("dbos")
_cancelled_jobs = _CancelledJobs()


def _hosted() -> _Host:
    assert _host is not None  # noqa: S101 - nothing runs before launch
    return _host


async def _should_retry(error: BaseException) -> bool:
    return is_retryable(error)


def _is_last() -> bool:
    status = DBOS.step_status
    attempt = None if status is None else status.current_attempt
    # It counts from 0.
    return attempt is not None and attempt + 1 >= _MAX_ATTEMPTS


_STEP: dict[str, Any] = {
    "retries_allowed": True,
    "max_attempts": _MAX_ATTEMPTS,
    "interval_seconds": _INTERVAL_S,
    "backoff_rate": _BACKOFF,
    "should_retry": _should_retry,
    # A cancelled workflow's step ends at once, on whichever server it runs.
    "preemptible": True,
}


@DBOS.step(name="optimize", **_STEP)
async def _optimize(job_id: str) -> None:
    host = _hosted()
    await host.there(partial(host.optimizer.run, job_id, Attempt(), is_last=_is_last()))


@DBOS.step(name="batch", **_STEP)
async def _batch(batch_id: str) -> None:
    host = _hosted()
    await host.there(partial(host.batcher.run, batch_id, Attempt()))


# However often its servers are killed, a job goes on.
@DBOS.workflow(name="optimization", max_recovery_attempts=None, serialization_type=_PORTABLE)
async def _optimization_workflow(job_id: str) -> None:
    await _optimize(job_id)


@DBOS.workflow(name="batch", max_recovery_attempts=None, serialization_type=_PORTABLE)
async def _batch_workflow(batch_id: str) -> None:
    await _batch(batch_id)


_WORKFLOWS = {OPTIMIZATION_QUEUE: _optimization_workflow, BATCH_QUEUE: _batch_workflow}


async def _answered(asked: Awaitable[T]) -> T:
    """DBOS asks a database that is away again for as long as it is; whoever waits here does not.

    What was asked for may still be done: each of these may be done twice.
    """
    try:
        async with asyncio.timeout(_PATIENCE_S):
            return await asked
    except TimeoutError as error:
        raise DatabaseUnavailableError(
            f"the database of jobs did not answer within {_PATIENCE_S:.0f} s: try again once it "
            "is well"
        ) from error
    except SQLAlchemyError as error:
        raise _unavailable(error) from error


def _unavailable(error: SQLAlchemyError) -> DatabaseUnavailableError:
    text = str(error).partition("\n")[0]
    return DatabaseUnavailableError(
        f"the database of jobs cannot be used now: {text}. Try again once it is well"
    )


class Workflows:
    """One to a process. `executor_id` is the server's: work is taken over by it."""

    def __init__(self, database_url: str, executor_id: str, concurrency: dict[str, int]) -> None:
        """`concurrency` is how many of each queue run here at once; 0: none of them."""
        self._concurrency = concurrency
        self._config: DBOSConfig = {
            "name": "dspex",
            "system_database_url": database_url,
            "executor_id": executor_id,
            "application_version": _VERSION,
            "serializer": DBOSPortableJSONSerializer(),
            # Of an attempt that is made again it shows the whole stack; a line of ours is enough.
            "log_level": "ERROR",
            "notification_listener_polling_interval_sec": _POLL_S,
        }

    async def launch(self, optimizer: Optimizer, batcher: Batcher) -> None:
        global _host  # noqa: PLW0603 - see above
        _host = _Host(asyncio.get_running_loop(), optimizer, batcher)
        try:
            await asyncio.to_thread(self._launch)
        except SQLAlchemyError as error:
            raise _unavailable(error) from error

    def _launch(self) -> None:
        DBOS(config=self._config)
        _dbos_log.addFilter(_cancelled_jobs)
        listened = [queue for queue, number in self._concurrency.items() if number > 0]
        DBOS.listen_queues(listened)
        DBOS.launch()
        for queue, number in self._concurrency.items():
            DBOS.register_queue(
                queue,
                worker_concurrency=max(number, 1),
                polling_interval_sec=_POLL_S,
                on_conflict="always_update" if number else "never_update",
            )

    async def enqueue(self, queue: str, job_id: str) -> None:
        """Once: a second time with the same id does nothing."""
        with SetWorkflowID(job_id):
            await _answered(DBOS.enqueue_workflow_async(queue, _WORKFLOWS[queue], job_id))

    async def cancel(self, job_id: str) -> None:
        await _answered(DBOS.cancel_workflow_async(job_id))

    async def status(self, job_id: str) -> str | None:
        """DBOS's word for it; None where it does not know the job."""
        found = await _answered(DBOS.get_workflow_status_async(job_id))
        return None if found is None else str(found.status)

    async def take_over(self, alive: Collection[str]) -> int:
        """How many workflows that were begun by none of these servers went back into their queues.

        One server at a time: of two that looked at once the second would put back what was
        begun again meanwhile.
        """
        begun = await _answered(
            DBOS.list_workflows_async(
                status="PENDING", app_version=_VERSION, load_input=False, load_output=False
            )
        )
        left: dict[str | None, list[str]] = {}
        for workflow in begun:
            if workflow.executor_id not in alive:
                left.setdefault(workflow.queue_name, []).append(workflow.workflow_id)
        for queue, workflow_ids in left.items():
            await _answered(DBOS.resume_workflows_async(workflow_ids, queue_name=queue))
        return sum(map(len, left.values()))

    async def close(self) -> None:
        """When it returns, none of its work runs here any more."""
        await asyncio.to_thread(DBOS.destroy)
        await _hosted().stop()
        _dbos_log.handlers.clear()
        _dbos_log.removeFilter(_cancelled_jobs)
