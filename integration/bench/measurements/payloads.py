"""Large binaries there and back, on a bridge and on the floor, with pipes of the same size."""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial

from integration.bench.measurement import Comparison, Contestant, Measurement
from integration.bench.processor import processor_us_a_call
from integration.bench.server import Bridge, Server, requests
from integration.bench.workshop import Workshop

__all__ = ["PAYLOAD_1", "PAYLOAD_16"]

_MB = 1_000_000


def _there_and_back(
    megabytes: int, number: int, workshop: Workshop, stack: ExitStack
) -> Mapping[str, Contestant]:
    number = workshop.count(number)
    payload = random.Random(1).randbytes(megabytes * _MB)
    (asked,) = requests("ping", [{"payload": payload}])
    messages = workshop.messages([asked])
    floor = stack.enter_context(Server(workshop, [str(workshop.floor)], cpu=workshop.cpu))
    bridge = stack.enter_context(Bridge(workshop, cpu=workshop.cpu))
    # What is in front of the payload in an answer, and where it begins there.
    start = payload[:64]

    def contestant(server: Server) -> Contestant:
        return lambda: processor_us_a_call(
            server.pids,
            lambda: server.run(messages, number, 1, lambda last: start in last[:128]),
            number,
        )

    return {"floor": contestant(floor), "bridge": contestant(bridge)}


def _measurement(megabytes: int, number: int) -> Measurement:
    return Measurement(
        f"payload-{megabytes}",
        f"{megabytes} MB of bytes, both ways, one at a time, on one processor",
        "µs of processor a round trip",
        partial(_there_and_back, megabytes, number),
        (Comparison("rate to the floor's", "bridge", "floor", is_rate=True, bound=0.5),),
        "A ping with a binary payload. The pipes of both have 1 MiB. The floor waits for a whole"
        " frame, as everybody has to who decodes it, and copies nothing; the bridge decodes and"
        " encodes. What driver and server use of their one processor, which is a round trip's time"
        " where nothing else runs there.",
    )


PAYLOAD_1 = _measurement(1, 100)
PAYLOAD_16 = _measurement(16, 20)
