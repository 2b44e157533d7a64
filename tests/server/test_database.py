"""The database: migrations, transactions, and what is said where it cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from dspex_server.db.database import Database, parse_url, place
from dspex_server.db.migrate import migrate
from dspex_server.db.models import Base, Signature
from dspex_server.errors import DatabaseUnavailableError
from dspex_server.resources.signatures import create_signature
from sqlalchemy import create_engine, func, select, text
from sqlalchemy.exc import IntegrityError

from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from integration.postgres import Postgres

# With the time to connect anew, on a machine under load.
HANGS_S = 30


def sync_url(url: str) -> str:
    parsed = parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        parsed = parsed.set(drivername="sqlite")
    return parsed.render_as_string(hide_password=False)


def test_the_migrations_make_the_tables_that_the_models_say(url: str) -> None:
    engine = create_engine(sync_url(url))
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), Base.metadata)
    engine.dispose()
    assert found == []


def test_servers_that_start_at_once_migrate_once(empty_url: str) -> None:
    script = (
        "import sys\n"
        "from dspex_server.db.database import parse_url\n"
        "from dspex_server.db.migrate import migrate\n"
        "migrate(parse_url(sys.argv[1]))\n"
    )
    servers = [
        subprocess.Popen([sys.executable, "-c", script, empty_url], stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [server.communicate(timeout=60)[1].decode() for server in servers]
    assert [server.returncode for server in servers] == [0, 0, 0], said


def test_a_database_of_a_newer_version_is_refused(url: str) -> None:
    engine = create_engine(sync_url(url))
    with engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(RuntimeError, match="update dspex"):
        migrate(parse_url(url))


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "secret", "sqlite+pysqlcipher:secret"])
def test_a_url_that_is_none_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite:///FILE") as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:////var/lib/dspex.sqlite", "/var/lib/dspex.sqlite"),
        ("postgresql://me:secret@db.example:6432/dspex", "db.example:6432/dspex"),
        ("postgresql://db.example/dspex?user=me&password=secret", "db.example:5432/dspex"),
        ("postgresql:///dspex", "localhost:5432/dspex"),
    ],
)
def test_a_database_is_told_by_its_place_and_never_by_its_password(url: str, expected: str) -> None:
    assert place(parse_url(url)) == expected


@on_a_loop
async def test_a_transaction_that_fails_leaves_nothing(url: str) -> None:
    database = Database(url)

    async def fail() -> None:
        async with database.write() as session:
            await create_signature(session, "qa", "question -> answer")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Signature)) == 0
    await database.close()


@on_a_loop
async def test_many_writers_at_once_all_write(url: str) -> None:
    database = Database(url)

    async def write(index: int) -> None:
        async with database.write() as session:
            await create_signature(session, f"s{index}", "question -> answer")

    await asyncio.gather(*(write(index) for index in range(50)))
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Signature)) == 50
    await database.close()


@on_a_loop
async def test_a_database_that_is_down_is_told_and_well_again_after(tmp_path: Path) -> None:
    from integration.postgres import Postgres

    server = Postgres()
    try:
        url = server.new_database()
        migrate(parse_url(url))
        database = Database(url)

        async def write(name: str) -> None:
            async with database.write() as session:
                await create_signature(session, name, "question -> answer")

        await write("before")
        server.stop("immediate")
        with pytest.raises(DatabaseUnavailableError, match="may or may not be there"):
            await write("meanwhile")
        with pytest.raises(DatabaseUnavailableError) as told:
            async with database.read() as session:
                await session.scalar(select(func.count()).select_from(Signature))
        # Nothing was to be written, and nobody has to look for it.
        assert "may or may not" not in str(told.value)
        assert "Try again once it is well" in str(told.value)
        server.start()
        await write("after")
        async with database.read() as session:
            names = await session.scalars(select(Signature.name).order_by(Signature.name))
            assert list(names) == ["after", "before"]
        await database.close()
    finally:
        server.close()


@on_a_loop
async def test_values_are_not_in_the_errors_that_a_log_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/test.sqlite"
    migrate(parse_url(url))
    database = Database(url)
    statement = text("INSERT INTO signatures (id) VALUES (:value)")

    def write(connection: Connection) -> None:
        connection.execute(statement, {"value": "confidential"})

    async def add() -> None:
        async with database.write() as session:
            await session.execute(statement, {"value": "confidential"})

    for asked in (database.write_soon(write), add()):
        with pytest.raises(IntegrityError) as refused:
            await asked
        assert "confidential" not in str(refused.value)
    await database.close()


@on_a_loop
async def test_a_database_that_hangs_is_told_in_time_and_well_again_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspex_server.db import connections

    from integration.postgres import Postgres

    monkeypatch.setattr(connections, "_SILENCE_S", 0.5)
    server = Postgres()
    try:
        url = server.new_database()
        migrate(parse_url(url))
        database = Database(url)

        async def read() -> int:
            async with database.read() as session:
                return await session.scalar(select(func.count()).select_from(Signature)) or 0

        def write(connection: Connection) -> int:
            return int(connection.execute(text("SELECT 1")).scalar_one())

        assert (await read(), await database.write_soon(write)) == (0, 1)
        server.pause()
        try:
            for asked in (read(), database.write_soon(write)):
                with pytest.raises(DatabaseUnavailableError):
                    async with asyncio.timeout(HANGS_S):
                        await asked
        finally:
            server.resume()
        assert (await read(), await database.write_soon(write)) == (0, 1)
        await database.close()
    finally:
        server.close()


@on_a_loop
async def test_who_waits_for_a_lock_of_somebody_elses_is_told_in_time(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspex_server.db import connections

    monkeypatch.setattr(connections, "_LOCK_TIMEOUT_S", 0.1)
    monkeypatch.setattr(connections, "_STATEMENT_TIMEOUT_S", 0.5)
    url = postgres.new_database()
    migrate(parse_url(url))
    database = Database(url)

    def write(statement: str) -> Callable[[Connection], None]:
        return lambda connection: connection.execute(text(statement)).close()

    with psycopg.connect(url) as other:
        other.execute("LOCK TABLE signatures")
        with pytest.raises(DatabaseUnavailableError, match="lock timeout"):
            await database.write_soon(write("DELETE FROM signatures"))
    with pytest.raises(DatabaseUnavailableError, match="statement timeout"):
        await database.write_soon(write("SELECT pg_sleep(30)"))
    await database.close()


@on_a_loop
async def test_a_locked_sqlite_is_told_and_what_is_read_is_not_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspex_server.db import database as module

    monkeypatch.setattr(module, "_BUSY_TIMEOUT_MS", 50)
    url = f"sqlite:///{tmp_path}/test.sqlite"
    migrate(parse_url(url))
    database = Database(url)
    other = sqlite3.connect(tmp_path / "test.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseUnavailableError, match="locked"):
        async with database.write():
            pass
    async with database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Signature)) == 0
    other.execute("ROLLBACK")
    other.close()
    async with database.write() as session:
        await create_signature(session, "qa", "question -> answer")
    await database.close()
