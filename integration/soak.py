"""What only shows over many rounds or a long time.

    python -m integration.soak            the short form (seconds), as the tests run it
    python -m integration.soak --full     the full one; writes a record (see --record)

Phases: `orphans` (a client is killed, in every state of its bridge, and nothing stays behind),
`pollution` (a loud process, and no bad frame), `silence` (a client that sends and does not read),
`deafness` (a bridge that stops reading, and what the callers of the Elixir client see of it),
`endurance` (executes of every kind, and memory that stays as it was), `killed_runs` (optimizers
that are killed and begun again from their checkpoint, and pay for nothing twice).
"""

from __future__ import annotations

import json
import os
import random
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dspex_protocol.codec import encode
from dspex_protocol.framing import frame

from integration import lifetime
from integration.agreement import CLIENT, EBIN
from integration.endurance import endurance
from integration.killed_runs import killed_runs
from integration.phases import Phase, run_phases
from integration.pipe import Pipe

__all__ = [
    "FULL",
    "LOUD",
    "SHORT",
    "deafness",
    "endurance",
    "killed_runs",
    "main",
    "orphans",
    "pollution",
    "silence",
]

# Rounds of orphans, requests of pollution, seconds of silence and of deafness, executes, kills.
SHORT = {"orphans": 5, "pollution": 500, "silence": 2, "deafness": 4, "endurance": 1500}
SHORT |= {"killed_runs": 2}
FULL = {"orphans": 200, "pollution": 10_000, "silence": 30, "deafness": 30, "endurance": 100_000}
FULL |= {"killed_runs": 60}

GONE_BOUND_S = 10.0

MAX_GROWTH_BYTES = 64 * 1024 * 1024

# How long a caller waits beyond its deadline, or for a refusal.
MAX_LATE_MS = 100

# A bridge in whose process everything that can print does, all the time.
LOUD = """
import ctypes, os, subprocess, threading
print("a banner at import", flush=True)
os.write(1, b"and one beneath it")
from dspex_bridge import loop

serve = loop.serve

def noise():
    libc = ctypes.CDLL(None)
    while True:
        print("print", flush=True)
        os.write(1, b"os.write")
        libc.puts(b"puts")
        libc.fflush(None)
        subprocess.run(["echo", "child"], check=True)

def loudly(*arguments):
    threading.Thread(target=noise, daemon=True).start()
    serve(*arguments)

loop.serve = loudly
"""
_SERVE = "from dspex_bridge.cli import bridge; bridge([])\n"
# The banner at import comes where a library would print it: after the descriptors are claimed.
LOUD_BRIDGE = (
    "import sys\n"
    "from dspex_bridge import guard\n"
    "start = guard.start\n"
    "def guarded(*fds):\n"
    f"    exec({LOUD!r}, {{}})\n"
    "    return start(*fds)\n"
    "guard.start = guarded\n" + _SERVE
)


