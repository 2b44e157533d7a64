"""Calls from Elixir: by a bare port, by the public client, and by a plain GenServer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack

from integration.bench.beam import Beam, server_commands
from integration.bench.measurement import Comparison, Contestant, Measurement
from integration.bench.processor import busier_us_a_call
from integration.bench.workshop import Workshop

__all__ = [
    "CALLS",
    "CLIENT_CALLS",
    "ELIXIR_NO_OP",
    "ELIXIR_PING",
    "ELIXIR_PIPELINED",
    "STREAM",
    "busier",
    "timed",
]


def busier(beam: Beam, how: str, server: str, number: int) -> Contestant:
    """What the side uses that uses more, in microseconds of processor a call."""
    line = f"{how} {server} {number}"
    beam.ask(line)  # which starts the server
    return lambda: busier_us_a_call(beam.pid, lambda: beam.ask(line), number)


def timed(beam: Beam, how: str, server: str, number: int) -> Contestant:
    """Microseconds a call, as calls.exs tells them."""
    return lambda: float(beam.ask(f"{how} {server} {number}"))


def _one_at_a_time(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    beam = stack.enter_context(
        Beam(workshop, "calls.exs", env=server_commands(workshop), cpu=workshop.cpu)
    )
    number = workshop.count(3000)
    return {
        "floor": timed(beam, "raw_one", "floor", number),
        "bridge": timed(beam, "raw_one", "bridge", number),
        "client": timed(beam, "client_one", "bridge", number),
        "client, on the answerer": timed(beam, "client_one", "answerer", number),
    }


def _beside(workshop: Workshop, stack: ExitStack) -> Beam:
    """The BEAM on one processor and its servers on another."""
    cpus = sorted(os.sched_getaffinity(0))
    return stack.enter_context(
        Beam(workshop, "calls.exs", env=server_commands(workshop, cpus[0]), cpu=cpus[-1])
    )


def _pipelined(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    beam, number = _beside(workshop, stack), workshop.count(40_000)
    return {
        "floor": busier(beam, "raw_many", "floor", number),
        "bridge": busier(beam, "raw_many", "bridge", number),
    }


def _no_op(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    beam, number = _beside(workshop, stack), workshop.count(20_000)
    return {
        "floor": busier(beam, "raw_no_op", "floor", number),
        "bridge": busier(beam, "raw_no_op", "bridge", number),
    }


def _calls(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    beam = stack.enter_context(Beam(workshop, "calls.exs", env=server_commands(workshop)))
    number = workshop.count(50_000)
    return {
        "router": timed(beam, "router_many", "bridge", number),
        "client": timed(beam, "client_many", "bridge", number),
    }


def _client_calls(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    beam, number = _beside(workshop, stack), max(256, workshop.count(25_600))
    return {
        "router": busier(beam, "router_many", "answerer", number),
        "client": busier(beam, "client_many", "answerer", number),
    }


_TWO = (
    "The BEAM has one scheduler, bound to one processor, and the server is on another. Frames are"
    " encoded beforehand; each is a port command of its own, and half a window follows when half of"
    " one has been answered. What counts is the processor time of the side that uses more: the time"
    " that it takes where nothing else runs and neither side waits for the other."
)

ELIXIR_PING = Measurement(
    "elixir-ping",
    "ping from Elixir, one at a time, all on one processor",
    "µs a round trip (median of a round)",
    _one_at_a_time,
    (
        Comparison("bridge / floor", "bridge", "floor", bound=1.6),
        Comparison("client / floor", "client", "floor", bound=2.2),
        Comparison("client alone / floor", "client, on the answerer", "floor"),
    ),
    "A bare port to floor.c and to a bridge: one process sends a frame that was encoded before, and"
    " does not decode the answer. The public client (`DSPex.ping/2`) encodes, routes, decodes and"
    " holds a deadline; beside a bridge, and beside answerer.c, which answers as one does.",
)
ELIXIR_PIPELINED = Measurement(
    "elixir-pipelined",
    "ping from Elixir by a bare port, 256 at once, on two processors",
    "µs of processor a request",
    _pipelined,
    (Comparison("rate to the floor's", "bridge", "floor", is_rate=True, bound=0.7),),
    _TWO,
)
ELIXIR_NO_OP = Measurement(
    "elixir-no-op",
    "a dispatched request from Elixir by a bare port, 256 at once, on two processors",
    "µs of processor a request",
    _no_op,
    (Comparison("rate to the floor's", "bridge", "floor", is_rate=True, bound=0.35),),
    f"{_TWO} The request is `list`, of no program.",
)

_PLAIN = (
    "256 processes, each with one call under way. The plain GenServer (router.ex) gives ids and"
    " routes answers, its callers encode and decode with a codec written the usual way; it restarts"
    " nothing, bounds nothing, and has no deadlines, cancelling, streams, callbacks or journal."
)

CALLS = Measurement(
    "calls",
    "whole calls (ping) from 256 Elixir processes to one bridge",
    "µs a call",
    _calls,
    (
        Comparison("rate to the plain GenServer's", "client", "router", is_rate=True, bound=1.5),
        Comparison("the client's rate", "client", is_rate=True, unit="calls/s", scale=1e6),
    ),
    _PLAIN,
)
CLIENT_CALLS = Measurement(
    "client-calls",
    "whole calls (ping) from 256 Elixir processes to the answerer, which is no bridge",
    "µs of processor a call",
    _client_calls,
    (Comparison("rate to the plain GenServer's", "client", "router", is_rate=True, bound=1.5),),
    f"{_PLAIN} The answerer (answerer.c) costs next to nothing, so this is the client alone: what"
    " the BEAM, with one scheduler, uses of its processor.",
)


def _stream(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    words = workshop.count(20_000)
    env = {**server_commands(workshop), "DSPEX_BENCH_LM_WORDS": str(words)}
    beam = stack.enter_context(Beam(workshop, "calls.exs", env=env))
    return {
        "floor": timed(beam, "raw_many", "floor", words),
        "chunk": timed(beam, "stream", "constant", words),
    }


STREAM = Measurement(
    "stream",
    "chunks of one streamed execute from one bridge to one Elixir process",
    "µs a chunk",
    _stream,
    (
        Comparison("chunks", "chunk", is_rate=True, bound=100_000.0, unit="a second", scale=1e6),
        Comparison("chunk / frame of the floor", "chunk", "floor"),
    ),
    "`DSPex.stream!/4` with credit for all chunks, so that each word is one. The LM"
    " (constant_lm.py) has each word ready at once, DSPy checks it, and the bridge cuts the field"
    " out of the answer, and sends it while more comes. The floor gives a frame back for each that"
    " is sent to it, 256 at once, by a bare port.",
    rounds_share=0.67,
)
