"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import baseline, report
from .measurement import Result, measure
from .measurements import MEASUREMENTS
from .peers.venv import peers_python
from .workshop import Workshop

__all__ = ["main"]

_ROUNDS = 15
_QUICK_ROUNDS = 2


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.list:
        for measurement in MEASUREMENTS.values():
            print(f"{measurement.name:16} {measurement.title}")
        return 0
    names = options.names or list(MEASUREMENTS)
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    folder = Path(options.output or tempfile.mkdtemp(prefix="dspex-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"{len(names)} measurements of {rounds} rounds, seed {seed}", flush=True)
    results: list[Result] = []
    rng = random.Random(seed)
    peers = None if options.no_peers else peers_python()
    with Workshop(quick=options.quick, peers=peers) as workshop:
        for name in names:
            results.append(measure(MEASUREMENTS[name], workshop, rounds, rng))
            print(report.text(results[-1]), flush=True)
    told = {
        "seed": seed,
        "rounds": rounds,
        "is_quick": options.quick,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "measurements": [result.to_json() for result in results],
    }
    (folder / "bench.json").write_text(json.dumps(told, indent=1, ensure_ascii=False))
    print(f"\nwritten to {folder}")
    if options.write_baseline:
        baseline.write(results)
        print(f"written to {baseline.BASELINE}")
    return _check(results) if options.check else 0


def _check(results: Sequence[Result]) -> int:
    lost = baseline.losses(results, baseline.read())
    for line in lost:
        print(f"LOST {line}", file=sys.stderr)
    print(f"{len(lost)} ratios have lost more than {baseline.MAX_LOSS:.0%} against the baseline")
    return 1 if lost else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "scripts/bench",
        description="Measures what requests, payloads and executes cost, beside a floor in C and"
        " other ways to reach Python, in rounds that take turns. Prints the ratios and writes them"
        " to a folder. See integration/bench/README.md.",
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        type=_name,
        help="the measurements to make (default: all; --list names them)",
    )
    parser.add_argument("--list", action="store_true", help="name the measurements, and end")
    parser.add_argument(
        "--rounds", type=_positive, help=f"of each (default: {_ROUNDS}; {_QUICK_ROUNDS} if quick)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small rounds, which show no more than that all runs"
    )
    parser.add_argument(
        "--no-peers", action="store_true", help="leave out what needs the peers' packages"
    )
    parser.add_argument("--output", metavar="FOLDER", help="default: a new temporary one")
    parser.add_argument("--seed", type=int, help="of the order in a round (default: a new one)")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"exit with 1 where a ratio is worse than baseline.json's by {baseline.MAX_LOSS:.0%}",
    )
    parser.add_argument(
        "--write-baseline", action="store_true", help="put these ratios into baseline.json"
    )
    return parser


def _name(text: str) -> str:
    if text not in MEASUREMENTS:
        raise argparse.ArgumentTypeError(
            f"there is no measurement {text!r}; there are {', '.join(MEASUREMENTS)}"
        )
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("expected a number of 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
