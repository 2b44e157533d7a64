"""State machines: which state follows which; every change is recorded in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from dspex_protocol.errors import NotFoundError
from sqlalchemy import Table, bindparam, insert, select, update

from dspex_server.db.models import Transition, now
from dspex_server.errors import WrongStateError
from dspex_server.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection, Row
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.sql.dml import ReturningUpdate

    from dspex_server.db.models import Base

__all__ = ["StateMachine"]

_RECORD = insert(cast("Table", Transition.__table__))


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
        connection = await session.connection()
        await connection.run_sync(self.record, resource_id, *states, reason=reason)

    def record(
        self, connection: Connection, resource_id: str, *states: str, reason: str | None = None
    ) -> None:
        """As `began`."""
        sources: list[str | None] = [None, *states[:-1]]
        connection.execute(
            _RECORD,
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
        await session.execute(_RECORD, rows)

    async def move(
        self,
        session: AsyncSession,
        resource_id: str,
        target: str,
        *,
        source: str | None = None,
        reason: str | None = None,
        **values: Any,
    ) -> None:
        """Changes the state, and `values` with it. `source` is the state that it has, where that
        is known. Raises NotFoundError and WrongStateError, and has then changed nothing."""
        connection = await session.connection()
        await connection.run_sync(
            self.change, resource_id, target, source=source, reason=reason, **values
        )

    def change(
        self,
        connection: Connection,
        /,
        resource_id: str,
        target: str,
        *,
        source: str | None = None,
        reason: str | None = None,
        **values: Any,
    ) -> Row[Any]:
        """As `move`. The row that it is now."""
        found = source or self._state(connection, resource_id)
        self.require(resource_id, found, target)
        changed = connection.execute(
            _update(cast("Table", self.model.__table__)),
            {**values, "state": target, "wanted_id": resource_id, "wanted_state": found},
        ).one_or_none()
        if changed is None:  # it was not in the state that was thought
            self.require(resource_id, self._state(connection, resource_id), target)
            raise WrongStateError(
                f"{self.resource} {resource_id} is not {found} any more",
                data={"resource": self.resource, "id": resource_id, "wanted": target},
            )
        connection.execute(_RECORD, [self._recorded(resource_id, found, target, reason)])
        return changed

    def _state(self, connection: Connection, resource_id: str) -> str:
        table = cast("Table", self.model.__table__)
        state: str | None = connection.scalar(
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
            "id": new_id(),
            "at": now(),
            "resource": self.resource,
            "resource_id": resource_id,
            "source": source,
            "target": target,
            "reason": reason,
        }


@cache
def _update(table: Table) -> ReturningUpdate[Any]:
    """Sets the columns that it is executed with, of a row that has a state."""
    return (
        update(table)
        .where(table.c.id == bindparam("wanted_id"), table.c.state == bindparam("wanted_state"))
        .returning(table)
    )
