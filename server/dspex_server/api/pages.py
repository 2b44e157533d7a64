"""Relay's connections, by the values that rows are sorted by: a page costs the same everywhere."""

import base64
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Any, Generic, TypeVar

import strawberry
from dspex_protocol.errors import InvalidParamsError
from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from .scalars import Direction

__all__ = ["MAX_PAGE", "Connection", "Edge", "Page", "PageInfo", "page_of"]

T = TypeVar("T")

# More rows than anybody looks at, and few enough that one request holds nobody up.
MAX_PAGE = 500
_DEFAULT_PAGE = 50


@strawberry.type
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[T]):
    node: T
    cursor: str


@strawberry.type
class Connection(Generic[T]):
    edges: list[Edge[T]]
    page_info: PageInfo
    count: strawberry.Private[Callable[[], Awaitable[int]]]

    @strawberry.field(description="All that fit the filter, on every page.")
    async def total_count(self) -> int:
        return await self.count()

    @strawberry.field(description="The nodes of the edges.")
    def nodes(self) -> list[T]:
        return [edge.node for edge in self.edges]


@strawberry.input(description="Which part of a list: the first ones after a cursor, or the last.")
class Page:
    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None


async def page_of(
    read: Callable[[], AbstractAsyncContextManager[AsyncSession]],
    model: Any,
    make: Callable[[Any], T],
    *,
    where: Sequence[ColumnElement[bool]],
    by: InstrumentedAttribute[Any],
    direction: Direction,
    page: Page | None,
) -> Connection[T]:
    """Rows sorted by a column that is never NULL, then by id. Raises InvalidParamsError."""
    wanted = page or Page()
    backward = wanted.last is not None
    size = _size(wanted)
    key = tuple_(by, model.id)
    rising = (direction is Direction.ASC) != backward
    query = select(model).where(*where)
    if wanted.after is not None:
        place = _place(wanted.after, by, "after")
        query = query.where(key > place if direction is Direction.ASC else key < place)
    if wanted.before is not None:
        place = _place(wanted.before, by, "before")
        query = query.where(key < place if direction is Direction.ASC else key > place)
    query = query.order_by(
        *((by.asc(), model.id.asc()) if rising else (by.desc(), model.id.desc()))
    )
    async with read() as session:
        # One more than asked for tells whether there are more.
        rows = list(await session.scalars(query.limit(size + 1)))
    more, rows = len(rows) > size, rows[:size]
    if backward:
        rows.reverse()
    edges = [Edge(node=make(row), cursor=_cursor(getattr(row, by.key), row.id)) for row in rows]

    async def count() -> int:
        async with read() as session:
            found = select(func.count()).select_from(model).where(*where)
            return await session.scalar(found) or 0

    return Connection(
        edges=edges,
        page_info=PageInfo(
            has_next_page=more if not backward else wanted.before is not None,
            has_previous_page=more if backward else wanted.after is not None,
            start_cursor=edges[0].cursor if edges else None,
            end_cursor=edges[-1].cursor if edges else None,
        ),
        count=count,
    )


def _size(page: Page) -> int:
    if page.first is not None and page.last is not None:
        raise InvalidParamsError("either first or last, and not both", data={"param": "page"})
    size = page.first if page.first is not None else page.last
    if size is None:
        return _DEFAULT_PAGE
    if not 0 < size <= MAX_PAGE:
        raise InvalidParamsError(
            f"a page has 1 to {MAX_PAGE} rows, not {size}", data={"param": "page"}
        )
    return size


def _cursor(value: Any, row_id: str) -> str:
    plain = value.isoformat() if isinstance(value, datetime) else value
    return base64.urlsafe_b64encode(json.dumps([plain, row_id]).encode()).decode()


def _place(cursor: str, by: InstrumentedAttribute[Any], param: str) -> Any:
    try:
        value, row_id = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        if by.type.python_type is datetime:
            value = datetime.fromisoformat(value)
        if type(row_id) is not str or not isinstance(value, by.type.python_type):
            raise ValueError("of another sort")
    except (ValueError, TypeError) as error:
        raise InvalidParamsError(
            f"{param} is no cursor of this list: take one of its edges", data={"param": param}
        ) from error
    return tuple_(value, row_id)
