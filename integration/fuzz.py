"""Malformed frames by the million: nothing crashes, hangs or loses its place.

    python -m integration.fuzz            the short form (seconds), as the tests run it
    python -m integration.fuzz --full     the full one; writes a record (see --record)

The last two phases are about the codecs of Python and Elixir: whether they agree on good frames,
and on which others are refused.

Malformed frames are good ones with damage (integration/damage.py). Each phase prints what it
counted; any violation ends with its seed and the frame that caused it.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from dspex_protocol.codec import EncodeError, decode, encode
from dspex_protocol.connection import Answered, Connection, Ignored, Refused
from dspex_protocol.errors import ParseError
from dspex_protocol.framing import frame
from dspex_protocol.messages import Notification, Request

from integration.agreement import agreement, refusals
from integration.damage import damaged
from integration.phases import Phase, run_phases
from integration.pipe import Pipe

__all__ = ["FULL", "SHORT", "fuzz_connection", "fuzz_decode", "fuzz_pipe", "main"]

# How many frames each phase takes.
SHORT = {
    "decode": 100_000,
    "connection": 50_000,
    "pipe": 20_000,
    "agreement": 10_000,
    "refusals": 10_000,
}
FULL = {
    "decode": 5_000_000,
    "connection": 5_000_000,
    "pipe": 1_000_000,
    "agreement": 1_000_000,
    "refusals": 1_000_000,
}

MAX_HANG_S = 1.0

# Small, so that frames over it are cheap to send.
MAX_FRAME_BYTES = 4096

BATCH = 1000

_QUESTION = {"question": "Where is Paris?"}
_VALUES: list[Any] = [
    None,
    True,
    -(2**31),
    2**63,
    2**70,
    1.5,
    float("nan"),
    "text é🙂",
    b"bytes",
    [1, [2, [3, [4]]]],
    {"a": {"b": [None, {"c": 1}]}},
    datetime(2024, 5, 1, 12, 30, 0, 123456, UTC),
]
_MESSAGES: list[Any] = [
    [0, 1, "ping", {"payload": _VALUES}],
    [0, 2**62, "initialize", {"protocol_version": 1, "client": {"name": "f", "version": "1"}}],
    [0, 3, "configure", {"lms": {"main": {"model": "demo/knn", "temperature": 0.5}}}],
    [0, 4, "create", {"signature": "question -> answer: list[str]", "program": "p"}],
    [0, 5, "execute", {"program": "p", "inputs": _QUESTION, "stream": {"window": 1}}],
    [0, 6, "execute", {"program": {"signature": "a, b: int -> c"}, "inputs": {"a": "x", "b": 1}}],
    [0, 7, "describe", {"program": "p"}],
    [0, 8, "list", {"prefix": ""}],
    [0, 9, "stats", {}],
    [0, 10, "load", {"state": {"format_version": 1, "signature": {}, "module": "predict"}}],
    [1, 5, None, {"result": 1}],
    [1, None, {"code": "parse_error", "message": "m", "retryable": False, "data": {}}, None],
    [2, "cancel", {"id": 5}],
    [2, "grant", {"id": 5, "n": 3}],
]
CORPUS = [encode(message) for message in _MESSAGES]


class ViolationError(Exception):
    """A guarantee that did not hold."""


def mutations(seed: int, count: int) -> Iterator[bytes]:
    """`count` frames' payloads, the same for the same seed."""
    rng = random.Random(seed)
    for _ in range(count):
        yield damaged(rng, rng.choice(CORPUS))


