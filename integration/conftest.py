"""What the tests of servers are given: a scripted LM, servers in a folder of the test's own, and a
PostgreSQL for those that share one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dspex_bridge.testing.scripted_lm import ScriptedLM

from integration.postgres import Postgres
from integration.server_process import ServerProcess, Start, write_lms
from integration.server_work import solve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def lm() -> Iterator[ScriptedLM]:
    scripted = ScriptedLM()
    scripted.always(solve)
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def module_lm() -> Iterator[ScriptedLM]:
    """For a server that all tests of a file share; each says what it answers."""
    scripted = ScriptedLM()
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def module_server(
    module_lm: ScriptedLM, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("server")
    lms = write_lms(folder, {"main": module_lm.lm})
    server = ServerProcess("--data-dir", str(folder), "--lms", str(lms), "--bridges", "1")
    yield server
    assert server.close() == 0, server.output


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


@pytest.fixture
def start(tmp_path: Path, lm: ScriptedLM) -> Iterator[Start]:
    """Starts a server in one folder, again and again."""
    yield from _starting(tmp_path, lm)


@pytest.fixture
def shared_url(postgres: Postgres) -> str:
    """Of the database that `start_shared` gives to all of its servers."""
    return postgres.new_database()


@pytest.fixture
def start_shared(tmp_path: Path, lm: ScriptedLM, shared_url: str) -> Iterator[Start]:
    """Starts servers and workers on one database of a PostgreSQL."""
    yield from _starting(tmp_path, lm, "--database-url", shared_url)


def _starting(folder: Path, lm: ScriptedLM, *always: str) -> Iterator[Start]:
    # A test holds its answers back while another server starts, which may take a busy machine long.
    lms = write_lms(folder, {"main": {**lm.lm, "timeout_ms": 60_000}})
    always = ("--data-dir", str(folder / "data"), "--lms", str(lms), "--bridges", "1", *always)
    started: list[ServerProcess] = []

    def begin(*arguments: str, command: str = "serve") -> ServerProcess:
        server = ServerProcess(*always, *arguments, command=command)
        started.append(server)
        return server

    yield begin
    for server in started:
        server.close()
