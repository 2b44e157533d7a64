"""The short forms of `scripts/soak`, but for the orphans: test_lifetime has each state of those."""

from __future__ import annotations

import random

import pytest

from integration import soak


@pytest.fixture
def seed() -> int:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    return seed


def test_nothing_that_is_printed_reaches_the_wire(seed: int) -> None:
    assert soak.pollution(seed, soak.SHORT["pollution"])["bad_frames"] == 0


def test_a_client_that_does_not_read_holds_up_nothing_and_loses_nothing(seed: int) -> None:
    assert soak.silence(seed, soak.SHORT["silence"])["requests"] > 0


def test_an_elixir_caller_is_answered_in_time_by_a_bridge_that_does_not_read(seed: int) -> None:
    assert soak.deafness(seed, soak.SHORT["deafness"])["overloaded"] > 0


def test_many_executes_of_every_kind_leave_memory_as_it_was(seed: int) -> None:
    counts = soak.endurance(seed, soak.SHORT["endurance"])
    assert counts["errors"] > 0
