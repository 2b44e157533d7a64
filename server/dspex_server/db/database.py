"""One database: its transactions, and what its errors mean to a caller.

    async with database.read() as session: ...      one snapshot, nothing is written
    async with database.write() as session: ...     committed at the end, or rolled back

SQLite has one writer at a time: a transaction that writes says so from its beginning, and waits in
this process and not in SQLite's polling.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import InvalidParamsError
from sqlalchemy import event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from dspex_server.errors import DatabaseUnavailableError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sqlalchemy import URL, Connection

__all__ = ["Database", "parse_url", "unavailable"]

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}

# For another process that writes (a second server by mistake, a backup).
_BUSY_TIMEOUT_MS = 10_000

# Requests wait for a connection no longer than a person would.
_POOL_TIMEOUT_S = 15
_POOL_SIZE = 20

_CONNECT_TIMEOUT_S = 5

_WRITES = "dspex_writes"


def parse_url(text: str) -> URL:
    """`sqlite:///FILE` or `postgresql://…`. Raises ValueError for any other."""
    try:
        url = make_url(text)
        return url.set(drivername=_DRIVERS[url.get_backend_name()])
    except (ArgumentError, KeyError):
        # The text may hold a password: it is not repeated.
        raise ValueError(
            "a database URL is sqlite:///FILE or postgresql://USER:PASSWORD@HOST:PORT/DATABASE"
        ) from None


class Database:
    def __init__(self, url: str) -> None:
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite:
            options: dict[str, Any] = {"connect_args": {"timeout": _BUSY_TIMEOUT_MS / 1000}}
        else:
            options = {
                "pool_size": _POOL_SIZE,
                "pool_timeout": _POOL_TIMEOUT_S,
                # After a restart of the database every pooled connection is a dead one.
                "pool_pre_ping": True,
                "connect_args": {"connect_timeout": _CONNECT_TIMEOUT_S},
            }
        self.engine = create_async_engine(self.url, **options)
        self._writer = asyncio.Lock() if self.is_sqlite else nullcontext()
        if self.is_sqlite:
            event.listen(self.engine.sync_engine, "connect", _open_sqlite)
            event.listen(self.engine.sync_engine, "begin", _begin_sqlite)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with _told(self.url), AsyncSession(self.engine) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        # Rows stay readable after the commit: they are answers.
        session = AsyncSession(self.engine, expire_on_commit=False)
        async with _told(self.url), self._writer, session:
            await session.connection(execution_options={_WRITES: True})
            yield session
            await session.commit()

    async def close(self) -> None:
        await self.engine.dispose()


@asynccontextmanager
async def _told(url: URL) -> AsyncIterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # a rule of the schema: for whoever wrote the statement
    except DataError as error:
        text = str(error.orig).strip().partition("\n")[0]
        raise InvalidParamsError(f"a value cannot be kept by the database: {text}") from error
    except (DBAPIError, PoolTimeoutError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise unavailable(url, cause or error) from error


def unavailable(url: URL, cause: BaseException) -> DatabaseUnavailableError:
    """What a driver's error means to a caller."""
    text = str(cause).strip().partition("\n")[0]
    where = url.database if url.get_backend_name() == "sqlite" else f"{url.host}:{url.port}"
    return DatabaseUnavailableError(
        f"the database ({where}) cannot be used now: {text}. Nothing was written; try again "
        "once it is well",
    )


def _open_sqlite(connection: Any, _record: object) -> None:
    # The driver would begin transactions by itself, too late for readers and as readers.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in (
        "journal_mode = WAL",
        # What was acknowledged outlives the machine, not only the process.
        "synchronous = FULL",
        "foreign_keys = ON",
        f"busy_timeout = {_BUSY_TIMEOUT_MS}",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
