"""Signatures: named and versioned. A definition never changes; a changed one is a new version."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspex_bridge.programs.converters import InputConverter, OutputConverter
from dspex_protocol.errors import NotFoundError
from dspex_protocol.signatures import SignatureSpec, signature_from_wire
from sqlalchemy import select

from dspex_server.db.models import Signature
from dspex_server.errors import WrongStateError

from .machine import StateMachine
from .names import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["SIGNATURES", "create_signature", "find_signature", "usable_signature"]

SIGNATURES = StateMachine(
    "signature",
    Signature,
    {"draft": ("active", "deprecated"), "active": ("deprecated",), "deprecated": ()},
)


async def create_signature(
    session: AsyncSession,
    name: str,
    definition: str | Mapping[str, Any],
    *,
    instructions: str | None = None,
    draft: bool = False,
) -> Signature:
    """The newest version of a name, which is a new one where the definition is another.

    The same definition again is the same version, so that a caller may repeat itself; one that is
    a draft becomes active unless `draft` is asked for. Raises SignatureError.
    """
    check_name(name, "name")
    spec = signature_from_wire(definition)
    if instructions is not None:
        spec = replace(spec, instructions=instructions)
    _check(spec)
    wanted = spec.to_map()
    newest = await session.scalar(
        select(Signature)
        .where(Signature.name == name)
        .order_by(Signature.version.desc())
        .limit(1)
        .with_for_update()
    )
    if newest is not None and newest.definition == wanted and newest.state != "deprecated":
        if newest.state == "draft" and not draft:
            await SIGNATURES.move(session, newest.id, "active", source="draft")
            await session.refresh(newest)
        return newest
    states = ("draft",) if draft else ("draft", "active")
    signature = Signature(
        name=name,
        version=1 if newest is None else newest.version + 1,
        definition=wanted,
        text=spec.to_string(),
        state=states[-1],
    )
    session.add(signature)
    await session.flush()
    await SIGNATURES.began(session, signature.id, *states)
    return signature


async def find_signature(session: AsyncSession, signature_id: str) -> Signature:
    """By its id. Raises NotFoundError."""
    found = await session.get(Signature, signature_id)
    if found is None:
        raise NotFoundError(
            f"there is no signature {signature_id}",
            data={"kind": "signature", "name": signature_id},
        )
    return found


async def usable_signature(session: AsyncSession, signature_id: str) -> Signature:
    """One that programs may be made of: it is not deprecated. A draft becomes active."""
    signature = await find_signature(session, signature_id)
    if signature.state == "deprecated":
        raise WrongStateError(
            f"signature {signature.name} version {signature.version} is deprecated: make programs "
            "of a newer version",
            data={"resource": "signature", "id": signature.id, "state": signature.state},
        )
    if signature.state == "draft":
        await SIGNATURES.move(session, signature.id, "active", reason="a program was made of it")
        await session.refresh(signature)
    return signature


def _check(spec: SignatureSpec) -> None:
    """That patterns compile and defaults fit: what making its converters looks at."""
    InputConverter(spec)
    OutputConverter(spec)
