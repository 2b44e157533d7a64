"""Executions: one run of one revision, written before it begins and when it has ended.

What takes a connection is for `Database.write_soon`; in a session's transaction it is run by
`(await session.connection()).run_sync`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from dspex_protocol.errors import DSPexError, NotFoundError
from sqlalchemy import Table, bindparam, insert, select, update

from dspex_server.db.models import Batch, Execution, Program, now
from dspex_server.errors import ExecutionInterruptedError
from dspex_server.ids import new_id

from .machine import StateMachine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import Connection, Row
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = [
    "EXECUTIONS",
    "begin_execution",
    "cancel_execution",
    "complete_execution",
    "error_map",
    "fail_execution",
    "fail_orphans",
    "find_execution",
    "interrupt_execution",
    "open_executions",
    "read_execution",
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

_TABLE = cast("Table", Execution.__table__)
_BEGIN = insert(_TABLE)
_READ = select(_TABLE).where(_TABLE.c.id == bindparam("wanted_id"))
_BATCHES = cast("Table", Batch.__table__)
_COUNTED = cast("Table", Program.__table__)
_COUNT = (
    update(_COUNTED)
    .where(_COUNTED.c.id == bindparam("counted"))
    .values(
        {
            name: _COUNTED.c[name] + bindparam(f"more_{name}")
            for name in ("executions", "failures", "total_tokens", "cost_usd")
        }
    )
)


def begin_execution(
    connection: Connection,
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
        **dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0),
    }
    connection.execute(_BEGIN, row)
    EXECUTIONS.record(connection, str(row["id"]), *states)
    return str(row["id"])


def start_execution(connection: Connection, execution_id: str, owner: str) -> None:
    EXECUTIONS.change(
        connection, execution_id, "running", source="pending", owner=owner, started_at=now()
    )


def complete_execution(
    connection: Connection, execution_id: str, result: Mapping[str, Any]
) -> Execution:
    """`result` is the answer of the protocol's `execute`, its outputs as JSON."""
    usage = result["usage"]
    row = EXECUTIONS.change(
        connection,
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
    return _ended(connection, row)


def fail_execution(connection: Connection, execution_id: str, error: DSPexError) -> Execution:
    """What was spent is kept. Raises WrongStateError where it has ended, or was cancelled."""
    target = "cancelled" if error.code == "cancelled" else "failed"
    usage = error.data.get("usage") or {}
    row = EXECUTIONS.change(
        connection,
        execution_id,
        target,
        reason=error.code,
        error=error_map(error),
        prompt_tokens=usage.get("prompt_tokens", 0),
        completion_tokens=usage.get("completion_tokens", 0),
        total_tokens=usage.get("total_tokens", 0),
        cost_usd=error.data.get("cost_usd"),
        finished_at=now(),
    )
    return _ended(connection, row)


async def cancel_execution(session: AsyncSession, execution_id: str) -> Execution:
    """Writes it down. Whoever runs it is told by the caller."""
    await EXECUTIONS.move(session, execution_id, "cancelled", finished_at=now())
    return await find_execution(session, execution_id)


async def find_execution(session: AsyncSession, execution_id: str) -> Execution:
    found = await session.get(Execution, execution_id)
    if found is None:
        raise _no_execution(execution_id)
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
        select(Execution.id)
        .where(
            Execution.state.in_(EXECUTIONS.open),
            Execution.owner.not_in(alive),
            Execution.batch_id.is_(None),
        )
        # As everybody locks them, and the programs that they are counted in.
        .order_by(Execution.program_id, Execution.id)
        .with_for_update()
    )
    ended = []
    for (execution_id,) in rows.all():
        await interrupt_execution(session, execution_id)
        ended.append(execution_id)
    return ended


async def interrupt_execution(session: AsyncSession, execution_id: str) -> None:
    error = ExecutionInterruptedError("the server that ran it ended before it did: run it again")
    await (await session.connection()).run_sync(fail_execution, execution_id, error)


def error_map(error: DSPexError) -> dict[str, Any]:
    """As it is kept. The code is the server's own where it is one that never crosses the wire."""
    return {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
        "data": error.data,
    }


def read_execution(connection: Connection, execution_id: str) -> Execution:
    row = connection.execute(_READ, {"wanted_id": execution_id}).one_or_none()
    if row is None:
        raise _no_execution(execution_id)
    return Execution(**row._mapping)


def _ended(connection: Connection, row: Row[Any]) -> Execution:
    """Counts it. The last statements of its transaction: everybody who runs the program, or the
    batch, waits for these rows."""
    execution = Execution(**row._mapping)
    if execution.batch_id is not None and execution.state in ("completed", "failed"):
        column = _BATCHES.c[execution.state]
        connection.execute(
            update(_BATCHES).where(_BATCHES.c.id == execution.batch_id).values({column: column + 1})
        )
    connection.execute(
        _COUNT,
        {
            "counted": execution.program_id,
            "more_executions": 1,
            "more_failures": int(execution.state == "failed"),
            "more_total_tokens": execution.total_tokens,
            "more_cost_usd": execution.cost_usd or 0.0,
        },
    )
    return execution


def _no_execution(execution_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no execution {execution_id}", data={"kind": "execution", "name": execution_id}
    )
