"""All measurements: one entry in this table, and its file, each."""

from __future__ import annotations

from integration.bench.measurement import Measurement

from . import (
    codecs,
    erlport,
    executes,
    from_elixir,
    over_http,
    payloads,
    peers,
    round_trips,
    starts,
)

__all__ = ["MEASUREMENTS"]

MEASUREMENTS: dict[str, Measurement] = {
    measurement.name: measurement
    for measurement in (
        round_trips.PING,
        round_trips.PIPELINED,
        round_trips.NO_OP,
        from_elixir.ELIXIR_PING,
        from_elixir.ELIXIR_PIPELINED,
        from_elixir.ELIXIR_NO_OP,
        from_elixir.CALLS,
        from_elixir.CLIENT_CALLS,
        payloads.PAYLOAD_1,
        payloads.PAYLOAD_16,
        executes.EXECUTE,
        executes.IN_FLIGHT,
        executes.WORKERS,
        executes.PROGRAMS_GROWTH,
        executes.IN_FLIGHT_GROWTH,
        over_http.HTTP,
        from_elixir.STREAM,
        starts.START,
        starts.FURTHER,
        starts.MEMORY,
        codecs.CODEC,
        peers.PEERS,
        peers.PEERS_PIPELINED,
        peers.PEERS_PAYLOAD,
        peers.FASTAPI,
        erlport.ERLPORT,
        erlport.ERLPORT_CALLS,
        erlport.ERLPORT_PAYLOAD_1,
        erlport.ERLPORT_PAYLOAD_16,
    )
}
