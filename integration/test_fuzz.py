"""The short form of `scripts/fuzz`."""

from __future__ import annotations

import random

import pytest

from integration import fuzz
from integration.agreement import agreement, refusals


@pytest.fixture
def seed() -> int:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")  # shown where the test fails
    return seed


def test_malformed_bytes_are_refused_or_decoded(seed: int) -> None:
    counts = fuzz.fuzz_decode(seed, fuzz.SHORT["decode"])
    assert counts["refused"] > 0
    assert counts["decoded"] > 0


def test_malformed_frames_are_answered_once_and_disturb_nothing(seed: int) -> None:
    kinds = fuzz.fuzz_connection(seed, fuzz.SHORT["connection"])
    assert {"Refused", "Request", "Notification", "Ignored"} <= set(kinds)


def test_a_bridge_stays_in_step_through_malformed_frames(seed: int) -> None:
    counts = fuzz.fuzz_pipe(seed, fuzz.SHORT["pipe"])
    assert counts["answers"] > counts["frames"] / 2


def test_the_codecs_of_python_and_elixir_agree(seed: int) -> None:
    assert agreement(seed, fuzz.SHORT["agreement"])["differences"] == 0


def test_the_codecs_of_python_and_elixir_refuse_the_same(seed: int) -> None:
    counts = refusals(seed, fuzz.SHORT["refusals"])
    assert counts["differences"] == 0
    assert 0 < counts["refused"] < counts["frames"]
