"""What tests of the resources make and look at: a database, a program, an execution."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_server.db.database import Database
from dspex_server.db.models import Transition
from dspex_server.resources import executions
from dspex_server.resources.program_creation import create_program
from sqlalchemy import select

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["RESULT", "begin", "history", "make_program", "on", "opened"]

T = TypeVar("T")

RESULT: dict[str, Any] = {
    "outputs": {"answer": "4"},
    "lm": "main",
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    "cost_usd": 0.25,
    "duration_ms": 1.5,
    "cached": False,
}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def make_program(database: Database, name: str = "qa", **params: Any) -> str:
    async with database.write() as session:
        asked = {"signature": "question -> answer", **params}
        return (await create_program(session, asked, name=name)).id


async def history(database: Database, resource_id: str) -> list[tuple[str | None, str]]:
    async with database.read() as session:
        rows = await session.execute(
            select(Transition.source, Transition.target)
            .where(Transition.resource_id == resource_id)
            .order_by(Transition.at, Transition.source.is_not(None), Transition.id)
        )
        return [(row.source, row.target) for row in rows]


async def on(session: AsyncSession, work: Callable[..., T], *arguments: Any) -> T:
    return await (await session.connection()).run_sync(work, *arguments)


async def begin(database: Database, program_id: str, *, running: bool = True) -> str:
    async with database.write() as session:
        connection = await session.connection()
        return await connection.run_sync(
            executions.begin_execution,
            program_id,
            1,
            {"question": "2 + 2?"},
            owner="me",
            running=running,
            trace_id=None,
        )
