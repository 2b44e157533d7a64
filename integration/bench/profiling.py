"""Where the bridges of a measurement spend their time: py-spy samples them while it runs.

It looks at the thread that has the interpreter: what waits in the kernel, or for it, is not seen.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from .measurement import Contestant, Measurement
from .processor import below, processor_ns
from .workshop import Workshop

__all__ = ["profile", "summary"]

_SAMPLES_A_SECOND = 500
_SECONDS = 8.0
_SHOWN = 25

# How the processes are known whose time it is.
_BRIDGES = (b"dspex_bridge", b"constant_bridge")


def profile(measurement: Measurement, workshop: Workshop) -> str:
    """Runs the contestants with a bridge for some seconds; the functions that took the most."""
    assert workshop.peers is not None
    raw = workshop.folder / "profile"
    with ExitStack() as stack:
        contestants = measurement.open(workshop, stack)
        for contestant in contestants.values():
            contestant()
        bridges = _bridges()
        # The floor and the peers would be time in which no bridge has anything to do.
        used = {run: _used_ns(bridges, run) for run in contestants.values()}
        own = [run for run, ns in used.items() if ns > max(used.values()) / 4]
        samplers = [
            subprocess.Popen(
                [
                    *(str(workshop.peers.with_name("py-spy")), "record", "--function", "--gil"),
                    *("--rate", str(_SAMPLES_A_SECOND), "--duration", "unlimited"),
                    *("--format", "raw", "--output", f"{raw}-{pid}", "--pid", str(pid)),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for pid in bridges
        ]
        if not samplers:
            return f"{measurement.name} keeps no bridge at work that could be looked at"
        until = time.monotonic() + _SECONDS
        while time.monotonic() < until:
            for run in own:
                run()
        for sampler in samplers:
            sampler.send_signal(signal.SIGINT)
            sampler.wait()
    lines = [line for file in raw.parent.glob("profile-*") for line in _lines(file)]
    return f"{measurement.name}: {measurement.title}\n{summary(lines)}"


def summary(stacks: Iterable[str]) -> str:
    """Of lines `FUNCTION;FUNCTION;... SAMPLES`, the caller first: the share of samples in which a
    function ran itself, and in which it or what it called did."""
    itself: Counter[str] = Counter()
    within: Counter[str] = Counter()
    for line in stacks:
        stack, _, samples = line.rpartition(" ")
        functions = stack.split(";")
        itself[functions[-1]] += int(samples)
        for function in set(functions):
            within[function] += int(samples)
    total = itself.total()
    if not total:
        return "  no samples"
    rows = [
        f"  {own / total:7.1%} {within[name] / total:7.1%}  {name}"
        for name, own in itself.most_common(_SHOWN)
    ]
    return "\n".join([f"  {total} samples", "   itself  within  function", *rows])


def _used_ns(pids: Sequence[int], run: Contestant) -> int:
    before = sum(map(processor_ns, pids))
    run()
    return sum(map(processor_ns, pids)) - before


def _lines(file: Path) -> list[str]:
    return file.read_text().splitlines()


def _bridges() -> list[int]:
    """Bridges under this process, and the guard of each, which has its command and only waits."""
    return [pid for pid in below(os.getpid()) if _is_bridge(pid)]


def _is_bridge(pid: int) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        python = Path(f"/proc/{pid}/exe").resolve().name
    except FileNotFoundError:
        return False
    return python.startswith("python") and any(name in command for name in _BRIDGES)
