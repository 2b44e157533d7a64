"""How long a bridge takes to its first answers, and what a further one costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import FrameReader, Oversized, frame

from integration.bench.constant_lm import SIGNATURE
from integration.bench.lines import WrongAnswerError
from integration.bench.measurement import Comparison, Contestant, Measurement
from integration.bench.server import BRIDGE, Bridge, requests
from integration.bench.workshop import Workshop
from integration.pipe import Connected, Forked, Pipe

__all__ = ["FURTHER", "MEMORY", "START"]

_CALLS = 20

# What is asked of a fork server at once; all but the first find nothing that was forked ahead.
_AT_ONCE = 8

# Between what a fork server was asked for before and what is measured: by then the bridge that it
# forks ahead is there.
_REST_S = 0.1

_READ = 65536


def _answered(asked: Sequence[bytes], command: Sequence[str] = BRIDGE) -> float:
    """Milliseconds from the start of a bridge, which is asked at once, to its last answer."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process, process.stdin as stdin, process.stdout as stdout:
        stdin.write(b"".join(asked))
        stdin.flush()
        reader, answers = FrameReader(), 0
        while answers < len(asked):
            data = os.read(stdout.fileno(), _READ)
            if not data:
                raise WrongAnswerError("the bridge ended before it had answered")
            for item in reader.feed(data):
                assert not isinstance(item, Oversized)
                message = decode(item)
                if message[0] == 1 and message[2] is not None:
                    raise WrongAnswerError(repr(message))
                answers += message[0] == 1
        took = time.perf_counter() - began
        process.kill()
    return took * 1000


def _python(code: str) -> Contestant:
    def cost() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=_env())
        return (time.perf_counter() - began) * 1000

    return cost


def _env() -> dict[str, str]:
    return {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def _start(_workshop: Workshop, _stack: ExitStack) -> Mapping[str, Contestant]:
    greeting = {"protocol_version": 1, "client": {"name": "bench", "version": "1"}}
    first = [frame(encode([0, 1, "initialize", greeting]))]
    execute = [
        *first,
        frame(encode([0, 2, "configure", {"lms": {"main": {"model": "demo/knn"}}}])),
        frame(encode([0, 3, "create", {"signature": SIGNATURE, "program": "qa"}])),
        frame(encode([0, 4, "execute", {"program": "qa", "inputs": {"question": "Why?"}}])),
    ]
    return {
        "python -c pass": _python("pass"),
        "import dspy": _python("import dspy"),
        "first answer": lambda: _answered(first),
        "first execute": lambda: _answered(execute),
    }


def _further(_workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    (no_op,) = requests("list", [{}])
    server = _fork_server(stack)

    def forked() -> float:
        time.sleep(_REST_S)
        began = time.perf_counter()
        with Forked(server) as bridge:
            bridge.ask("list")
            took = time.perf_counter() - began
        _wait_for_ends(server, 1)
        return took * 1000

    def several() -> float:
        time.sleep(_REST_S)
        began = time.perf_counter()
        with ExitStack() as connections:
            asked = [server.request("fork") for _ in range(_AT_ONCE)]
            lists = []
            for number in asked:
                _, _, error, answer = server.response(number)
                if error is not None:
                    raise WrongAnswerError(repr(error))
                bridge = connections.enter_context(Connected(answer))
                lists.append((bridge, bridge.request("list")))
            for bridge, number in lists:
                _, _, error, _ = bridge.response(number)
                if error is not None:
                    raise WrongAnswerError(repr(error))
            took = time.perf_counter() - began
        _wait_for_ends(server, _AT_ONCE)
        return took * 1000 / _AT_ONCE

    return {
        "started": lambda: _answered([no_op]),
        "forked": forked,
        f"{_AT_ONCE} at once": several,
    }


def _memory(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    def own_mb(ask: Callable[[str, Mapping[str, Any]], object], pid: int) -> float:
        ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        ask("create", {"signature": SIGNATURE, "program": "qa", "replace": True})
        for _ in range(_CALLS):
            ask("execute", {"program": "qa", "inputs": {"question": "Why?"}})
        return _private_mb(pid)

    stack.enter_context(Bridge(workshop))
    server = _fork_server(stack)

    def started() -> float:
        with Bridge(workshop) as further:
            return own_mb(further.ask_for, further.pid)

    def forked() -> float:
        with Forked(server) as further:
            own = own_mb(further.ask, further.pid)
        _wait_for_ends(server, 1)
        return own

    return {"started": started, "forked": forked}


def _fork_server(stack: ExitStack) -> Pipe:
    server = stack.enter_context(Pipe("--fork-server", stderr_to_null=True))
    server.ask("ping")
    return server


def _wait_for_ends(server: Pipe, count: int) -> None:
    """Until the bridges whose connections were closed have ended: they are not to cost the next."""
    while len(server.notifications) < count:
        server.notifications.append(server.receive())
    server.notifications.clear()


def _private_mb(pid: int) -> float:
    """Of its memory what no other process shares."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith("Private_")) / 1000


START = Measurement(
    "start",
    "from the start of a bridge to its first answer and to its first execute",
    "ms",
    _start,
    (
        Comparison("first answer", "first answer", bound=40.0, unit="ms"),
        Comparison("first answer / python -c pass", "first answer", "python -c pass"),
        Comparison("first execute / import dspy", "first execute", "import dspy", bound=1.2),
    ),
    "All requests are written at the start. The first answer is that to `initialize`. `import"
    ' dspy` is `python -c "import dspy"`, which ends then; the bridge has also configured an LM'
    " (`demo/knn`), made a program and run it.",
    rounds_share=0.67,
)
FURTHER = Measurement(
    "further-worker",
    "a further worker beside one that runs: until it answers a dispatched request",
    "ms",
    _further,
    (
        Comparison("ready", "forked", bound=5.0, unit="ms"),
        Comparison(f"each of {_AT_ONCE} at once", f"{_AT_ONCE} at once", unit="ms"),
        Comparison("started by its command", "started", unit="ms"),
    ),
    f"Forked by a fork server, from the request for it, {_REST_S * 1000:g} ms after it had another:"
    f" the one that it keeps forked ahead is there. Of {_AT_ONCE} that are asked for at once it is"
    " only the first; each one's share of the time until all have answered. Or started by its"
    " command.",
    rounds_share=0.34,
)
MEMORY = Measurement(
    "worker-memory",
    f"the memory that a further worker has to itself after {_CALLS} executes",
    "MB",
    _memory,
    (
        Comparison("its own", "forked", bound=12.0, unit="MB"),
        Comparison("started by its command", "started", unit="MB"),
    ),
    "Private pages of /proc/PID/smaps_rollup, of the process of the bridge alone: not of its guard,"
    " nor of the one more bridge that a fork server keeps forked ahead.",
    rounds_share=0.2,
)
