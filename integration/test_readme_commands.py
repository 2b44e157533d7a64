"""The README's commands that evaluate and optimize print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
SECTION = README.partition("### A better program by examples\n")[2].partition("\n## ")[0]
ROW = re.compile(
    r"^\| `(\w+ --param .*)` \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \| (0\.\d+) \|$", re.M
)
ROWS = ROW.findall(SECTION)
TIMEOUT_S = 110


def blocks() -> list[str]:
    """What is typed, and what is printed."""
    found = re.findall(r"^```(?:sh)?\n(.*?)^```$", SECTION, re.M | re.S)
    assert len(found) == 2
    return found


def typed(folder: Path, commands: str) -> str:
    """What a shell prints on stdout, without durations."""
    path = folder / "bin"
    path.mkdir()
    # Of this checkout, whichever one is installed.
    (path / "dspex").write_text(
        f'#!/bin/sh\nexec {sys.executable} -P -c "from dspex_bridge.cli import main; main()" "$@"\n'
    )
    (path / "dspex").chmod(0o755)
    done = subprocess.run(
        ["bash", "-e", "-c", commands],
        cwd=folder,
        env={**os.environ, "PATH": f"{path}{os.pathsep}{os.environ['PATH']}"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return without_durations(done.stdout)


def without_durations(text: str) -> str:
    return re.sub(r", \d+\.\d s\)", ")", text)


def test_the_commands_print_what_the_readme_shows(tmp_path: Path) -> None:
    commands, shown = blocks()
    assert typed(tmp_path, commands) == without_durations(shown)
    assert (tmp_path / "report.html").stat().st_size > 0


def test_the_table_names_each_optimizer_that_works_by_demonstrations() -> None:
    assert [parameters.split()[0] for parameters, *_ in ROWS] == [
        "labeled_few_shot",
        "bootstrap_few_shot_random_search",
        "bootstrap_few_shot_optuna",
        "knn_few_shot",
        "mipro_v2",
        "variables",
    ]
    assert SECTION.count("\n| `") == len(ROWS) + 1  # and the head


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0].split()[0])
def test_an_optimizer_has_the_scores_of_its_row(tmp_path: Path, row: tuple[str, ...]) -> None:
    parameters, *scores = row
    commands = blocks()[0]
    assert commands.count("labeled_few_shot --param k=160") == 1
    printed = typed(tmp_path, commands.replace("labeled_few_shot --param k=160", parameters))
    chosen = re.findall(r"^score on 75 examples +(\S+) +(\S+)$", printed, re.M)
    held_out = re.findall(r"^score: (\S+) on 120 examples$", printed, re.M)
    assert [*chosen[0], *held_out] == scores
