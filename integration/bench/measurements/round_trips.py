"""Small requests on a bridge and on the floor, by the C driver: one at a time, and 256 at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from dspex_protocol.codec import decode

from integration.bench.measurement import Comparison, Contestant, Measurement
from integration.bench.processor import processor_us_a_call
from integration.bench.server import Bridge, Sample, Server, requests
from integration.bench.workshop import Workshop

__all__ = ["NO_OP", "PING", "PIPELINED"]

_WINDOW = 256

_PING = {"payload": "hello"}


def _one_at_a_time(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    number = workshop.count(4000)
    asked = requests("ping", [_PING] * number)
    return _contestants(workshop, stack, asked, window=1, result=_PING)


def _pipelined(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    number = workshop.count(40_000)
    asked = requests("ping", [_PING] * number)
    return _contestants(workshop, stack, asked, window=_WINDOW, result=_PING)


def _no_op(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    number = workshop.count(20_000)
    asked = requests("list", [{}] * number)
    return _contestants(workshop, stack, asked, window=_WINDOW, result={"programs": []})


def _contestants(
    workshop: Workshop, stack: ExitStack, asked: Sequence[bytes], *, window: int, result: Any
) -> Mapping[str, Contestant]:
    messages = workshop.messages(asked)
    floor = stack.enter_context(Server(workshop, [str(workshop.floor)], cpu=workshop.cpu))
    bridge = stack.enter_context(Bridge(workshop, cpu=workshop.cpu))

    def contestant(server: Server, expected: Any) -> Contestant:
        def run() -> Sample:
            return server.run(
                messages, len(asked), window, lambda last: decode(last)[2:] == expected
            )

        # Each takes less than a slice of the scheduler's: what else runs is not in the median.
        if window == 1:
            return lambda: run().p50_ns / 1000
        return lambda: processor_us_a_call(server.pids, run, len(asked))

    # The floor gives the request back: what is behind its id is the method and its parameters.
    return {
        "floor": contestant(floor, decode(asked[-1][4:])[2:]),
        "bridge": contestant(bridge, [None, result]),
    }


_FLOOR = "The floor is floor.c, which gives back the bytes of each request."

_USED = (
    f"A window of {_WINDOW}: whatever room there is in it is filled by one write. What driver and"
    " server use of their one processor, which is the time where nothing else runs there."
)

PING = Measurement(
    "ping",
    "ping, one at a time, on one processor",
    "µs a round trip (median of a round)",
    _one_at_a_time,
    (Comparison("bridge / floor", "bridge", "floor", bound=1.6),),
    f"{_FLOOR} The bridge decodes, validates, counts and encodes. The driver is C on both sides, so"
    " the floor is lower than one asked from Elixir.",
)
_NO_TARGET = (
    "There is no target here: the one of this kind is for a client in Elixir, which takes some of"
    " the time itself (elixir-pipelined, elixir-no-op). This is the bridge with next to nothing"
    " around it."
)

PIPELINED = Measurement(
    "pipelined",
    f"ping, {_WINDOW} at once, on one processor",
    "µs of processor a request",
    _pipelined,
    (Comparison("bridge / floor", "bridge", "floor"),),
    f"{_FLOOR} {_USED} {_NO_TARGET}",
)
NO_OP = Measurement(
    "no-op",
    f"a dispatched request that does nothing, {_WINDOW} at once, on one processor",
    "µs of processor a request",
    _no_op,
    (Comparison("bridge / floor", "bridge", "floor"),),
    f"{_FLOOR} {_USED} The request is `list` where there is no program: it goes to the loop's"
    " thread, in its order among the others, and is on the table of requests in flight, as every"
    f" method but the inline ones. {_NO_TARGET}",
)