def orphans(_seed: int, rounds: int) -> dict[str, Any]:
    """Kills a client `rounds` times, its bridge in each state in turn, one that was started and
    one that was forked; how long each process of its group, and of the fork server's, lived on."""
    times_ms: list[float] = []
    left: list[str] = []
    for number in range(rounds):
        state = lifetime.STATES[number // 2 % len(lifetime.STATES)]
        forked = ["forked"] if number % 2 else []
        client = subprocess.Popen(
            [sys.executable, lifetime.__file__, "client", state, *forked],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert client.stdin is not None
        assert client.stdout is not None
        leaders = [int(pid) for pid in client.stdout.readline().split()]
        alive = [pid for leader in leaders for pid in lifetime.group(leader)]
        client.kill()
        seconds = lifetime.seconds_until_gone(alive, GONE_BOUND_S)
        client.wait()
        client.stdout.close()
        client.stdin.close()
        if seconds is None:
            left.append(f"{state}: {[lifetime.group(leader) for leader in leaders]}")
        else:
            times_ms.append(seconds * 1000)
    times_ms.sort()
    return {
        "rounds": rounds,
        "left": left,
        "p50_ms": round(times_ms[len(times_ms) // 2], 1),
        "p99_ms": round(times_ms[min(len(times_ms) - 1, len(times_ms) * 99 // 100)], 1),
        "max_ms": round(times_ms[-1], 1),
    }


def pollution(_seed: int, requests: int) -> dict[str, Any]:
    """Every byte on stdout is an answer, whatever the process prints. Raises where one is not."""
    with Pipe(command=(sys.executable, "-c", LOUD_BRIDGE), stderr_to_null=True) as pipe:
        for number in range(requests):
            answer = pipe.ask("ping", {"payload": number})
            assert answer == {"payload": number}, answer
    return {"requests": requests, "bad_frames": 0}


def silence(seed: int, seconds: int) -> dict[str, Any]:
    """A client sends as fast as the pipe takes it and reads nothing: the bridge stops taking, does
    not grow, and answers everything that it took once the client reads."""
    rng = random.Random(seed)
    payload = rng.randbytes(4096)
    with Pipe(stderr_to_null=True) as pipe:
        pipe.ask("list")
        before = _memory(pipe.process.pid)
        peak, sent = before, 0
        assert pipe.process.stdin is not None
        fd = pipe.process.stdin.fileno()
        os.set_blocking(fd, False)
        rest = b""
        deadline = time.monotonic() + seconds
        while (remaining := deadline - time.monotonic()) > 0:
            if not rest:
                sent += 1
                rest = frame(encode([0, 1_000_000 + sent, "ping", {"payload": payload}]))
            _, writable, _ = select.select([], [fd], [], min(remaining, 0.2))
            if writable:
                rest = rest[os.write(fd, rest) :]
            else:
                peak = max(peak, _memory(pipe.process.pid))
        os.set_blocking(fd, True)
        if rest:
            # The last request is finished while its answers are read, or neither side could go on.
            import threading

            finisher = threading.Thread(target=pipe.send_bytes, args=(rest,))
            finisher.start()
        for number in range(1, sent + 1):
            assert pipe.response(1_000_000 + number)[3] == {"payload": payload}
        if rest:
            finisher.join()
        peak = max(peak, _memory(pipe.process.pid))
    growth = peak - before
    assert growth < MAX_GROWTH_BYTES, f"the bridge grew by {growth} bytes"
    return {"seconds": seconds, "requests": sent, "growth_mib": round(growth / 2**20, 1)}


def deafness(_seed: int, seconds: int) -> dict[str, Any]:
    """The bridge of an Elixir client is stopped for `seconds`: each caller is answered by its
    deadline or refused at once, the BEAM does not grow, and what waited is done afterwards."""
    bridge = f"{sys.executable} -m dspex_bridge"
    env = {**os.environ, "DSPEX_BRIDGE": bridge, "LC_ALL": "C.UTF-8", "MIX_ENV": "test"}
    # Not in the BEAM that is measured: what compiling leaves free would hide growth.
    subprocess.run(("mix", "compile"), cwd=CLIENT, env=env, check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(
        ["elixir", "-pa", EBIN, "test/support/silence.exs", str(seconds)],
        cwd=CLIENT,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + 120,
        check=True,
    )
    counts: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    growth = counts.pop("growth_bytes")
    assert counts["overloaded"] > 0, "the queue was never full"
    assert counts["timeout"] > 0, "the queue was never less than full"
    assert counts["waited_and_served"] > 0
    assert counts["p99_ms"] <= MAX_LATE_MS, f"callers were answered {counts['p99_ms']} ms late"
    assert growth < MAX_GROWTH_BYTES, f"the BEAM grew by {growth} bytes"
    return {"seconds": seconds, **counts, "growth_mib": round(growth / 2**20, 1)}


def _memory(pid: int) -> int:
    statm = Path(f"/proc/{pid}/statm").read_text().split()
    return int(statm[1]) * os.sysconf("SC_PAGE_SIZE")


_PHASES = {
    "orphans": Phase(orphans, SHORT["orphans"], FULL["orphans"]),
    "pollution": Phase(pollution, SHORT["pollution"], FULL["pollution"]),
    "silence": Phase(silence, SHORT["silence"], FULL["silence"]),
    "deafness": Phase(deafness, SHORT["deafness"], FULL["deafness"]),
    "endurance": Phase(endurance, SHORT["endurance"], FULL["endurance"]),
    "killed_runs": Phase(killed_runs, SHORT["killed_runs"], FULL["killed_runs"]),
}


def main() -> int:
    return run_phases("integration.soak", __doc__, _PHASES)


if __name__ == "__main__":
    sys.exit(main())
