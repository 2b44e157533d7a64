"""State machines: which state follows which; every change is recorded in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from dspex_protocol.errors import NotFoundError
from sqlalchemy import CursorResult, Table, insert, select, update

from dspex_server.db.models import Transition
from dspex_server.errors import WrongStateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

    from dspex_server.db.models import Base

__all__ = ["StateMachine"]


@dataclass(frozen=True)
class StateMachine:
    """`moves` says for every state which ones may follow; those without any are final."""

    resource: str
    model: type[Base]
    moves: Mapping[str, tuple[str, ...]]

    @property
    def final(self) -> tuple[str, ...]:
        return tuple(state for state, targets in self.moves.items() if not targets)

    @property
    def open(self) -> tuple[str, ...]:
        return tuple(state for state, targets in self.moves.items() if targets)

    def require(self, resource_id: str, source: str, target: str) -> None:
        """Raises WrongStateError where `target` may not follow `source`."""
        allowed = self.moves[source]
        if target not in allowed:
            after = f"only {', '.join(allowed)} can follow" if allowed else "which is final"
            raise WrongStateError(
                f"{self.resource} {resource_id} is {source}, {after}: it cannot become {target}",
                data={
                    "resource": self.resource,
                    "id": resource_id,
                    "state": source,
                    "wanted": target,
                    "allowed": list(allowed),
                },
            )

    async def began(
        self, session: AsyncSession, resource_id: str, *states: str, reason: str | None = None
    ) -> None:
        """Records that a resource was made, and the states that it went through since."""
        sources: list[str | None] = [None, *states[:-1]]
        await session.execute(
            insert(Transition),
            [
                self._recorded(resource_id, source, state, reason)
                for source, state in zip(sources, states, strict=True)
            ],
        )

    async def began_all(
        self, session: AsyncSession, resource_ids: Sequence[str], state: str
    ) -> None:
        """Records that many were made at once."""
        rows = [self._recorded(each, None, state, None) for each in resource_ids]
        await session.execute(insert(Transition), rows)

    async def move(
        self,
        session: AsyncSession,
        resource_id: str,
        target: str,
        *,
        source: str | None = None,
        reason: str | None = None,
        **values: Any,
    ) -> str:
        """Changes the state, and `values` with it. The state it had, which `source` says where it
        is known. Raises NotFoundError and WrongStateError."""
        found = source or await self._state(session, resource_id)
        self.require(resource_id, found, target)
        table = cast("Table", self.model.__table__)
        changed = cast(
            "CursorResult[Any]",
            await session.execute(
                update(table)
                .where(table.c.id == resource_id, table.c.state == found)
                .values(state=target, **values)
            ),
        )
        if changed.rowcount == 0:  # it was not in the state that was thought
            self.require(resource_id, await self._state(session, resource_id), target)
            raise WrongStateError(
                f"{self.resource} {resource_id} is not {found} any more",
                data={"resource": self.resource, "id": resource_id, "wanted": target},
            )
        await session.execute(
            insert(Transition), [self._recorded(resource_id, found, target, reason)]
        )
        return found

    async def _state(self, session: AsyncSession, resource_id: str) -> str:
        table = cast("Table", self.model.__table__)
        state: str | None = await session.scalar(
            select(table.c.state).where(table.c.id == resource_id).with_for_update()
        )
        if state is None:
            raise NotFoundError(
                f"there is no {self.resource} {resource_id}",
                data={"kind": self.resource, "name": resource_id},
            )
        return state

    def _recorded(
        self, resource_id: str, source: str | None, target: str, reason: str | None
    ) -> dict[str, Any]:
        return {
            "resource": self.resource,
            "resource_id": resource_id,
            "source": source,
            "target": target,
            "reason": reason,
        }
