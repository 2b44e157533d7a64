"""Connections to PostgreSQL that do not wait for ever: for a lock, a statement, or a server that
hangs, or whose machine is gone without a word."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

import psycopg

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

__all__ = ["KEEPALIVES", "Patient", "PatientAsync", "connect_arguments"]

T = TypeVar("T")

_CONNECT_TIMEOUT_S = 5

# Somebody else's transaction: ours hold locks for milliseconds.
_LOCK_TIMEOUT_S = 10

# One statement: to delete a program with all of its executions is the longest.
_STATEMENT_TIMEOUT_S = 30

# Longer than a statement may take: after it the database does not even say that it took too long.
_SILENCE_S = 35

#: Of an idle connection: a machine that is gone is noticed after half a minute.
KEEPALIVES: Mapping[str, Any] = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def connect_arguments(options: str) -> dict[str, Any]:
    """For the driver. `options` are those that a URL gives already: they win."""
    limits = (
        f"-c lock_timeout={_LOCK_TIMEOUT_S * 1000} "
        f"-c statement_timeout={_STATEMENT_TIMEOUT_S * 1000}"
    )
    return {
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "options": f"{limits} {options}".strip(),
        **KEEPALIVES,
    }


class _SilentError(psycopg.OperationalError):
    pass


class Patient(psycopg.Connection[Any]):
    """Raises psycopg.OperationalError where the database is silent for too long."""

    def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        try:
            return super().wait(_bounded(gen), *args, **kwargs)
        except _SilentError:
            self.pgconn.finish()
            raise


class PatientAsync(psycopg.AsyncConnection[Any]):
    """As `Patient`."""

    async def wait(self, gen: Generator[Any, Any, T], *args: Any, **kwargs: Any) -> T:
        try:
            return await super().wait(_bounded(gen), *args, **kwargs)
        except _SilentError:
            self.pgconn.finish()
            raise


def _bounded(gen: Generator[Any, Any, T]) -> Generator[Any, Any, T]:
    """The driver's exchange with the database. It is sent what the socket is ready for, and nothing
    at short intervals where it is not."""
    heard_at = time.monotonic()
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if ready:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > _SILENCE_S:
                raise _SilentError(f"it has not answered for {_SILENCE_S} s")
            wanted = gen.send(ready)
    except StopIteration as done:
        result: T = done.value
        return result
