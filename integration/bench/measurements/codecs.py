"""The Elixir client's codec beside one that is written the usual way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from integration.bench.beam import Beam
from integration.bench.measurement import Comparison, Contestant, Measurement
from integration.bench.processor import processor_us_a_call
from integration.bench.workshop import Workshop

__all__ = ["CODEC"]

_PAYLOADS = {
    "request": "a small request",
    "nested": "a nested map",
    "floats": "10,000 floats",
    "binary": "a binary of 1 MB",
    "maps": "2,000 maps",
}

# Of a round: some ten milliseconds, long beside what it takes to ask for one.
_REPEATS = {"request": 40_000, "nested": 200, "floats": 60, "binary": 200, "maps": 20}


def _codec(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    beam = stack.enter_context(Beam(workshop, "codec.exs", cpu=workshop.cpu))

    def contestant(work: str, payload: str) -> Contestant:
        is_reference = payload == "binary" and work.endswith("decode")
        number = workshop.count(100_000 if is_reference else _REPEATS[payload])
        line = f"{work} {payload} {number}"
        return lambda: processor_us_a_call((beam.pid,), lambda: beam.ask(line), number)

    return {
        f"{work} {payload}": contestant(work, payload)
        for payload in _PAYLOADS
        for work in ("peer_encode", "encode", "peer_decode", "decode")
    }


def _comparisons() -> tuple[Comparison, ...]:
    bounds = {"encode": 1.5, "decode": 1.0}
    return tuple(
        Comparison(
            f"{work} {title}: times as fast",
            f"{work} {payload}",
            f"peer_{work} {payload}",
            is_rate=True,
            bound=bound,
        )
        for payload, title in _PAYLOADS.items()
        for work, bound in bounds.items()
    )


CODEC = Measurement(
    "codec",
    "the Elixir codec beside a protocol encoder and a decoder by clauses",
    "µs of processor",
    _codec,
    _comparisons(),
    "The peer (elixir_client/bench/peer.ex) is MessagePack as Elixir's libraries have it. It knows"
    " no tensor, decimal, timestamp or big integer, has no limit of depth, and does not ask whether"
    " text is UTF-8. Both write one binary; of the 1 MB binary that leaves copying it.",
)
