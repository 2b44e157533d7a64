"""One optimization from its row to a new revision. It may be begun again at any point."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from dspex_bridge.programs.json_forms import from_json, to_json
from dspex_protocol.errors import DSPexError, InternalError, NotFoundError

from .db.models import now
from .errors import WrongStateError
from .resources.datasets import examples_of
from .resources.executions import error_map
from .resources.jobs import OPTIMIZATION_JOBS, find_optimization
from .resources.programs import add_revision, find_program

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from dspex_protocol.client import Client
    from dspex_protocol.messages import Notification

    from .bridges import Bridges
    from .db.database import Database
    from .db.models import OptimizationJob
    from .events import Events
    from .executing import Executor
    from .loaded import Stored
    from .workflows import Attempt

__all__ = ["Optimizer", "is_retryable"]

# What a person follows; the bridge tells more often.
_TELL_EVERY_S = 0.5

# Of an LM's errors.
_LASTING = frozenset({"auth", "bad_request", "context_window", "content_filter"})

_log = logging.getLogger("dspex.server")


def is_retryable(error: BaseException) -> bool:
    """Whether the same again may end otherwise: a bridge that died is no fault of the work's, and
    a key that is refused stays so, also where the breaker says that the LM may be asked later."""
    if not isinstance(error, DSPexError) or error.data.get("kind") in _LASTING:
        return False
    return error.retryable or error.code == "connection_lost"


class Optimizer:
    def __init__(
        self,
        database: Database,
        bridges: Bridges,
        executor: Executor,
        events: Events,
        state_dir: Path,
    ) -> None:
        self._database = database
        self._bridges = bridges
        self._executor = executor
        self._events = events
        self._state_dir = state_dir

    async def run(self, job_id: str, attempt: Attempt, *, is_last: bool) -> None:
        """Returns when the job has ended. Raises what is worth another attempt, unless this is
        the last one."""
        begun = await self._begin(job_id, attempt)
        if begun is None:
            return
        job, stored, asked = begun

        async def work(client: Client, key: str) -> dict[str, Any]:
            result = await client.optimize(
                key, job.optimizer, checkpoint=job.id, listener=progress.hear, **asked
            )
            # The bridge's copy: the database has it from now on.
            await client.delete(result["program"])
            return result

        running = asyncio.create_task(
            self._bridges.run(stored, work, kept=partial(_size, self._checkpoint(job)))
        )
        progress = _Progress(self, job, running)
        telling = asyncio.create_task(progress.tell())
        try:
            result = await running
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and this.cancelling() > 0:
                raise
            _log.info("optimization job %s was ended by somebody else", job_id)
            return
        except DSPexError as error:
            if is_retryable(error) and not is_last:
                await self._again(job, error)
                raise
            await self._fail(job, error)
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the job's row must say so
            _log.exception("optimization job %s failed", job_id)
            text = f"the server failed ({type(error).__name__}): its log says how"
            await self._fail(job, InternalError(text))
            return
        finally:
            telling.cancel()
        await self._complete(job, result)

    async def _begin(
        self, job_id: str, attempt: Attempt
    ) -> tuple[OptimizationJob, Stored, dict[str, Any]] | None:
        """None where there is nothing to do: it has ended, also meanwhile, or was deleted with its
        program."""
        try:
            async with self._database.write() as session:
                job = await find_optimization(session, job_id)
                program = await find_program(session, job.program_id)
                goes_on = job.state == "running" and not attempt.has_begun
                if job.state == "queued":
                    await OPTIMIZATION_JOBS.move(
                        session,
                        job_id,
                        "running",
                        source="queued",
                        started_at=job.started_at or now(),
                        attempts=job.attempts + 1,
                    )
                elif job.state != "running":
                    return None
                if goes_on:
                    job.attempts += 1
                stored = await self._executor.stored(session, program, job.revision)
                asked: dict[str, Any] = {"metric": job.metric, **job.params}
                for name, dataset in (("trainset", job.dataset_id), ("valset", job.valset_id)):
                    if dataset is not None:
                        asked[name] = from_json(await examples_of(session, dataset), name)
        except (NotFoundError, WrongStateError):
            return None
        if goes_on:
            _log.warning(
                "optimization job %s had begun and not ended: it goes on here from its checkpoint "
                "(attempt %d)",
                *(job_id, job.attempts),
            )
        attempt.has_begun = True
        self._events.changed(job_id, job.program_id)
        return job, stored, asked

    async def _complete(self, job: OptimizationJob, result: Mapping[str, Any]) -> None:
        # In one transaction, so that a job that is run twice makes one revision.
        try:
            async with self._database.write() as session:
                program = await find_program(session, job.program_id, for_update=True)
                await OPTIMIZATION_JOBS.move(
                    session,
                    job.id,
                    "completed",
                    source="running",
                    score=result["score"],
                    base_score=result["base_score"],
                    total_tokens=result["usage"]["total_tokens"],
                    cost_usd=result["cost_usd"],
                    finished_at=now(),
                    result_revision=await add_revision(
                        session,
                        program,
                        result["state"],
                        parent=job.revision,
                        job_id=job.id,
                        score=result["score"],
                    ),
                )
        except (WrongStateError, NotFoundError):
            _log.info("optimization job %s was ended by somebody else", job.id)
            return
        self._checkpoint(job).unlink(missing_ok=True)
        self._events.changed(job.id, job.program_id)

    def _checkpoint(self, job: OptimizationJob) -> Path:
        """The bridge's: it grows by each answer that was paid for, and by none twice."""
        return self._state_dir / "checkpoints" / f"{job.id}.jsonl"

    async def _fail(self, job: OptimizationJob, error: DSPexError) -> None:
        usage = error.data.get("usage") or {}
        await self._move(
            job,
            "failed",
            reason=error.code,
            error=error_map(error),
            total_tokens=usage.get("total_tokens", 0),
            cost_usd=error.data.get("cost_usd"),
            finished_at=now(),
        )

    async def _again(self, job: OptimizationJob, error: DSPexError) -> None:
        _log.warning("optimization job %s is tried again: %s", job.id, error)
        await self._move(job, "queued", reason=error.code)

    async def _move(self, job: OptimizationJob, target: str, **values: Any) -> None:
        try:
            async with self._database.write() as session:
                await OPTIMIZATION_JOBS.move(session, job.id, target, source="running", **values)
        except (WrongStateError, NotFoundError):
            return  # it was cancelled, or deleted
        self._events.changed(job.id, job.program_id)

    async def told(self, job: OptimizationJob, progress: dict[str, Any]) -> bool:
        """Writes down how far it is, for whoever asks. Whether it is still to be run."""
        from sqlalchemy import update

        from .db.models import OptimizationJob as Table

        async with self._database.write() as session:
            written = await session.scalar(
                update(Table)
                .where(Table.id == job.id, Table.state == "running")
                .values(progress=progress)
                .returning(Table.id)
            )
        self._events.changed(job.id, job.program_id)
        return written is not None


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class _Progress:
    """The last of what the bridge told, written down every now and then. Where the job was ended
    meanwhile, so is what runs for it: each of its calls is paid for."""

    def __init__(
        self, optimizer: Optimizer, job: OptimizationJob, running: asyncio.Task[Any]
    ) -> None:
        self._running = running
        self._optimizer = optimizer
        self._job = job
        self._news: dict[str, Any] | None = None
        self._heard = asyncio.Event()

    def hear(self, notification: Notification) -> None:
        if notification.method == "progress":
            told = {key: to_json(item) for key, item in notification.params.items() if key != "id"}
            self._news = told
            self._heard.set()

    async def tell(self) -> None:
        while True:
            await self._heard.wait()
            self._heard.clear()
            if self._news is not None:
                try:
                    if not await self._optimizer.told(self._job, self._news):
                        self._running.cancel()
                        return
                except DSPexError as error:
                    _log.warning("the progress of job %s was not written: %s", self._job.id, error)
            await asyncio.sleep(_TELL_EVERY_S)
