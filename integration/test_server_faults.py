"""A short run of the faults; `python -m integration.server_faults` makes long ones."""

from __future__ import annotations

import random

import pytest

from integration.server_faults import run

KILLS = 4


@pytest.mark.timeout(300)
@pytest.mark.parametrize("on_postgres", [False, True], ids=["sqlite", "postgresql"])
def test_nothing_that_was_acknowledged_is_lost_to_sigkill(on_postgres: bool) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    found = run(kills=KILLS, seed=seed, on_postgres=on_postgres)
    assert sum(found["kills"].values()) == KILLS
    assert found["acknowledged"] > 0