def fuzz_decode(seed: int, count: int) -> dict[str, int]:
    """`decode` gives a value or ParseError, and a value that it gave can be written and read."""
    decoded = 0
    for data in mutations(seed, count):
        try:
            value = decode(data)
        except ParseError:
            continue
        except Exception as error:
            raise ViolationError(f"decode({data.hex()}): {error!r}") from error
        decoded += 1
        try:
            again = decode(encode(value))
        except EncodeError as error:
            # Read up to 1,024 levels, written up to 512: the one thing read and not written.
            if "nested deeper" in str(error):
                continue
            raise ViolationError(f"{data.hex()}: {value!r}: {error}") from error
        if repr(again) != repr(value):
            raise ViolationError(f"{data.hex()}: {value!r} became {again!r}")
    return {"frames": count, "decoded": decoded, "refused": count - decoded}


def fuzz_connection(seed: int, count: int) -> dict[str, int]:
    """One event a frame, of a known kind; a refused frame has exactly one answer queued."""
    connection = Connection(MAX_FRAME_BYTES)
    kinds: dict[str, int] = {}
    for data in mutations(seed, count):
        try:
            events = connection.receive_data(frame(data))
        except Exception as error:
            raise ViolationError(f"receive_data({data.hex()}): {error!r}") from error
        if len(events) != 1:
            raise ViolationError(f"{data.hex()}: {len(events)} events")
        (event,) = events
        kind = type(event).__name__
        kinds[kind] = kinds.get(kind, 0) + 1
        answer = connection.data_to_send()
        if bool(answer) != isinstance(event, Refused):
            raise ViolationError(f"{data.hex()}: {event!r} with an answer of {len(answer)} bytes")
        if isinstance(event, Request):
            connection.send_result(event, None)
            connection.data_to_send()
        elif not isinstance(event, (Refused, Ignored, Notification, Answered)):
            raise ViolationError(f"{data.hex()}: {event!r}")
    return {"frames": count, **dict(sorted(kinds.items()))}


def fuzz_pipe(seed: int, count: int) -> dict[str, int | float]:
    """A real bridge: after each batch a canary is answered in time, and every byte between is
    frames."""
    slowest, answers = 0.0, 0
    with Pipe("--max-frame-bytes", str(MAX_FRAME_BYTES), stderr_to_null=True) as pipe:
        pipe.ask("list")  # DSPy is there: what follows is not the time of its import
        frames = mutations(seed, count)
        for batch in range(0, count, BATCH):
            size = min(BATCH, count - batch)
            burst = b"".join(frame(next(frames)) for _ in range(size))
            canary = 2**61 + batch
            # The answers are read while the burst is written: neither side may wait for the other.
            writer = threading.Thread(
                target=pipe.send_bytes,
                args=(burst + frame(encode([0, canary, "ping", {"payload": batch}])),),
            )
            writer.start()
            started = time.monotonic()
            waited = started
            while True:
                message = pipe.receive()
                now = time.monotonic()
                slowest, waited = max(slowest, now - waited), now
                if message[:2] == [1, canary]:
                    break
                answers += message[0] == 1
            writer.join()
            if message != [1, canary, None, {"payload": batch}]:
                raise ViolationError(f"batch {batch}, seed {seed}: the canary got {message!r}")
            if slowest > MAX_HANG_S:
                raise ViolationError(f"batch {batch}, seed {seed}: silent for {slowest:.2f} s")
        if pipe.process.poll() is not None:
            raise ViolationError(f"seed {seed}: the bridge ended with {pipe.process.returncode}")
    return {"frames": count, "answers": answers, "slowest_ms": round(slowest * 1000, 1)}


_PHASES = {
    "decode": Phase(fuzz_decode, SHORT["decode"], FULL["decode"]),
    "connection": Phase(fuzz_connection, SHORT["connection"], FULL["connection"]),
    "pipe": Phase(fuzz_pipe, SHORT["pipe"], FULL["pipe"]),
    "agreement": Phase(agreement, SHORT["agreement"], FULL["agreement"]),
    "refusals": Phase(refusals, SHORT["refusals"], FULL["refusals"]),
}


def main() -> int:
    return run_phases("integration.fuzz", __doc__, _PHASES)


if __name__ == "__main__":
    sys.exit(main())
