"""A short history of faults, and the checker that reads it, held to histories that are wrong."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from integration import faults

GOOD = """\
0 before atoms=10 ports=2 processes=5 tables=3 rows=1 in_flight=0
1 call 1
2 fault 0 KILL 1 4711
3 noticed 0
4 answer 1 connection_lost false
5 call 2
6 recovered 0
7 answer 2 ok 2
8 programs ["kept"]
9 after atoms=10 ports=2 processes=5 tables=3 rows=1 in_flight=0
"""


def check(history: str) -> list[str]:
    return faults.check(history.splitlines(), calls=2, faults=1)[0]


def test_a_history_in_which_each_call_has_one_answer_passes() -> None:
    assert check(GOOD) == []


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("7 answer 2 ok 2\n", "", "the call 2 has no answer"),
        ("7 answer 2 ok 2\n", "7 answer 2 ok 2\n7 answer 2 ok 2\n", "has the answers"),
        ("ok 2", "ok 1", "the call 2 has the answer to 1"),
        ("7 answer", "7 stray 2\n7 answer", "something came after the answer to the call 2"),
        ("connection_lost", "timeout", "was answered with timeout"),
        ("6 recovered 0\n", "", "the fault 0 was never recovered from"),
        ("3 noticed", "2000004 noticed", "took 2.00 s to notice"),
        ("kept", "", "the programs are"),
        ("5 call 2\n", "", "1 calls were made, not 2"),
        ("9 after atoms=10", "9 after atoms=11", "atoms: 10 before, 11 after"),
        ("9 after atoms=10 ports=2", "9 after atoms=10 ports=3", "ports: 2 before, 3 after"),
        ("7 answer", "7 answr", "not an event"),
    ],
)
def test_the_checker_finds_what_is_wrong(before: str, after: str, complaint: str) -> None:
    assert before in GOOD
    found = check(
        GOOD.replace(before, after, 1)
        if "after" not in before
        else after.join(GOOD.rsplit(before, 1))
    )
    assert any(complaint in sentence for sentence in found), found


@pytest.mark.timeout(300)
@pytest.mark.parametrize("forked", [False, True], ids=["started", "forked"])
def test_every_call_has_one_answer_while_pythons_are_killed_crashed_and_stopped(
    tmp_path: Path, forked: bool
) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    history = tmp_path / "history"
    faults.run(history, calls=1200, faults=15, workers=2, seed=seed, bound_s=120, forked=forked)
    wrong, figures = faults.check(history.read_text().splitlines(), 1200, 15)
    assert wrong == [], figures
