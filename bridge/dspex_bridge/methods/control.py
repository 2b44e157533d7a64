"""The connection itself: initialize, ping, configure, stats, shutdown."""

from __future__ import annotations

import os
import sys
import time

from dspex_protocol.codec import sendable
from dspex_protocol.errors import RequestTimeoutError, UnsupportedVersionError
from dspex_protocol.framing import SMALLEST_MAX_FRAME_BYTES

from dspex_bridge.catalog import ADAPTERS, METRICS, MODULES, OPTIMIZERS, PROTOCOL_VERSION, VERSION
from dspex_bridge.logs import LEVELS
from dspex_bridge.params import anything, integer, mapping, one_of, record
from dspex_bridge.shapes import ADAPTER, EMBEDDERS, LIMITS, LMS, NAME

from .method import Method

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.host import Host

__all__ = [
    "CONFIGURE",
    "DEFAULT_DRAIN_MS",
    "INITIALIZE",
    "PING",
    "PONG_PARAMS",
    "SHUTDOWN",
    "STATS",
    "pong",
]

DEFAULT_DRAIN_MS = 5000

#: Any values will do.
PONG_PARAMS = frozenset({"payload"})


def _initialize(host: Host, call: Call) -> dict[str, Any]:
    from . import METHODS

    params = call.params
    if params["protocol_version"] != PROTOCOL_VERSION:
        raise UnsupportedVersionError(
            f"protocol version {params['protocol_version']} is not spoken here; "
            f"supported: {PROTOCOL_VERSION}",
            data={"supported": [PROTOCOL_VERSION]},
        )
    if params.get("max_frame_bytes") is not None:
        host.connection.peer_max_frame_bytes = params["max_frame_bytes"]
    if params.get("log_level") is not None:
        host.log.forward(
            params["log_level"],
            lambda *event: _emit_log(host, *event),
            lambda: host.outflow.is_full,
        )
    return {
        "protocol_version": PROTOCOL_VERSION,
        "ready": host.engine is not None,
        "server": {
            "name": "dspex",
            "version": VERSION,
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
        },
        "limits": {
            "max_frame_bytes": host.connection.max_frame_bytes,
            "max_in_flight": host.max_in_flight,
        },
        "methods": list(METHODS),
        "modules": list(MODULES),
        "optimizers": list(OPTIMIZERS),
        "metrics": list(METRICS),
        "adapters": list(ADAPTERS),
    }


def _emit_log(host: Host, level: str, logger: str, message: str, request: int | None) -> None:
    # Cut rather than refused, and never raising: whoever logs may be the reader. A character has
    # at most 4 bytes, and there are two texts.
    room = host.connection.peer_max_frame_bytes // 10
    event: dict[str, Any] = {
        "level": level,
        "logger": sendable(logger[:room]),
        "message": sendable(message[:room]),
    }
    if request is not None:
        event["request"] = request
    host.tell_log(event)


def pong(params: dict[str, Any]) -> dict[str, Any]:
    """The result of a ping."""
    return {"payload": params.get("payload")}


def _ping(_host: Host, call: Call) -> dict[str, Any]:
    return pong(call.params)


def _configure(host: Host, call: Call) -> dict[str, Any]:
    return host.require_engine().configure(call.params)


def _stats(host: Host, _call: Call) -> dict[str, Any]:
    return {
        "uptime_ms": round((time.monotonic() - host.started) * 1000, 3),
        "requests": host.stats.to_wire(),
        "in_flight": host.dispatcher.in_flight,
        "queued": host.dispatcher.queued,
        "programs": 0 if host.programs is None else len(host.programs),
        "lms": {} if host.engine is None else host.engine.lm_stats(),
        "memory_bytes": host.memory_bytes(),
        "stuck": host.dispatcher.stuck,
    }


def _shutdown(host: Host, call: Call) -> None:
    drain_ms = call.params.get("drain_ms")
    drain_ms = DEFAULT_DRAIN_MS if drain_ms is None else drain_ms
    timeout_ms = call.request.params.get("timeout_ms")

    def finish(counts: dict[str, int]) -> None:
        if timeout_ms is not None and call.elapsed_ms >= timeout_ms:
            late = RequestTimeoutError(f"not all was done within {timeout_ms} ms")
            host.connection.send_error(call.request, late)
        else:
            host.connection.send_result(call.request, counts)
        host.leave()

    # There is no way back from a shutdown: its deadline ends the wait, and so the process.
    if timeout_ms is not None:
        drain_ms = min(drain_ms, timeout_ms)
    host.dispatcher.shut_down(drain_ms, finish, call.request)


INITIALIZE = Method(
    "initialize",
    _initialize,
    record(
        {"protocol_version": integer()},
        {
            "client": mapping,
            "max_frame_bytes": integer(SMALLEST_MAX_FRAME_BYTES),
            "log_level": one_of(*LEVELS),
        },
    ),
    is_inline=True,
)
PING = Method(
    "ping",
    _ping,
    record(optional=dict.fromkeys(PONG_PARAMS, anything)),
    is_inline=True,
)
CONFIGURE = Method(
    "configure",
    _configure,
    record(
        optional={
            "lms": LMS,
            "default_lm": NAME,
            "adapter": ADAPTER,
            "embedders": EMBEDDERS,
            "limits": LIMITS,
        }
    ),
)
STATS = Method("stats", _stats, record(), is_inline=True)
SHUTDOWN = Method("shutdown", _shutdown, record(optional={"drain_ms": integer(0)}), is_inline=True)
