"""Both databases, each test with an empty one of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from dspex_server.db.database import parse_url
from dspex_server.db.migrate import migrate

from integration.postgres import Postgres

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/test.sqlite"
    server: Postgres = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture(scope="session")
def templates() -> dict[str, str]:
    """The names of migrated databases, which are copied: that is quicker than a migration."""
    return {}


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path, templates: dict[str, str]) -> str:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/test.sqlite"
        migrate(parse_url(url))
        return url
    server: Postgres = request.getfixturevalue("postgres")
    if "postgresql" not in templates:
        template = server.new_database()
        migrate(parse_url(template))
        templates["postgresql"] = template.rpartition("/")[2]
    return server.new_database(templates["postgresql"])
