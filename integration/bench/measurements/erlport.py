"""The same calls from Elixir by erlport, where the bench has a checkout of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from integration.bench.beam import Beam, server_commands
from integration.bench.measurement import (
    Comparison,
    Contestant,
    Measurement,
    NotMeasuredError,
)
from integration.bench.peers.erlport import ERLPORT_NEEDED, erlport_commands
from integration.bench.processor import below, processor_us_a_call
from integration.bench.workshop import Workshop

from .from_elixir import busier, timed

__all__ = ["ERLPORT", "ERLPORT_CALLS", "ERLPORT_PAYLOAD_1", "ERLPORT_PAYLOAD_16"]

_WINDOW = 256
_MB = 1_000_000


def _beam(workshop: Workshop, stack: ExitStack, *, cpu: int, servers: int) -> Beam:
    if workshop.erlport is None:
        raise NotMeasuredError(ERLPORT_NEEDED)
    env = {**server_commands(workshop, servers), **erlport_commands(workshop, servers)}
    return stack.enter_context(Beam(workshop, "calls.exs", env=env, cpu=cpu))


def _one_at_a_time(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    beam = _beam(workshop, stack, cpu=workshop.cpu, servers=workshop.cpu)
    number = workshop.count(3000)
    return {
        "floor": timed(beam, "raw_one", "floor", number),
        "bridge": timed(beam, "raw_one", "bridge", number),
        "client": timed(beam, "client_one", "bridge", number),
        "erlport": timed(beam, "erlport_one", "erlport", number),
    }


def _calls(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    cpus = sorted(os.sched_getaffinity(0))
    beam = _beam(workshop, stack, cpu=cpus[-1], servers=cpus[0])
    number = max(_WINDOW, workshop.count(25_600))
    return {
        "client": busier(beam, "client_many", "bridge", number),
        "erlport": busier(beam, "erlport_many", "erlport", number),
    }


def _there_and_back(
    megabytes: int, number: int, workshop: Workshop, stack: ExitStack
) -> Mapping[str, Contestant]:
    beam = _beam(workshop, stack, cpu=workshop.cpu, servers=workshop.cpu)
    number = workshop.count(number)

    def contestant(how: str, server: str) -> Contestant:
        line = f"{how} {server} {number} {megabytes * _MB}"
        beam.ask(line)  # which starts the server
        return lambda: processor_us_a_call(
            (beam.pid, *below(beam.pid)), lambda: beam.ask(line), number
        )

    return {
        "client": contestant("client_one", "bridge"),
        "erlport": contestant("erlport_one", "erlport_large"),
    }


def _faster(bound: float = 1.0) -> Comparison:
    return Comparison("times as fast as erlport", "client", "erlport", is_rate=True, bound=bound)


_WHAT = (
    "`DSPex.ping/2` with a payload, on a bridge, and erlport's `python:call/4` of a Python function"
    " that gives back its argument; each answer is compared with what was sent. erlport is of its"
    " repository, on the bridge's own Python; with Erlang's term format in place of MessagePack. It"
    " has no deadline here (its default), no limits, cancelling, streams, telemetry or restart, and"
    " its GenServer encodes and decodes for all callers. So that Python 3.11 imports it at all,"
    " `inspect.getargspec` is put back (peers/erlport_python/sitecustomize.py), which none of these"
    " calls comes to."
)


def _payload(megabytes: int, number: int, share: float) -> Measurement:
    return Measurement(
        f"erlport-payload-{megabytes}",
        f"{megabytes} MB of bytes from Elixir and back, by the public client and by erlport, on one"
        " processor",
        "µs of processor a round trip",
        partial(_there_and_back, megabytes, number),
        (
            _faster(),
            Comparison(
                "erlport", "erlport", is_rate=True, unit="MB/s of processor", scale=1e6 * megabytes
            ),
        ),
        f"{_WHAT} What the BEAM and its servers use of their one processor. erlport's reads and"
        " pipes have 1 MiB, as the bridge's, which makes it faster than its defaults do: 1.5 times"
        " with 1 MB, 4 times with 16 MB.",
        rounds_share=share,
    )


ERLPORT = Measurement(
    "erlport",
    "a call from Elixir, one at a time, by the public client and by erlport, on one processor",
    "µs a call (median of a round)",
    _one_at_a_time,
    (
        _faster(2.0),
        Comparison("a bare port to the bridge: times", "bridge", "erlport", is_rate=True),
        Comparison("a bare port to the floor: times", "floor", "erlport", is_rate=True),
    ),
    f"{_WHAT} Beside both are a bridge and floor.c on a bare port, whose process sends a frame"
    " that was encoded before and does not decode the answer: no client can be faster than on the"
    " floor.",
)
ERLPORT_CALLS = Measurement(
    "erlport-calls",
    "calls from 256 Elixir processes, by the public client and by erlport, on two processors",
    "µs of processor a call",
    _calls,
    (
        _faster(),
        Comparison("erlport's rate", "erlport", is_rate=True, unit="calls/s", scale=1e6),
        Comparison("the client's rate", "client", is_rate=True, unit="calls/s", scale=1e6),
    ),
    f"{_WHAT} The BEAM has one scheduler, bound to one processor, and Python is on another; what"
    " counts is the processor time of the side that uses more.",
)
ERLPORT_PAYLOAD_1 = _payload(1, 100, 1.0)
ERLPORT_PAYLOAD_16 = _payload(16, 5, 0.67)
