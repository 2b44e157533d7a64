"""Making programs, of what `create` of the protocol takes or of a bundle, and making them anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_bridge.programs import bundles
from dspex_bridge.programs.converters import InputConverter, OutputConverter
from dspex_bridge.programs.creation import checked, program_spec
from dspex_bridge.shapes import CREATE
from dspex_protocol.errors import AlreadyExistsError, InvalidParamsError, NotFoundError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from dspex_server.db.models import Program, Revision
from dspex_server.ids import new_id

from .names import check_name
from .programs import PROGRAMS, append_revision, find_program

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_bridge.programs.spec import ProgramSpec
    from sqlalchemy.ext.asyncio import AsyncSession

    from dspex_server.db.models import Signature

__all__ = ["add_program", "create_program", "no_tools", "spec_of"]


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
    number = await append_revision(
        session, program, parent=program.revision, origin="created", state=state
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
