"""Many runs of the Elixir tests are as good as the worst of them; `mix` is played."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from integration.elixir_runs import repeat

PASSED = "2 doctests, 9 tests, 0 failures, 4 excluded"


def play(folder: Path, monkeypatch: pytest.MonkeyPatch, *runs: tuple[str, int]) -> None:
    """A `mix` that says of each run what is given, and notes its arguments."""
    cases = "".join(
        f"{number}) echo '{said}'; exit {status};;\n"
        for number, (said, status) in enumerate(runs, 1)
    )
    mix = folder / "mix"
    mix.write_text(
        f'#!/bin/sh\necho "$@" >>{folder}/runs\ncase $(wc -l <{folder}/runs) in\n{cases}esac\n'
    )
    mix.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_runs_that_pass_are_counted_each_with_a_seed_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(tmp_path, monkeypatch, (PASSED, 0), (PASSED, 0), (PASSED, 0))
    counts = repeat("test.fast")(7, 3)
    assert (counts["runs"], counts["tests_each"], counts["failed"]) == (3, 5, 0)
    assert len(set(counts["seeds"])) == 3
    said = [f"test.fast --seed {seed}" for seed in counts["seeds"]]
    assert (tmp_path / "runs").read_text().splitlines() == said


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ("9 tests, 1 failure", 2),
        ("9 tests, 1 failure", 0),
        (PASSED, 1),
        ("** (Mix) it does not compile", 0),
    ],
)
def test_a_run_that_fails_is_told_with_its_seed_and_the_others_are_still_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    said: str,
    status: int,
) -> None:
    play(tmp_path, monkeypatch, (PASSED, 0), (said, status), (PASSED, 0))
    with pytest.raises(AssertionError, match=r"test\.all failed with the seeds \[\d+\]") as failed:
        repeat("test.all")(7, 3)
    [seed] = re.findall(r"\[(\d+)\]", str(failed.value))
    printed = capsys.readouterr().out
    assert f"test.all 2/3, seed {seed}: failed" in printed
    assert said in printed
    assert "test.all 3/3" in printed


def test_runs_of_different_numbers_of_tests_are_no_runs_of_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(tmp_path, monkeypatch, (PASSED, 0), ("8 tests, 0 failures, 4 excluded", 0))
    with pytest.raises(AssertionError, match="now more, now fewer tests"):
        repeat("test.all")(7, 2)
