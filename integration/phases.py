"""The command line of what runs in phases, short or long: fuzzing and soaking."""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["Phase", "run_phases"]


class Phase(NamedTuple):
    """`run(seed, count)` gives what it counted, and raises where a guarantee did not hold."""

    run: Callable[[int, int], dict[str, Any]]
    short: int
    full: int


def run_phases(prog: str, description: str | None, phases: Mapping[str, Phase]) -> int:
    """Runs the phases that the command line names, prints their counts and writes the record."""
    parser = argparse.ArgumentParser(
        prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the long form")
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, printed")
    parser.add_argument("--phase", choices=phases, action="append", help="default: all")
    parser.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="write each phase's counts as JSON when it ends, beside those of others",
    )
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(2**32) if options.seed is None else options.seed
    sys.stdout.write(f"seed {seed}\n")
    commit = _commit()
    for name in options.phase or phases:
        phase = phases[name]
        started = time.monotonic()
        counts = phase.run(seed, phase.full if options.full else phase.short)
        took_s = round(time.monotonic() - started, 1)
        sys.stdout.write(f"{name}: {json.dumps(counts)} in {took_s} s\n")
        sys.stdout.flush()
        if options.record is not None:
            done = {"commit": commit, "seed": seed, **counts, "took_s": took_s}
            _write(options.record, name, done)
    return 0


def _write(path: Path, phase: str, done: Mapping[str, Any]) -> None:
    record = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**record, phase: done}, indent=2) + "\n")


def _commit() -> str:
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
    return done.stdout.strip()
