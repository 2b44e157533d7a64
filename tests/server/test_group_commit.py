"""Writes of many callers in one transaction, on both databases."""

from __future__ import annotations

import asyncio
import threading
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
from dspex_protocol.errors import NotFoundError, ShuttingDownError
from dspex_server.db.database import Database, parse_url
from dspex_server.db.group_commit import GroupCommit
from dspex_server.db.migrate import migrate
from dspex_server.db.models import Server
from dspex_server.errors import DatabaseUnavailableError
from sqlalchemy import Connection, Table, event, insert, select, text, update
from sqlalchemy.exc import IntegrityError, ProgrammingError

from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from integration.postgres import Postgres

WAIT_S = 20
SERVERS = cast("Table", Server.__table__)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


def adds(name: str) -> Callable[[Connection], str]:
    def work(connection: Connection) -> str:
        connection.execute(insert(SERVERS), {"id": name, "role": "test", "host": "h", "pid": 1})
        return name

    return work


async def names(database: Database) -> list[str]:
    async with database.read() as session:
        return sorted(await session.scalars(select(Server.id)))


@on_a_loop
async def test_those_who_come_together_are_written_by_one_transaction(url: str) -> None:
    async with opened(url) as database:
        commits: list[Connection] = []
        event.listen(database.writer, "commit", commits.append)
        wanted = [f"server {index:02}" for index in range(20)]
        answers = await asyncio.gather(*(database.write_soon(adds(name)) for name in wanted))
        assert answers == wanted
        assert await names(database) == wanted
        assert len(commits) == 1


@on_a_loop
async def test_one_that_the_database_refuses_fails_alone(url: str) -> None:
    async with opened(url) as database:
        await database.write_soon(adds("there"))
        found = await asyncio.gather(
            *(database.write_soon(adds(name)) for name in ("a", "there", "b")),
            return_exceptions=True,
        )
        assert found[::2] == ["a", "b"]
        assert isinstance(found[1], IntegrityError)
        assert await names(database) == ["a", "b", "there"]


@on_a_loop
async def test_one_that_breaks_after_it_has_written_leaves_nothing_and_the_others_stay(
    url: str,
) -> None:
    def breaks(connection: Connection) -> None:
        adds("half")(connection)
        raise KeyError("a mistake")

    async with opened(url) as database:
        found = await asyncio.gather(
            database.write_soon(adds("a")),
            database.write_soon(breaks),
            database.write_soon(adds("b")),
            return_exceptions=True,
        )
        assert isinstance(found[1], KeyError)
        assert await names(database) == ["a", "b"]


@on_a_loop
async def test_one_that_is_told_no_does_not_hold_up_the_others(url: str) -> None:
    def refuses(_connection: Connection) -> None:
        raise NotFoundError("there is none")

    async with opened(url) as database:
        commits: list[Connection] = []
        event.listen(database.writer, "commit", commits.append)
        found = await asyncio.gather(
            database.write_soon(refuses), database.write_soon(adds("a")), return_exceptions=True
        )
        assert isinstance(found[0], NotFoundError)
        assert await names(database) == ["a"]
        assert len(commits) == 1


@on_a_loop
async def test_who_gives_up_before_its_turn_has_written_nothing(url: str) -> None:
    async with opened(url) as database:
        async with database.write() if database.is_sqlite else asyncio.timeout(None):
            waiting = [asyncio.create_task(database.write_soon(adds(name))) for name in "ab"]
            waiting[0].cancel()
            await asyncio.wait(waiting[:1])
        assert await waiting[1] == "b"
        assert "b" in await names(database)
        if database.is_sqlite:  # elsewhere it was nobody's turn to hold it up
            assert await names(database) == ["b"]


@on_a_loop
async def test_servers_that_lock_the_same_rows_do_not_wait_for_each_other_for_ever(
    url: str,
) -> None:
    def touch(name: str) -> Callable[[Connection], None]:
        def work(connection: Connection) -> None:
            connection.execute(
                update(SERVERS).where(SERVERS.c.id == name).values(pid=SERVERS.c.pid + 1)
            )

        return work

    async with opened(url) as one, opened(url) as other:
        conflicts: list[Any] = []
        for database in (one, other):
            event.listen(database.writer, "handle_error", conflicts.append)
        rows = [f"row {index}" for index in range(8)]
        for name in rows:
            await one.write_soon(adds(name))

        async def turn(database: Database, names: list[str]) -> None:
            for _ in range(20):
                await asyncio.gather(
                    *(database.write_soon(touch(name), order=name) for name in names)
                )

        if one.is_sqlite:  # its only server has one writer
            await turn(one, rows)
        else:
            await asyncio.gather(turn(one, rows), turn(other, rows[::-1]))
        async with one.read() as session:
            pids = set(await session.scalars(select(Server.pid)))
        assert pids == {21 if one.is_sqlite else 41}
        assert conflicts == []


