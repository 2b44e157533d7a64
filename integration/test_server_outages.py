"""A server whose database or disk fails for a while; `python -m integration.server_outages` makes
the long outage."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from integration.server_outages import (
    database_down,
    disk_full,
    disk_mounted,
    read_only_start,
    writes_refused,
)
from integration.server_work import batch_under_way

if TYPE_CHECKING:
    from pathlib import Path

    from dspex_bridge.testing.scripted_lm import ScriptedLM

    from integration.postgres import Postgres
    from integration.server_process import Start

AWAY_S = 5.0

# Calls under way may finish for 10 s, and DBOS's threads are waited for as long.
END_S = 60.0

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def mounts(tmp_path: Path) -> None:
    try:
        with disk_mounted(tmp_path / "tried"):
            pass
    except PermissionError as error:
        pytest.skip(f"a small disk cannot be made here: {error}")


def test_a_database_that_is_down_is_told_and_afterwards_all_is_well(
    tmp_path: Path, postgres: Postgres
) -> None:
    found = database_down(tmp_path, postgres, AWAY_S)
    assert found["away_s"] >= AWAY_S


@pytest.mark.usefixtures("mounts")
def test_a_full_disk_is_told_and_afterwards_all_is_well(tmp_path: Path) -> None:
    assert disk_full(tmp_path)["refused"] > 0


def test_a_disk_that_refuses_writes_is_told_and_afterwards_all_is_well(tmp_path: Path) -> None:
    assert writes_refused(tmp_path)["refused"] > 0


@pytest.mark.usefixtures("mounts")
def test_a_server_on_a_read_only_disk_says_so_and_starts_when_it_is_writable(
    tmp_path: Path,
) -> None:
    read_only_start(tmp_path)


def test_a_server_whose_database_is_down_ends_when_it_is_asked_to(
    start_shared: Start, lm: ScriptedLM, postgres: Postgres
) -> None:
    server = start_shared()
    _batch, gate = batch_under_way(server, lm, 4, answered=0)
    postgres.stop("immediate")
    try:
        # Until DBOS has met it too, whose threads then ask again for ever.
        until = time.monotonic() + AWAY_S
        while time.monotonic() < until:
            assert server.http.get("/healthz").status_code == 503
        server.process.terminate()
        server.process.wait(END_S)
    finally:
        gate.opened.set()
        postgres.start_again()
