"""What is nested in a page is read for all of its nodes at once: a statement a field, and not one a
node."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, func, inspect, select
from strawberry.dataloader import DataLoader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Hashable, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm import InstrumentedAttribute

    from dspex_server.db.database import Database

__all__ = ["Loaders"]

# To the database, of one request: there are twenty, and others want theirs.
_CONNECTIONS = 4

# Rows of one resource: a history, revisions. More than these are not asked for at once.
_MAX_ROWS = 1_000

# Nodes of one statement: a page has no more.
_MAX_KEYS = 500


class Loaders:
    """Of one request. Nothing is kept: what a mutation has changed is read anew after it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._places = asyncio.Semaphore(_CONNECTIONS)
        self._loaders: dict[Hashable, DataLoader[str, Any]] = {}

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncSession]:
        """As `Database.read`. The resolvers of one request share a few connections."""
        async with self._places, self._database.read() as session:
            yield session

    async def one(self, model: type[Any], resource_id: str) -> Any | None:
        """The row of that id, where there is one."""
        return await self._load((model,), resource_id, partial(self._by_id, model))

    async def many(
        self,
        parent: InstrumentedAttribute[str],
        parent_id: str,
        *where: ColumnElement[bool],
        order: Sequence[Any],
        most: int = _MAX_ROWS,
        name: Hashable = None,
    ) -> list[Any]:
        """The rows whose column `parent` has that id, the first ones in that order. Conditions that
        differ have names that do."""
        rows: list[Any] = await self._load(
            (parent, most, name), parent_id, partial(self._by_parent, parent, where, order, most)
        )
        return rows

    async def _load(self, name: Hashable, key: str, read: Callable[[list[str]], Any]) -> Any:
        loader = self._loaders.get(name)
        if loader is None:
            loader = DataLoader(read, max_batch_size=_MAX_KEYS, cache=False)
            self._loaders[name] = loader
        return await loader.load(key)

    async def _by_id(self, model: Any, ids: list[str]) -> list[Any | None]:
        rows = await self._rows(select(model).where(model.id.in_({*ids})))
        found = {row.id: row for row in rows}
        return [found.get(key) for key in ids]

    async def _by_parent(
        self,
        parent: InstrumentedAttribute[str],
        where: Sequence[ColumnElement[bool]],
        order: Sequence[Any],
        most: int,
        ids: list[str],
    ) -> list[list[Any]]:
        table = parent.class_
        place = func.row_number().over(partition_by=parent, order_by=order).label("place")
        # Without what is long: it is read of those alone that are wanted.
        keys = inspect(table).primary_key
        few = select(*keys, place).where(parent.in_({*ids}), *where).subquery()
        rows = await self._rows(
            select(table)
            .join(few, and_(*(few.c[key.key] == key for key in keys)))
            .where(few.c.place <= most)
            .order_by(*order)
        )
        found: defaultdict[str, list[Any]] = defaultdict(list)
        for row in rows:
            found[getattr(row, parent.key)].append(row)
        return [found[key] for key in ids]

    async def _rows(self, query: Select[Any]) -> list[Any]:
        async with self.reading() as session:
            return list(await session.scalars(query))
