"""The same work by other ways to reach Python."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from dspex_protocol.codec import encode

from integration.bench.lines import Lines
from integration.bench.measurement import (
    Comparison,
    Contestant,
    Measurement,
    NotMeasuredError,
)
from integration.bench.processor import processor_us_a_call
from integration.bench.server import Bridge, Server, requests
from integration.bench.workshop import Workshop

from .executes import execute_bridge, executes, is_paris

__all__ = ["FASTAPI", "PEERS", "PEERS_PAYLOAD", "PEERS_PIPELINED"]

_ROOT = Path(__file__).parents[3]
_WINDOW = 256
_HELLO = "hello"
_MB = 1_000_000
_LEFT_OUT = "the peers were left out (--no-peers)"

# Of five bytes in MessagePack, and of five digits: all answers have one length.
_FIRST_ID = 0x10000


def _peer(workshop: Workshop, module: str) -> list[str]:
    return [str(workshop.peers), "-m", f"integration.bench.peers.{module}"]


def _env() -> dict[str, str]:
    return {"PYTHONPATH": str(_ROOT), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}


def _serve(workshop: Workshop, stack: ExitStack, module: str, framing: str) -> Server:
    return stack.enter_context(
        Server(workshop, _peer(workshop, module), framing=framing, cpu=workshop.cpu, env=_env())
    )


def _port(workshop: Workshop, stack: ExitStack, module: str) -> tuple[Lines, str]:
    """A server that prints where it listens."""
    server = Lines(workshop, _peer(workshop, module), env=_env(), cpu=workshop.cpu)
    stack.callback(server.kill)
    return server, server.hear()


def _contestant(
    server: Server, messages: Path, number: int, window: int, check: Callable[[bytes], bool]
) -> Contestant:
    return lambda: processor_us_a_call(
        server.pids, lambda: server.run(messages, number, window, check), number
    )


def _lines(answers: Sequence[Mapping[str, Any]]) -> list[bytes]:
    return [json.dumps(answer, separators=(",", ":")).encode() + b"\n" for answer in answers]


def _mcp(workshop: Workshop, stack: ExitStack) -> Server:
    server = _serve(workshop, stack, "mcp_stdio", "line")
    hello = {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "bench", "version": "1"},
    }
    initialize, initialized = _lines(
        [
            {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
        ]
    )
    # The notification, which has no answer, goes with the first ping.
    (ping,) = _lines([{"jsonrpc": "2.0", "id": 2, "method": "ping"}])
    for message in (initialize, initialized + ping):
        server.run(workshop.messages([message]), 1, check=lambda last: b'"result"' in last)
    return server


def _asked(
    workshop: Workshop, stack: ExitStack, *, number: int, window: int, payload: Any, text: str
) -> dict[str, Contestant]:
    """The bridge and the peers that echo: `payload` as MessagePack, `text` as JSON."""
    ids = range(_FIRST_ID, _FIRST_ID + number)
    with_payload: list[dict[str, Any]] = [{"payload": payload}] * number
    bridge = stack.enter_context(Bridge(workshop, cpu=workshop.cpu))
    contestants = {
        "bridge": _contestant(
            bridge,
            workshop.messages(requests("ping", with_payload)),
            number,
            window,
            lambda last: last[:3] == b"\x94\x01\xce",
        ),
        "JSON lines": _contestant(
            _serve(workshop, stack, "json_lines", "line"),
            workshop.messages(_lines([{"id": at, "params": {"payload": text}} for at in ids])),
            number,
            window,
            lambda last: b'"result"' in last,
        ),
        "pynvim": _contestant(
            _serve(workshop, stack, "pynvim_stdio", "fixed"),
            workshop.messages([encode([0, at, "ping", [payload]]) for at in ids]),
            number,
            window,
            lambda last: last[:3] == b"\x94\x01\xce" and last[7:8] == b"\xc0",
        ),
    }
    server, port = _port(workshop, stack, "grpc_server")
    client = stack.enter_context(
        Lines(workshop, [*_peer(workshop, "grpc_client"), port], env=_env(), cpu=workshop.cpu)
    )
    size = len(payload)
    contestants["gRPC"] = lambda: processor_us_a_call(
        (server.pid, client.pid), lambda: client.ask(f"{number} {window} {size}"), number
    )
    return contestants


def _echoes(
    full: int, window: int, workshop: Workshop, stack: ExitStack
) -> Mapping[str, Contestant]:
    if workshop.peers is None:
        raise NotMeasuredError(_LEFT_OUT)
    number = max(window, workshop.count(full))
    mcp = _mcp(workshop, stack)
    ids = range(_FIRST_ID, _FIRST_ID + number)
    pings = workshop.messages(
        _lines([{"jsonrpc": "2.0", "id": at, "method": "ping"} for at in ids])
    )
    return {
        **_asked(workshop, stack, number=number, window=window, payload=_HELLO, text=_HELLO),
        "MCP": _contestant(mcp, pings, number, window, lambda last: b'"result":{}' in last),
    }


def _payload(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    if workshop.peers is None:
        raise NotMeasuredError(_LEFT_OUT)
    payload = random.Random(1).randbytes(_MB)
    text = base64.b64encode(payload).decode()
    return _asked(workshop, stack, number=workshop.count(20), window=1, payload=payload, text=text)


def _fastapi(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    if workshop.peers is None:
        raise NotMeasuredError(_LEFT_OUT)
    number = workshop.count(200)
    server, port = _port(workshop, stack, "fastapi_predict")
    http = stack.enter_context(Server(workshop, [f"tcp:{port}"], framing="fixed", cpu=workshop.cpu))
    bridge = stack.enter_context(execute_bridge(workshop, cpu=workshop.cpu))
    posts = workshop.messages([_post(at) for at in range(number)])
    asked = workshop.messages(executes(number))

    def answered(last: bytes) -> bool:
        return last.startswith(b"HTTP/1.1 200") and last.endswith(b'{"answer":"Paris"}')

    return {
        "FastAPI": lambda: processor_us_a_call(
            (server.pid,), lambda: http.run(posts, number, 1, answered), number
        ),
        "bridge": lambda: processor_us_a_call(
            (bridge.pid,), lambda: bridge.run(asked, number, 1, is_paris), number
        ),
    }


def _post(at: int) -> bytes:
    (body,) = _lines([{"question": f"{at:09}?"}])
    return (
        b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    )


def _faster(name: str, bound: float = 1.0) -> Comparison:
    return Comparison(f"times as fast as {name}", "bridge", name, is_rate=True, bound=bound)


_WHAT = (
    "What client and server use of their one processor, which is a round trip's time where nothing"
    " else runs there: of those that hop between threads others would take more than of the rest."
    " The client's end is driver.c for all but gRPC, whose own client in Python is part of what is"
    " measured. JSON lines: asyncio with a task a request; no validation, limits or deadlines. MCP:"
    " the SDK's stdio server and its `ping`, which carries no payload. pynvim: its MessagePack-RPC"
    " session, which gives the payload back. gRPC: a unary method of the asyncio server, bytes"
    " without protobuf. erlport, which Elixir alone can call, is measured from there (`erlport`)."
)

PEERS = Measurement(
    "peers",
    "ping of the bridge and of its peers, one at a time, on one processor",
    "µs of processor a round trip",
    lambda workshop, stack: _echoes(500, 1, workshop, stack),
    (_faster("JSON lines"), _faster("MCP"), _faster("pynvim"), _faster("gRPC", 10.0)),
    _WHAT,
)
PEERS_PIPELINED = Measurement(
    "peers-pipelined",
    f"ping of the bridge and of its peers, {_WINDOW} at once, on one processor",
    "µs of processor a request",
    lambda workshop, stack: _echoes(2000, _WINDOW, workshop, stack),
    (_faster("JSON lines"), _faster("MCP"), _faster("pynvim"), _faster("gRPC")),
    _WHAT,
)
PEERS_PAYLOAD = Measurement(
    "peers-payload",
    "1 MB of bytes, both ways, by the bridge and by its peers, on one processor",
    "µs of processor a round trip",
    _payload,
    (_faster("JSON lines"), _faster("pynvim"), _faster("gRPC")),
    f"{_WHAT} JSON carries the bytes as base64, and neither encodes nor decodes that here. MCP"
    " takes no part: its `ping` has no payload.",
)
FASTAPI = Measurement(
    "fastapi",
    "execute of a Predict with an LM that costs nothing, by the bridge and behind FastAPI",
    "µs of processor a call",
    _fastapi,
    (_faster("FastAPI"),),
    "FastAPI on uvicorn, one connection that is kept, the same Predict under the same settings"
    " without usage in its answer; it validates the question by Pydantic. Processor time of the"
    " server.",
)