@on_a_loop
async def test_all_are_told_of_a_database_that_is_away(tmp_path: Path) -> None:
    async with opened(f"sqlite:///{tmp_path}/no/folder/here.sqlite") as database:
        found = await asyncio.gather(
            *(database.write_soon(adds(name)) for name in "abc"), return_exceptions=True
        )
        assert [type(error) for error in found] == [DatabaseUnavailableError] * 3


@pytest.mark.parametrize(("is_synced", "mode"), [(True, 2), (False, 1)])
@on_a_loop
async def test_a_commit_waits_for_the_disk_where_somebody_is_told(
    tmp_path: Path, is_synced: bool, mode: int
) -> None:
    async with opened(f"sqlite:///{tmp_path}/test.sqlite") as database:

        def read(connection: Connection) -> int:
            return int(connection.exec_driver_sql("PRAGMA synchronous").scalar_one())

        assert await database.write_soon(read, is_synced=is_synced) == mode
        found = await asyncio.gather(
            database.write_soon(read, is_synced=False), database.write_soon(read)
        )
        assert list(found) == [2, 2]


@on_a_loop
async def test_a_statement_that_is_none_fails_alone(url: str) -> None:
    def misspells(connection: Connection) -> None:
        # Of SQLite's errors what is misspelled is one of the database; this is one of the driver.
        statement = "SELECT ?" if connection.dialect.name == "sqlite" else "SELEC 1"
        connection.exec_driver_sql(statement)

    async with opened(url) as database:
        found = await asyncio.gather(
            database.write_soon(adds("a")),
            database.write_soon(misspells),
            database.write_soon(adds("b")),
            return_exceptions=True,
        )
        assert isinstance(found[1], Exception)
        assert isinstance(found[1].__cause__, ProgrammingError)
        assert await names(database) == ["a", "b"]


@on_a_loop
async def test_what_comes_after_the_end_is_refused_and_does_not_wait_for_ever(url: str) -> None:
    async with opened(url) as database:
        await database.write_soon(adds("a"))
    with pytest.raises(ShuttingDownError):
        await asyncio.wait_for(database.write_soon(adds("b")), WAIT_S)


@on_a_loop
async def test_who_waits_is_told_where_writing_itself_fails(url: str) -> None:
    class Broken(AbstractAsyncContextManager[None]):
        async def __aenter__(self) -> None:
            raise OSError("no thread can be started")

        async def __aexit__(self, *_: object) -> None:
            pass

    async with opened(url) as database:
        group = GroupCommit(database.writer, Broken())
        for _ in range(2):
            found = await asyncio.wait_for(
                asyncio.gather(*(group.write(adds(name)) for name in "ab"), return_exceptions=True),
                WAIT_S,
            )
            assert [type(error) for error in found] == [OSError] * 2


@on_a_loop
async def test_who_is_ended_by_a_deadlock_is_written_all_the_same(postgres: Postgres) -> None:
    url = postgres.new_database()
    migrate(parse_url(url))
    holds = threading.Event()

    def touches(name: str, *, then: threading.Event | None = None) -> Callable[[Connection], str]:
        def work(connection: Connection) -> str:
            connection.execute(update(SERVERS).where(SERVERS.c.id == name).values(pid=2))
            if then is not None:
                then.set()
                assert waits.wait(WAIT_S)
            return name

        return work

    waits = threading.Event()
    async with opened(url) as database, opened(url) as other:
        await asyncio.gather(*(database.write_soon(adds(name)) for name in "ab"))
        async with other.write() as session:
            # The group finds the deadlock first, and is the one that is ended.
            await session.execute(text("SET LOCAL deadlock_timeout = '60s'"))
            await session.execute(update(Server).where(Server.id == "b").values(host="other"))
            group = asyncio.gather(
                database.write_soon(touches("a", then=holds), order="a"),
                database.write_soon(touches("b"), order="b"),
            )
            assert await asyncio.to_thread(holds.wait, WAIT_S)
            # Its thread goes on once this one waits for what it has.
            asyncio.get_running_loop().call_later(0, waits.set)
            await session.execute(update(Server).where(Server.id == "a").values(host="other"))
        assert list(await group) == ["a", "b"]
        async with database.read() as session:
            rows = (await session.execute(select(Server.pid, Server.host))).all()
        assert [tuple(row) for row in rows] == [(2, "other")] * 2
