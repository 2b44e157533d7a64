"""Programs: a state machine over revisions, each of which never changes once it is written.

They are made in `program_creation`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dspex_protocol.errors import NotFoundError
from sqlalchemy import bindparam, delete, func, select

from dspex_server.db.models import Execution, Program, Revision
from dspex_server.errors import WrongStateError

from .machine import StateMachine

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection, Row
    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = [
    "PROGRAMS",
    "RUNNABLE",
    "Runnable",
    "add_revision",
    "archive_program",
    "delete_program",
    "deploy_program",
    "find_program",
    "find_revision",
    "find_runnable",
    "read_state",
    "require_runnable",
    "rollback_program",
]

PROGRAMS = StateMachine(
    "program",
    Program,
    {
        "draft": ("ready", "error", "archived"),
        # A state may follow itself: another revision, in the same state.
        "ready": ("ready", "optimized", "deployed", "error", "archived"),
        "optimized": ("optimized", "ready", "deployed", "error", "archived"),
        "deployed": ("deployed", "ready", "optimized", "error", "archived"),
        # What could not be made may be made once the bridge has what it lacked.
        "error": ("ready", "optimized", "deployed", "archived"),
        "archived": (),
    },
)

RUNNABLE = ("ready", "optimized", "deployed", "error")

# An id counts before a name that is another's id.
_FIND_RUNNABLE = (
    select(Program.id, Program.name, Program.state, Program.revision, Program.deployed_revision)
    .where((Program.id == bindparam("wanted")) | (Program.name == bindparam("wanted")))
    .order_by((Program.id == bindparam("wanted")).desc())
    .limit(1)
)


async def find_program(
    session: AsyncSession, program_id: str, *, for_update: bool = False
) -> Program:
    """By its id or its name. Raises NotFoundError."""
    query = select(Program).where((Program.id == program_id) | (Program.name == program_id))
    # An id counts before a name that is another's id.
    query = query.order_by((Program.id == program_id).desc()).limit(1)
    found = await session.scalar(query.with_for_update() if for_update else query)
    if found is None:
        raise _no_program(program_id)
    return found


def _no_program(program_id: str) -> NotFoundError:
    return NotFoundError(
        f"there is no program {program_id!r}", data={"kind": "program", "name": program_id}
    )


class Runnable(NamedTuple):
    """A program that runs, and the number of the revision that does."""

    id: str
    state: str
    revision: int


def find_runnable(connection: Connection, program_id: str) -> Runnable:
    """As `find_program` and `require_runnable`, for `Database.write_soon`."""
    found = connection.execute(_FIND_RUNNABLE, {"wanted": program_id}).one_or_none()
    if found is None:
        raise _no_program(program_id)
    return Runnable(found.id, found.state, require_runnable(found))


async def find_revision(session: AsyncSession, program: Program, number: int) -> Revision:
    found = await session.scalar(
        select(Revision).where(Revision.program_id == program.id, Revision.number == number)
    )
    if found is None:
        raise _no_revision(program.name, number)
    return found


def read_state(connection: Connection, program_id: str, number: int) -> dict[str, Any]:
    """The state of a revision, for `Database.write_soon`."""
    state: dict[str, Any] | None = connection.scalar(
        select(Revision.state).where(Revision.program_id == program_id, Revision.number == number)
    )
    if state is None:
        raise _no_revision(program_id, number)
    return state


def _no_revision(program: str, number: int) -> NotFoundError:
    return NotFoundError(
        f"program {program} has no revision {number}",
        data={"kind": "revision", "name": str(number)},
    )


def require_runnable(program: Program | Row[str, str, str, int, int | None]) -> int:
    """The revision that runs: the deployed one where there is one. Raises WrongStateError."""
    if program.state not in RUNNABLE:
        raise WrongStateError(
            f"program {program.name} is {program.state}: only {', '.join(RUNNABLE)} ones run",
            data={
                "resource": "program",
                "id": program.id,
                "state": program.state,
                "allowed": list(RUNNABLE),
            },
        )
    return program.deployed_revision or program.revision


async def append_revision(session: AsyncSession, program: Program, **values: Any) -> int:
    """The number of the new one, which is the newest: none is used twice."""
    newest = await session.scalar(
        select(func.max(Revision.number)).where(Revision.program_id == program.id)
    )
    number = (newest or 0) + 1
    session.add(Revision(program_id=program.id, number=number, **values))
    return number


async def add_revision(
    session: AsyncSession,
    program: Program,
    state: Mapping[str, Any],
    *,
    parent: int,
    job_id: str,
    score: float | None,
) -> int:
    """What an optimizer made. The newest revision runs from now on, where none is deployed."""
    number = await append_revision(
        session,
        program,
        parent=parent,
        origin="optimized",
        job_id=job_id,
        score=score,
        state=dict(state),
    )
    if program.state in ("ready", "optimized", "error"):
        await PROGRAMS.move(session, program.id, "optimized", source=program.state, revision=number)
    else:  # a deployed one goes on as it is; an archived one keeps what was paid for
        program.revision = number
    return number


async def deploy_program(
    session: AsyncSession, program_id: str, revision: int | None = None
) -> Program:
    """A revision, the newest by default, that runs until another one is deployed."""
    program = await find_program(session, program_id, for_update=True)
    number = program.revision if revision is None else revision
    await find_revision(session, program, number)
    await PROGRAMS.move(
        session,
        program.id,
        "deployed",
        source=program.state,
        reason=f"revision {number}",
        deployed_revision=number,
    )
    await session.refresh(program)
    return program


async def rollback_program(session: AsyncSession, program_id: str, revision: int) -> Program:
    """An earlier revision becomes the one that runs; later ones stay, to be gone forward to."""
    program = await find_program(session, program_id, for_update=True)
    target = await find_revision(session, program, revision)
    deployed = program.deployed_revision is not None
    if deployed:
        state, values = "deployed", {"deployed_revision": revision}
    else:
        state, values = ("optimized" if target.job_id else "ready"), {"revision": revision}
    reason = f"rolled back to revision {revision}"
    await PROGRAMS.move(session, program.id, state, source=program.state, reason=reason, **values)
    await session.refresh(program)
    return program


async def archive_program(session: AsyncSession, program_id: str) -> Program:
    """It runs no more; its executions and revisions stay."""
    program = await find_program(session, program_id, for_update=True)
    await PROGRAMS.move(
        session, program.id, "archived", source=program.state, deployed_revision=None
    )
    await session.refresh(program)
    return program


async def delete_program(session: AsyncSession, program_id: str) -> str:
    """The id of what is gone, with its revisions, executions and jobs. Refused while it runs."""
    program = await find_program(session, program_id, for_update=True)
    running = await session.scalar(
        select(func.count())
        .select_from(Execution)
        .where(Execution.program_id == program.id, Execution.state.in_(("pending", "running")))
    )
    if running:
        raise WrongStateError(
            f"program {program.name} has {running} executions under way: cancel them or wait",
            data={"resource": "program", "id": program.id, "state": program.state},
        )
    await session.execute(delete(Program).where(Program.id == program.id))
    return program.id
