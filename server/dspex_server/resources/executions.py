"""Executions: one run of one revision, written before it begins and when it has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import DSPexError, NotFoundError
from sqlalchemy import insert, select, update

from dspex_server.db.models import Batch, Execution, Program, now
from dspex_server.errors import ExecutionInterruptedError
from dspex_server.ids import new_id

from .machine import StateMachine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = [
    "EXECUTIONS",
    "begin_execution",
    "cancel_execution",
    "complete_execution",
    "count_in_batch",
    "error_map",
    "fail_execution",
    "fail_orphans",
    "find_execution",
    "interrupt_execution",
    "open_executions",
    "start_execution",
]

EXECUTIONS = StateMachine(
    "execution",
    Execution,
    {
        "pending": ("running", "failed", "cancelled"),
        "running": ("completed", "failed", "cancelled"),
        "completed": (),
        "failed": (),
        "cancelled": (),
    },
)


async def begin_execution(
    session: AsyncSession,
    program_id: str,
    revision: int,
    inputs: Mapping[str, Any],
    *,
    owner: str,
    running: bool,
    trace_id: str | None,
) -> str:
    """The id of a row that is there before anything runs; `running` where it does at once."""
    at = now()
    states = ("pending", "running") if running else ("pending",)
    row = {
        "id": new_id(),
        "created_at": at,
        "program_id": program_id,
        "revision": revision,
        "state": states[-1],
        "inputs": dict(inputs),
        "trace_id": trace_id,
        "owner": owner,
        "started_at": at if running else None,
    }
    await session.execute(insert(Execution), [row])
    await EXECUTIONS.began(session, str(row["id"]), *states)
    return str(row["id"])


async def start_execution(session: AsyncSession, execution_id: str, owner: str) -> None:
    await EXECUTIONS.move(
        session, execution_id, "running", source="pending", owner=owner, started_at=now()
    )


async def complete_execution(
    session: AsyncSession, execution_id: str, program_id: str, result: Mapping[str, Any]
) -> None:
    """`result` is the answer of the protocol's `execute`, its outputs as JSON."""
    usage = result["usage"]
    await EXECUTIONS.move(
        session,
        execution_id,
        "completed",
        source="running",
        outputs=result["outputs"],
        lm=result["lm"],
        prompt_tokens=usage["prompt_tokens"],
        completion_tokens=usage["completion_tokens"],
        total_tokens=usage["total_tokens"],
        cost_usd=result["cost_usd"],
        duration_ms=result["duration_ms"],
        cached=result["cached"],
        finished_at=now(),
    )
    await _count(
        session,
        program_id,
        executions=1,
        total_tokens=usage["total_tokens"],
        cost_usd=result["cost_usd"] or 0.0,
    )


async def fail_execution(
    session: AsyncSession, execution_id: str, program_id: str, error: DSPexError
) -> None:
    """What was spent is kept. Raises WrongStateError where it has ended, or was cancelled."""
    target = "cancelled" if error.code == "cancelled" else "failed"
    usage = error.data.get("usage") or {}
    tokens = usage.get("total_tokens", 0)
    cost = error.data.get("cost_usd")
    await EXECUTIONS.move(
        session,
        execution_id,
        target,
        reason=error.code,
        error=error_map(error),
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        total_tokens=tokens,
        cost_usd=cost,
        finished_at=now(),
    )
    await _count(
        session,
        program_id,
        executions=1,
        failures=int(target == "failed"),
        total_tokens=tokens,
        cost_usd=cost or 0.0,
    )


async def count_in_batch(session: AsyncSession, execution_id: str) -> None:
    """Its batch's count, in the transaction in which it ended."""
    row = (
        await session.execute(
            select(Execution.batch_id, Execution.state).where(Execution.id == execution_id)
        )
    ).one()
    if row.batch_id is not None and row.state in ("completed", "failed"):
        column = getattr(Batch, row.state)
        await session.execute(
            update(Batch).where(Batch.id == row.batch_id).values({column: column + 1})
        )


async def cancel_execution(session: AsyncSession, execution_id: str) -> Execution:
    """Writes it down. Whoever runs it is told by the caller."""
    await EXECUTIONS.move(session, execution_id, "cancelled", finished_at=now())
    return await find_execution(session, execution_id)


async def find_execution(session: AsyncSession, execution_id: str) -> Execution:
    found = await session.get(Execution, execution_id)
    if found is None:
        raise NotFoundError(
            f"there is no execution {execution_id}",
            data={"kind": "execution", "name": execution_id},
        )
    return found


async def open_executions(
    session: AsyncSession, owner: str, *, before: datetime
) -> list[tuple[str, str]]:
    """Those of a server, begun before then, each with its program. Items of batches have their
    batch to see to them."""
    rows = await session.execute(
        select(Execution.id, Execution.program_id).where(
            Execution.state.in_(EXECUTIONS.open),
            Execution.owner == owner,
            Execution.batch_id.is_(None),
            Execution.created_at < before,
        )
    )
    return [(row.id, row.program_id) for row in rows]


async def fail_orphans(session: AsyncSession, alive: Sequence[str]) -> list[str]:
    """Ends what none of the servers that live has open, items of batches excepted: those are run
    again with their batch. The ids."""
    rows = await session.execute(
        select(Execution.id, Execution.program_id)
        .where(
            Execution.state.in_(EXECUTIONS.open),
            Execution.owner.not_in(alive),
            Execution.batch_id.is_(None),
        )
        .with_for_update()
    )
    ended = []
    for execution_id, program_id in rows.all():
        await interrupt_execution(session, execution_id, program_id)
        ended.append(execution_id)
    return ended


async def interrupt_execution(session: AsyncSession, execution_id: str, program_id: str) -> None:
    error = ExecutionInterruptedError("the server that ran it ended before it did: run it again")
    await fail_execution(session, execution_id, program_id, error)


def error_map(error: DSPexError) -> dict[str, Any]:
    """As it is kept. The code is the server's own where it is one that never crosses the wire."""
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "data": error.data,
    }


async def _count(session: AsyncSession, program_id: str, **more: float) -> None:
    # The last statement of its transaction: everybody who runs the program waits for this row.
    columns = {name: getattr(Program, name) + value for name, value in more.items() if value}
    await session.execute(update(Program).where(Program.id == program_id).values(columns))
