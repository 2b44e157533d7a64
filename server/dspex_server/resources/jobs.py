"""Jobs: optimizations and batches, from their being asked for to their end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from dspex_bridge.metric_shape import metric as check_metric
from dspex_bridge.optimizers import OPTIMIZERS
from dspex_bridge.params import array, integer, mapping, one_of, record
from dspex_bridge.shapes import LIMITS
from dspex_protocol.errors import InvalidParamsError, NotFoundError
from sqlalchemy import insert, select

from dspex_server.db.models import Batch, Execution, OptimizationJob, now
from dspex_server.ids import new_id

from .executions import EXECUTIONS
from .machine import StateMachine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from dspex_server.db.models import Dataset, Program

__all__ = [
    "BATCHES",
    "MAX_BATCH",
    "OPTIMIZATION_JOBS",
    "create_batch",
    "create_optimization",
    "find_batch",
    "find_optimization",
]

_Job = TypeVar("_Job", OptimizationJob, Batch)

_MOVES = {
    # Back to the queue: its server ended, or it is tried again.
    "queued": ("running", "failed", "cancelled"),
    "running": ("queued", "completed", "failed", "cancelled"),
    "completed": (),
    "failed": (),
    "cancelled": (),
}
OPTIMIZATION_JOBS = StateMachine("optimization job", OptimizationJob, _MOVES)
BATCHES = StateMachine("batch", Batch, _MOVES)

# Each is a row that is written with the batch; more belong in several.
MAX_BATCH = 10_000

_OPTIMIZATION = record(
    {"optimizer": record({"name": one_of(*OPTIMIZERS)}, {"params": mapping})},
    {
        "metric": check_metric,
        "seed": integer(0),
        "limits": LIMITS,
        "on_stop": one_of("discard", "best"),
        "include": array(one_of("candidates")),
    },
)


async def create_optimization(
    session: AsyncSession,
    program: Program,
    revision: int,
    asked: Mapping[str, Any],
    *,
    dataset: Dataset | None,
    valset: Dataset | None,
    idempotency_key: str | None,
) -> tuple[OptimizationJob, bool]:
    """The job, and whether it is a new one. `asked` are the parameters of `optimize`."""
    known = await _by_key(session, OptimizationJob, idempotency_key)
    if known is not None:
        return known, False
    _OPTIMIZATION(asked, "optimizeProgram")
    kind = OPTIMIZERS[asked["optimizer"]["name"]]
    own = asked["optimizer"].get("params") or {}
    kind.params(own, f"optimizeProgram: params of {asked['optimizer']['name']}")
    least, given = kind.least_examples(own), 0 if dataset is None else dataset.size
    if given < least:
        raise InvalidParamsError(
            f"optimizeProgram: {asked['optimizer']['name']} needs a dataset of at least {least} "
            f"examples, and has {given}",
            data={"param": "dataset"},
        )
    metric = asked.get("metric")
    if kind.needs_metric and metric is None:
        raise InvalidParamsError(
            f"optimizeProgram: {asked['optimizer']['name']} needs a metric",
            data={"param": "metric"},
        )
    if metric is not None and "callback" in metric:
        raise InvalidParamsError(
            "optimizeProgram: a callback is a function of the client's, and this server has none: "
            "take a metric by its name, or a judge",
            data={"param": "metric.callback"},
        )
    job = OptimizationJob(
        program_id=program.id,
        revision=revision,
        state="queued",
        idempotency_key=idempotency_key,
        optimizer=dict(asked["optimizer"]),
        metric=None if metric is None else dict(metric),
        params={key: asked[key] for key in ("seed", "limits", "on_stop") if key in asked},
        dataset_id=None if dataset is None else dataset.id,
        valset_id=None if valset is None else valset.id,
    )
    session.add(job)
    await session.flush()
    await OPTIMIZATION_JOBS.began(session, job.id, "queued")
    return job, True


async def create_batch(
    session: AsyncSession,
    program: Program,
    revision: int,
    inputs: Sequence[Mapping[str, Any]],
    *,
    idempotency_key: str | None,
    trace_id: str | None,
) -> tuple[Batch, bool]:
    """The batch with an execution for each of the inputs, and whether it is a new one."""
    known = await _by_key(session, Batch, idempotency_key)
    if known is not None:
        return known, False
    if not 0 < len(inputs) <= MAX_BATCH:
        raise InvalidParamsError(
            f"executeBatch: inputs must be a list of 1 to {MAX_BATCH}, got {len(inputs)}",
            data={"param": "inputs"},
        )
    batch = Batch(
        program_id=program.id,
        revision=revision,
        state="queued",
        idempotency_key=idempotency_key,
        total=len(inputs),
    )
    session.add(batch)
    await session.flush()
    await BATCHES.began(session, batch.id, "queued")
    at = now()
    # Made at one time, they are listed by their ids: in the order of the inputs.
    ids = sorted(new_id() for _ in inputs)
    rows: list[dict[str, Any]] = [
        {
            "id": ids[index],
            "created_at": at,
            "program_id": program.id,
            "revision": revision,
            "state": "pending",
            "inputs": dict(item),
            "trace_id": trace_id,
            "batch_id": batch.id,
            "batch_index": index,
        }
        for index, item in enumerate(inputs)
    ]
    await session.execute(insert(Execution), rows)
    await EXECUTIONS.began_all(session, [row["id"] for row in rows], "pending")
    return batch, True


async def find_optimization(session: AsyncSession, job_id: str) -> OptimizationJob:
    return await _find(session, OptimizationJob, job_id, "optimization job")


async def find_batch(session: AsyncSession, batch_id: str) -> Batch:
    return await _find(session, Batch, batch_id, "batch")


async def _find(session: AsyncSession, model: type[_Job], job_id: str, kind: str) -> _Job:
    found = await session.get(model, job_id)
    if found is None:
        raise NotFoundError(f"there is no {kind} {job_id}", data={"kind": kind, "name": job_id})
    return found


async def _by_key(session: AsyncSession, model: type[_Job], key: str | None) -> _Job | None:
    if key is None:
        return None
    found: _Job | None = await session.scalar(select(model).where(model.idempotency_key == key))
    return found
