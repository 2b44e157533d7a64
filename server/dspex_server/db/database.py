"""One database: its transactions, and what its errors mean to a caller.

    async with database.read() as session: ...      one snapshot, nothing is written
    async with database.write() as session: ...     committed at the end, or rolled back
    await database.write_soon(work)                 one transaction for those who come together

SQLite has one writer at a time: a transaction that writes says so from its beginning, and waits in
this process and not in SQLite's polling.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_protocol.errors import InvalidParamsError
from sqlalchemy import create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from dspex_server.errors import DatabaseUnavailableError

from .connections import Patient, PatientAsync, connect_arguments
from .group_commit import SYNCED, GroupCommit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from sqlalchemy import URL, Connection

__all__ = ["Database", "parse_url", "place", "unavailable"]

T = TypeVar("T")

_POSTGRESQL_PORT = 5432

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}

# For another process that writes (a second server by mistake, a backup).
_BUSY_TIMEOUT_MS = 10_000

# Requests wait for a connection no longer than a person would.
_POOL_TIMEOUT_S = 15
_POOL_SIZE = 20

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
        patient: dict[str, Any] = {}
        if self.is_sqlite:
            options: dict[str, Any] = {
                # Requests of one GraphQL query wait for each other no longer than on PostgreSQL.
                "pool_timeout": _POOL_TIMEOUT_S,
                "connect_args": {"timeout": _BUSY_TIMEOUT_MS / 1000},
            }
        else:
            options = {
                "pool_size": _POOL_SIZE,
                "pool_timeout": _POOL_TIMEOUT_S,
                # After a restart of the database every pooled connection is a dead one.
                "pool_pre_ping": True,
                "connect_args": connect_arguments(_options(self.url)),
            }
            patient = {"async_creator_fn": PatientAsync.connect}
        # Inputs and outputs are not for logs.
        options["hide_parameters"] = True
        self.engine = create_async_engine(
            self.url, **{**options, "connect_args": {**options["connect_args"], **patient}}
        )
        self._turn = asyncio.Lock() if self.is_sqlite else nullcontext()
        # The drivers of these are not asynchronous: a whole transaction is one change of threads.
        driver = "sqlite" if self.is_sqlite else self.url.drivername
        self.writer = create_engine(
            self.url.set(drivername=driver),
            **{**options, "pool_size": 1, "execution_options": {_WRITES: True}},
        )
        self._group = GroupCommit(self.writer, self._turn)
        if self.is_sqlite:
            for engine in (self.engine.sync_engine, self.writer):
                event.listen(engine, "connect", _open_sqlite)
                event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(self.writer, "do_connect", _connect)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        async with _told(self.url, writes=False), AsyncSession(self.engine) as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        # Rows stay readable after the commit: they are answers.
        session = AsyncSession(self.engine, expire_on_commit=False)
        async with _told(self.url, writes=True), self._turn, session:
            await session.connection(execution_options={_WRITES: True})
            yield session
            await session.commit()

    async def write_soon(
        self, work: Callable[[Connection], T], *, order: str = "", is_synced: bool = True
    ) -> T:
        """What `work` returns, once it is committed. See GroupCommit.write."""
        async with _told(self.url, writes=True):
            return await self._group.write(work, order=order, is_synced=is_synced)

    async def close(self) -> None:
        await self._group.close()
        await self.engine.dispose()


@asynccontextmanager
async def _told(url: URL, *, writes: bool) -> AsyncIterator[None]:
    try:
        yield
    except IntegrityError:
        raise  # a rule of the schema: for whoever wrote the statement
    except DataError as error:
        text = str(error.orig).strip().partition("\n")[0]
        raise InvalidParamsError(f"a value cannot be kept by the database: {text}") from error
    except (DBAPIError, PoolTimeoutError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise unavailable(url, cause or error, writes=writes) from error


def unavailable(url: URL, cause: BaseException, *, writes: bool) -> DatabaseUnavailableError:
    """What a driver's error means to a caller."""
    text = str(cause).strip().partition("\n")[0]
    # A commit whose answer is lost may have been one; of a read nothing is left.
    advice = (
        "What was to be written may or may not be there: look before you try again, once it is well"
        if writes
        else "Try again once it is well"
    )
    return DatabaseUnavailableError(
        f"the database ({place(url)}) cannot be used now: {text}. {advice}"
    )


def place(url: URL) -> str:
    """Where a database lies, for a person: without its user and password."""
    if url.get_backend_name() == "sqlite":
        return str(url.database)
    return f"{url.host or 'localhost'}:{url.port or _POSTGRESQL_PORT}/{url.database or ''}"


def _options(url: URL) -> str:
    given = url.query.get("options", "")
    return given if isinstance(given, str) else " ".join(given)


def _connect(_dialect: object, _record: object, _args: object, options: dict[str, Any]) -> Patient:
    return Patient.connect(**options)


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
    options = connection.get_execution_options()
    if SYNCED in options:
        mode = "FULL" if options[SYNCED] else "NORMAL"
        connection.exec_driver_sql(f"PRAGMA synchronous = {mode}")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get(_WRITES) else "BEGIN")
