"""The Elixir client's codec beside one that is written the usual way."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from integration.bench.beam import Beam
from integration.bench.measurement import Comparison, Contestant, Measurement
from integration.bench.workshop import Workshop

__all__ = ["CODEC"]

_PAYLOADS = {
    "request": "a small request",
    "nested": "a nested map",
    "floats": "10,000 floats",
    "binary": "a binary of 1 MB",
    "maps": "2,000 maps",
}


def _codec(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    beam = stack.enter_context(Beam(workshop, "codec.exs"))

    def contestant(line: str) -> Contestant:
        return lambda: float(beam.ask(line))

    return {
        f"{work} {payload}": contestant(f"{work} {payload}")
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
    "µs (the best of a few samples)",
    _codec,
    _comparisons(),
    "The peer (elixir_client/bench/peer.ex) is MessagePack as Elixir's libraries have it. It knows"
    " no tensor, decimal, timestamp or big integer, has no limit of depth, and does not ask whether"
    " text is UTF-8. Both write one binary; of the 1 MB binary that leaves copying it.",
)
