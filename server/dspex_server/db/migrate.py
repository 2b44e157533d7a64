"""Brings a database to the schema of this version, at every start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import DBAPIError

from .database import unavailable

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection

__all__ = ["migrate"]

# Others migrate for no longer than this.
_BUSY_TIMEOUT_MS = 30_000

# Any number will do, if it is the same for all: servers that start at once take turns.
_LOCK = 0x6473706578


def migrate(url: URL) -> None:
    """Blocks. Raises RuntimeError where the database is of a newer version than this, and
    DatabaseUnavailableError."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    is_sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(url.set(drivername="sqlite") if is_sqlite else url)
    if is_sqlite:
        event.listen(engine, "connect", _open_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    try:
        with engine.begin() as connection:
            if not is_sqlite:
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except CommandError as error:
        raise RuntimeError(
            f"the database is not one of this version of dspex ({error}): update dspex"
        ) from error
    except DBAPIError as error:
        raise unavailable(url, error.orig or error, writes=False) from error
    finally:
        engine.dispose()


def _open_sqlite(connection: Any, _record: object) -> None:
    # The driver would not begin a transaction for statements that define tables.
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT_MS}")
    # It stays so, and nobody who comes later has to wait for a lock to change it.
    connection.execute("PRAGMA journal_mode = WAL")


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
