"""The command line of the benchmark."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from . import baseline, report
from .lines import WrongAnswerError
from .measurement import Measurement, NotMeasuredError, Result, measure
from .measurements import MEASUREMENTS
from .peers.erlport import ERLPORT_NEEDED, erlport_ebin, is_erlport
from .peers.venv import peers_python
from .profiling import profile
from .run import Run
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
    if options.profile:
        with _workshop(options, peers_python()) as workshop:
            try:
                print(profile(MEASUREMENTS[options.profile], workshop))
            except NotMeasuredError as why:
                raise SystemExit(f"bench: {why}") from None
        return 0
    names = options.names or list(MEASUREMENTS)
    rounds = options.rounds or (_QUICK_ROUNDS if options.quick else _ROUNDS)
    folder = Path(options.output or tempfile.mkdtemp(prefix="dspex-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"{len(names)} measurements of {rounds} rounds, seed {seed}", flush=True)
    run = Run(seed=seed, rounds=rounds, is_quick=options.quick)
    rng = random.Random(seed)
    peers = None if options.no_peers else peers_python()
    with _workshop(options, peers) as workshop:
        for name in names:
            result = _measured(MEASUREMENTS[name], workshop, rounds, rng)
            if result is None:
                run.failed.append(name)
            else:
                run.results.append(result)
                print(report.text(result), flush=True)
            # After each, as the whole takes long.
            run.write(folder)
    print(f"\nwritten to {folder}: bench.json, index.html")
    if options.write_baseline:
        baseline.write(run.results)
        print(f"written to {baseline.BASELINE}")
    if run.failed:
        print(f"failed: {', '.join(run.failed)}", file=sys.stderr)
    lost = _check(run.results) if options.check else 0
    return 1 if lost or run.failed else 0


def _workshop(options: argparse.Namespace, peers: Path | None) -> Workshop:
    erlport = None if options.erlport is None else erlport_ebin(options.erlport)
    return Workshop(quick=options.quick, peers=peers, erlport=erlport)


def _measured(
    measurement: Measurement, workshop: Workshop, rounds: int, rng: random.Random
) -> Result | None:
    """None where it failed, which is printed: the others are made all the same."""
    try:
        return measure(measurement, workshop, rounds, rng)
    except (WrongAnswerError, OSError, subprocess.SubprocessError) as error:
        print(f"\n{measurement.name} FAILED: {error}", file=sys.stderr, flush=True)
        return None


def _check(results: Sequence[Result]) -> int:
    lost = baseline.losses(results, baseline.read())
    for line in lost:
        print(f"LOST {line}", file=sys.stderr)
    print(f"{len(lost)} ratios have lost more than {baseline.MAX_LOSS:.0%} against the baseline")
    if left_out := [result.measurement.name for result in results if result.left_out]:
        print(f"left out of the run, and so not checked: {', '.join(left_out)}")
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
    parser.add_argument(
        "--erlport",
        metavar="DIR",
        type=_erlport,
        help="a checkout of erlport's repository, to measure it too (its package is for Python 2)",
    )
    parser.add_argument(
        "--profile",
        metavar="NAME",
        type=_name,
        help="sample the bridge in this measurement, and print which functions take the time",
    )
    parser.add_argument("--output", metavar="FOLDER", help="default: a new temporary one")
    parser.add_argument("--seed", type=int, help="of the order in a round (default: a new one)")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"exit with 1 where a ratio is worse than baseline.json's by {baseline.MAX_LOSS:.0%}%",
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


def _erlport(text: str) -> Path:
    checkout = Path(text).absolute()
    if not is_erlport(checkout):
        raise argparse.ArgumentTypeError(
            f"{text} is no checkout of erlport's repository, which has src/python.erl and"
            f" priv/python3/erlport/erlang.py; {ERLPORT_NEEDED}"
        )
    return checkout


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError("expected a number of 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
