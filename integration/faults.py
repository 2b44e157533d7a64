"""Calls to one pool of the Elixir client while its Pythons are killed, crashed and stopped, and the
check of what came of it.

    python -m integration.faults [--calls 100000] [--faults 1000] [--workers 4] [--forked]
                                 [--record FILE]

`elixir_client/test/support/faults.exs` makes the calls and the faults and writes a history, one
line an event; with `--forked` its Pythons are forked, and their fork server is killed and stopped,
too. `check` reads it when all is over, knows nothing of the client, and finds: a call
that has no answer or two, an answer to another call, a message that came after the answer, an
error that says something else than what happened, a fault that was noticed too late, a program
that is gone, and atoms, ports, processes or rows of tables that are left.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

__all__ = ["check", "main", "run"]

CLIENT = Path(__file__).resolve().parent.parent / "elixir_client"
EBIN = "_build/test/lib/dspex/ebin"

# What a caller may be told of a fault. Anything else is a defect of the client.
ALLOWED = {"ok", "connection_lost", "start_failed"}

# From a fault until its Python is given up; what comes then is Python's own start.
NOTICED_WITHIN_S = 2.0

# Counted before and after, and never more after.
LEAKS = ("atoms", "ports", "processes", "tables", "rows", "in_flight")


def check(lines: Iterable[str], calls: int, faults: int) -> tuple[list[str], dict[str, object]]:
    """What is wrong with a history, as sentences, and its figures."""
    made: set[int] = set()
    answers: dict[int, list[str]] = {}
    begun: dict[int, int] = {}
    noticed: dict[int, int] = {}
    recovered: dict[int, int] = {}
    kinds: Counter[str] = Counter()
    counts: dict[str, dict[str, int]] = {}
    programs = ""
    wrong: list[str] = []

    for line in lines:
        at_text, what, *rest = line.split()
        at = int(at_text)
        match what, rest:
            case "call", [number]:
                if int(number) in made:
                    wrong.append(f"the call {number} was made twice")
                made.add(int(number))
            case "answer", [number, kind, detail]:
                answers.setdefault(int(number), []).append(kind)
                if kind not in ALLOWED:
                    wrong.append(f"the call {number} was answered with {kind}")
                if kind == "ok" and detail != number:
                    wrong.append(f"the call {number} has the answer to {detail}")
            case "stray", [number]:
                wrong.append(f"something came after the answer to the call {number}")
            case "fault", [number, kind, _worker, _pid]:
                begun[int(number)] = at
                kinds[kind] += 1
            case "noticed", [number]:
                noticed[int(number)] = at
            case "recovered", [number]:
                recovered[int(number)] = at
            case "programs", _:
                programs = " ".join(rest)
            case (("before" | "after"), _):
                counts[what] = {key: int(n) for key, n in (pair.split("=") for pair in rest)}
            case _:
                wrong.append(f"not an event: {line.strip()}")

    if len(made) != calls:
        wrong.append(f"{len(made)} calls were made, not {calls}")
    wrong += [f"the call {call} has no answer" for call in sorted(made - answers.keys())]
    wrong += [
        f"the call {call} has the answers {given}"
        for call, given in answers.items()
        if len(given) != 1 or call not in made
    ]
    if len(begun) != faults:
        wrong.append(f"{len(begun)} faults were made, not {faults}")
    for fault, at in begun.items():
        if fault not in recovered:
            wrong.append(f"the fault {fault} was never recovered from")
        elif (seconds := (noticed[fault] - at) / 1e6) > NOTICED_WITHIN_S:
            wrong.append(f"the fault {fault} took {seconds:.2f} s to notice")
    if programs != '["kept"]':
        wrong.append(f"the programs are {programs}")
    for what in LEAKS:
        before, after = (counts.get(when, {}).get(what) for when in ("before", "after"))
        if before is None or after is None or after > before:
            wrong.append(f"{what}: {before} before, {after} after")

    times = sorted((noticed[n] - begun[n]) / 1e3 for n in begun.keys() & noticed.keys())
    starts = sorted((recovered[n] - noticed[n]) / 1e3 for n in noticed.keys() & recovered.keys())
    figures: dict[str, object] = {
        "calls": len(made),
        "answers": dict(Counter(kind for given in answers.values() for kind in given)),
        "faults": dict(kinds),
        "noticed_ms": _spread(times),
        "python_start_ms": _spread(starts),
        "before": counts.get("before"),
        "after": counts.get("after"),
    }
    return wrong, figures


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {}
    at = {"p50": 50, "p99": 99, "max": 100}
    return {
        k: round(values[min(len(values) - 1, len(values) * p // 100)], 1) for k, p in at.items()
    }


def run(
    history: Path,
    *,
    calls: int,
    faults: int,
    workers: int,
    seed: int,
    bound_s: float,
    forked: bool = False,
) -> None:
    """Makes the history."""
    bridge = os.environ.get("DSPEX_BRIDGE") or f"{sys.executable} -m dspex_bridge"
    env = {**os.environ, "DSPEX_BRIDGE": bridge, "LC_ALL": "C.UTF-8", "MIX_ENV": "test"}
    subprocess.run(("mix", "compile"), cwd=CLIENT, env=env, check=True, stdout=subprocess.DEVNULL)
    script = ("elixir", "-pa", EBIN, "test/support/faults.exs")
    arguments = [str(calls), str(faults), str(workers), str(history), str(seed)]
    arguments += ["forked"] if forked else []
    subprocess.run(
        (*script, *arguments),
        cwd=CLIENT,
        env=env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=bound_s,
        check=True,
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m integration.faults")
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--faults", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--forked", action="store_true", help="the Pythons are forked")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--bound-s", type=float, default=7200)
    parser.add_argument("--record", type=Path)
    parser.add_argument("--history", type=Path, help="keep the history here")
    options = parser.parse_args(argv)
    print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory() as folder:
        history = options.history or Path(folder) / "history"
        started = time.monotonic()
        run(
            history,
            calls=options.calls,
            faults=options.faults,
            workers=options.workers,
            seed=options.seed,
            bound_s=options.bound_s,
            forked=options.forked,
        )
        seconds = round(time.monotonic() - started, 1)
        with history.open() as lines:
            wrong, figures = check(lines, options.calls, options.faults)
    record = {"seed": options.seed, "workers": options.workers, "seconds": seconds, **figures}
    print(json.dumps({**record, "wrong": wrong[:20]}, indent=2))
    if options.record and not wrong:
        options.record.write_text(json.dumps(record, indent=2) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
