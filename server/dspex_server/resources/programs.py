"""Programs: a state machine over revisions, each of which never changes once it is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dspex_bridge.programs import bundles
from dspex_bridge.programs.converters import InputConverter, OutputConverter
from dspex_bridge.programs.creation import checked, program_spec
from dspex_bridge.shapes import CREATE
from dspex_protocol.errors import AlreadyExistsError, InvalidParamsError, NotFoundError
from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.exc import IntegrityError

from dspex_server.db.models import Execution, Program, Revision
from dspex_server.errors import WrongStateError
from dspex_server.ids import new_id

from .machine import StateMachine
from .names import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_bridge.programs.spec import ProgramSpec
    from sqlalchemy import Connection, Row
    from sqlalchemy.ext.asyncio import AsyncSession

    from dspex_server.db.models import Signature

__all__ = [
    "PROGRAMS",
    "RUNNABLE",
    "Runnable",
    "add_program",
    "add_revision",
    "archive_program",
    "create_program",
    "delete_program",
    "deploy_program",
    "find_program",
    "find_revision",
    "find_runnable",
    "no_tools",
    "read_state",
    "require_runnable",
    "rollback_program",
    "spec_of",
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


async def create_program(
    session: AsyncSession,
    params: Mapping[str, Any],
    *,
    name: str | None = None,
    signature: Signature | None = None,
    draft: bool = False,
    replace: bool = False,
) -> Program:
    """A program of `create`'s parameters, without `program` and `replace`.

    All that can be known without DSPy is checked here. Raises InvalidParamsError, SignatureError,
    InputValidationError for a demonstration, and as `add_program`.
    """
    if draft and replace:
        raise InvalidParamsError(
            "createProgram: replace makes a revision that runs, and draft a program that does not "
            "run yet: give one of them",
            data={"param": "draft"},
        )
    if signature is not None:
        params = {**params, "signature": signature.definition}
    spec = spec_of(params)
    return await add_program(
        session, spec, name=name, signature=signature, draft=draft, replace=replace
    )


def spec_of(params: Mapping[str, Any]) -> ProgramSpec:
    """What `create`'s parameters make, as far as that is known without DSPy. Raises as
    `create_program` does."""
    CREATE(params, "createProgram")
    if any("tools" in part for part in (params, *(params.get("steps") or ()))):
        raise no_tools()
    spec = program_spec(params)
    InputConverter(spec.signature)
    OutputConverter(spec.signature)
    return checked(spec)


def no_tools() -> InvalidParamsError:
    return InvalidParamsError(
        "createProgram: tools are run by the client of a bridge, and this server has none to "
        "run: make programs with tools from DSPex itself",
        data={"param": "tools"},
    )


async def add_program(
    session: AsyncSession,
    spec: ProgramSpec,
    *,
    name: str | None = None,
    signature: Signature | None = None,
    draft: bool = False,
    replace: bool = False,
) -> Program:
    """A program and its first revision, or with `replace` another revision of the one of that name.
    Raises AlreadyExistsError for a name in use, WrongStateError for one that is archived."""
    known = await _named(session, name) if replace and name is not None else None
    if known is not None:
        await _replace(session, known, spec, signature)
        return known
    states = ("draft",) if draft else ("draft", "ready")
    program_id = new_id()
    program = Program(
        id=program_id,
        name=program_id if name is None else check_name(name, "name"),
        signature_id=None if signature is None else signature.id,
        module=spec.module,
        lm=spec.lm,
        adapter=spec.adapter,
        config=dict(spec.config),
        state=states[-1],
        revision=1,
    )
    session.add(program)
    try:
        await session.flush()
    except IntegrityError:
        raise AlreadyExistsError(
            f"there is a program {name!r} already: choose another name, or give replace",
            data={"name": name},
        ) from None
    session.add(
        Revision(program_id=program.id, number=1, origin="created", state=bundles.dump(spec))
    )
    await PROGRAMS.began(session, program.id, *states)
    return program


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
    newest = await session.scalar(
        select(func.max(Revision.number)).where(Revision.program_id == program.id)
    )
    number = (newest or 0) + 1
    session.add(
        Revision(
            program_id=program.id,
            number=number,
            parent=parent,
            origin="optimized",
            job_id=job_id,
            score=score,
            state=dict(state),
        )
    )
    if program.state in ("ready", "optimized", "error"):
        await PROGRAMS.move(session, program.id, "optimized", source=program.state, revision=number)
    else:  # a deployed one goes on as it is; an archived one keeps what was paid for
        program.revision = number
    return number


async def _named(session: AsyncSession, name: str) -> Program | None:
    try:
        return await find_program(session, name, for_update=True)
    except NotFoundError:
        return None


async def _replace(
    session: AsyncSession, program: Program, spec: ProgramSpec, signature: Signature | None
) -> None:
    """A new revision, but where the last one that was made by hand is the same, so that an
    application may say at each start what its programs are. What an optimizer made of it stays, and
    a deployed one goes on as it is."""
    state = bundles.dump(spec)
    last = await session.scalar(
        select(Revision)
        .where(Revision.program_id == program.id, Revision.origin == "created")
        .order_by(Revision.number.desc())
        .limit(1)
    )
    if last is not None and last.state == state:
        return
    newest = await session.scalar(
        select(func.max(Revision.number)).where(Revision.program_id == program.id)
    )
    number = (newest or 0) + 1
    session.add(
        Revision(
            program_id=program.id,
            number=number,
            parent=program.revision,
            origin="created",
            state=state,
        )
    )
    values = {"module": spec.module, "lm": spec.lm, "adapter": spec.adapter}
    target = "deployed" if program.state == "deployed" else "ready"
    await PROGRAMS.move(
        session,
        program.id,
        target,
        source=program.state,
        reason=f"replaced by revision {number}",
        revision=number,
        signature_id=None if signature is None else signature.id,
        config=dict(spec.config),
        **values,
    )
    await session.refresh(program)


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
