"""Executes of a Predict whose LM costs nothing, beside the same Predict in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from dspex_protocol.codec import decode

from integration.bench.constant_lm import SIGNATURE
from integration.bench.lines import Lines
from integration.bench.measurement import Comparison, Contestant, Measurement
from integration.bench.processor import processor_us_a_call
from integration.bench.server import CONSTANT_BRIDGE, Bridge, requests
from integration.bench.workshop import Workshop

__all__ = ["EXECUTE", "IN_FLIGHT", "IN_FLIGHT_GROWTH", "PROGRAMS_GROWTH", "WORKERS"]

BARE_DSPY = (sys.executable, "-m", "integration.bench.bare_dspy")

_IN_FLIGHT = 1000
_LM_MS = 200

# The growth is told of: one, and so many.
_MANY = 10_000


def execute_bridge(
    workshop: Workshop, *options: str, cpu: int | None = None, env: Mapping[str, str] | None = None
) -> Bridge:
    """With the LM that costs nothing and the program `qa`."""
    bridge = Bridge(workshop, *options, command=CONSTANT_BRIDGE, cpu=cpu, env=env)
    bridge.ask_for("configure", {"lms": {"main": {"model": "demo/knn"}}})
    bridge.ask_for("create", {"signature": SIGNATURE, "program": "qa"})
    return bridge


def executes(number: int) -> list[bytes]:
    return requests(
        "execute",
        # Of one length: so are their answers.
        [{"program": "qa", "inputs": {"question": f"{at:09}?"}} for at in range(number)],
    )


def is_paris(answer: bytes) -> bool:
    _, _, error, result = decode(answer)
    return error is None and bool(result["outputs"] == {"answer": "Paris"})


def processor_time(workshop: Workshop, bridge: Bridge, number: int, window: int) -> Contestant:
    messages = workshop.messages(executes(number))
    return lambda: processor_us_a_call(
        (bridge.pid,), lambda: bridge.run(messages, number, window, is_paris), number
    )


def _execute(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    number = workshop.count(200)
    bridge = stack.enter_context(execute_bridge(workshop, cpu=workshop.cpu))
    bare = stack.enter_context(Lines(workshop, BARE_DSPY, cpu=workshop.cpu))

    def in_process(how: str) -> Contestant:
        return lambda: processor_us_a_call((bare.pid,), lambda: bare.ask(f"{how} {number}"), number)

    return {
        "Predict": in_process("one"),
        "Predict, default settings": in_process("default"),
        "bridge": processor_time(workshop, bridge, number, 1),
        "bridge, 16 at once": processor_time(workshop, bridge, number, 16),
    }


def _in_flight(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    number = workshop.count(_IN_FLIGHT)
    slow = {"DSPEX_BENCH_LM_MS": str(_LM_MS)}
    bridge = stack.enter_context(execute_bridge(workshop, env=slow))
    bare = stack.enter_context(Lines(workshop, BARE_DSPY, env=slow))
    messages = workshop.messages(executes(number))
    return {
        "Predict": lambda: float(bare.ask(f"together {number}")) * number / 1e6,
        "bridge": lambda: bridge.run(messages, number, number, is_paris).ns / 1e9,
    }


def _workers(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    number = workshop.count(300)
    cpus = sorted(os.sched_getaffinity(0))
    one, other = (
        stack.enter_context(execute_bridge(workshop, cpu=cpu)) for cpu in (cpus[0], cpus[-1])
    )
    messages = workshop.messages(executes(number))

    def alone() -> float:
        return one.run(messages, number, number, is_paris).ns / number / 1000

    def both() -> float:
        for bridge in (one, other):
            bridge.start(messages, number, number)
        slower = max(bridge.finish(is_paris).ns for bridge in (one, other))
        return slower / (2 * number) / 1000

    return {"one worker": alone, "two workers": both}


def _programs_growth(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    number, many = workshop.count(200), workshop.count(_MANY)
    few = stack.enter_context(execute_bridge(workshop, cpu=workshop.cpu))
    full = stack.enter_context(execute_bridge(workshop, cpu=workshop.cpu))
    creates: list[dict[str, Any]] = [
        {"signature": SIGNATURE, "program": f"other-{at:09}"} for at in range(many - 1)
    ]
    full.run(workshop.messages(requests("create", creates)), len(creates), 64)
    return {
        "1 program": processor_time(workshop, few, number, 1),
        "10,000 programs": processor_time(workshop, full, number, 1),
    }


def _in_flight_growth(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    number, many = workshop.count(500), workshop.count(_MANY)
    bridge = stack.enter_context(
        execute_bridge(workshop, "--max-in-flight", str(2 * _MANY), cpu=workshop.cpu)
    )
    return {
        "1 at once": processor_time(workshop, bridge, number, 1),
        "10,000 at once": processor_time(workshop, bridge, many, many),
    }


_LM = "The LM (constant_lm.py) has the same answer to everything, at once. No cache."

EXECUTE = Measurement(
    "execute",
    "execute of a Predict with an LM that costs nothing, one at a time, on one processor",
    "µs of processor a call",
    _execute,
    (
        Comparison("bridge / Predict", "bridge", "Predict", bound=1.3),
        Comparison(
            "bridge / Predict, default settings", "bridge", "Predict, default settings", bound=1.0
        ),
        Comparison(
            "bridge, 16 at once / Predict, default settings",
            "bridge, 16 at once",
            "Predict, default settings",
        ),
    ),
    f"{_LM} The bridge converts and validates inputs and outputs, counts, and answers over the"
    " pipe. `Predict` is awaited in a process that has only DSPy, under the bridge's settings"
    " (ChatAdapter, no history, usage tracked); with default settings it is called, not awaited,"
    " as in DSPy's tutorials. Processor time of the process, without that of the driver. An awaited"
    " Predict goes to a thread and back twice a call, one that is called stays on its thread and"
    " never waits: that is why it is the cheaper one. The bridge does not go to threads, and waits"
    " for each next request: where the machine is busy others have the processor's caches then, and"
    " the same work takes half as long again or more, which a loop in process does not meet. With"
    " 16 at once it waits a sixteenth as often.",
)
IN_FLIGHT = Measurement(
    "in-flight",
    f"{_IN_FLIGHT} executes at once, with an LM that takes {_LM_MS} ms, on one worker",
    "s for all",
    _in_flight,
    (
        Comparison("bridge / Predict", "bridge", "Predict"),
        Comparison("all done", "bridge", bound=0.7, unit="s"),
    ),
    "As `execute`, but for the LM's 200 ms; the Predicts are gathered in a process of their own."
    " Nothing is bound to a processor.",
    rounds_share=0.5,
)
WORKERS = Measurement(
    "workers",
    "executes on two bridges, each on a processor of its own, beside one bridge",
    "µs an execute",
    _workers,
    (Comparison("rate of two to one", "two workers", "one worker", is_rate=True, bound=1.8),),
    f"{_LM} All requests of a round are sent at once, and each bridge has a driver beside it on its"
    " processor. Whatever else runs on the machine takes more from two than from one.",
    rounds_share=0.5,
)
PROGRAMS_GROWTH = Measurement(
    "programs",
    "execute of one program among 10,000, beside one alone, on one processor",
    "µs of processor a call",
    _programs_growth,
    (Comparison("10,000 / 1", "10,000 programs", "1 program", bound=1.3),),
    _LM,
)
IN_FLIGHT_GROWTH = Measurement(
    "many-in-flight",
    "10,000 executes sent at once, beside one at a time, on one processor",
    "µs of processor a call",
    _in_flight_growth,
    (Comparison("10,000 / 1", "10,000 at once", "1 at once", bound=1.3),),
    f"{_LM} 10,000 are sent before the first is waited for; how many of them are at work at the"
    " same time is the bridge's affair.",
    rounds_share=0.34,
)
