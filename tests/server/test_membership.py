"""A server that ends goes on saying that it lives."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from dspex_server import membership
from dspex_server.errors import DatabaseUnavailableError
from dspex_server.membership import Membership

from tests.server.background import on_a_loop


@on_a_loop
async def test_a_beat_that_fails_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(membership, "_BEAT_S", 0.0)
    problems: list[Exception] = [OSError("too many open files"), DatabaseUnavailableError("away")]
    has_beaten = asyncio.Event()

    class Database:
        def write(self) -> Any:
            if problems:
                raise problems.pop(0)
            has_beaten.set()
            raise DatabaseUnavailableError("it is enough")

    others: dict[str, Any] = dict.fromkeys(("workflows", "jobs", "executor", "events"))
    server = Membership(cast("Any", Database()), "me", "server", **others)
    await server.rest()
    await has_beaten.wait()
    await server.leave()
    assert "too many open files" in caplog.text
