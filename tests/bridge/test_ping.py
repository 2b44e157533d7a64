"""A ping is answered as it is read, and is a request like any other all the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from dspex_bridge.dispatch import Dispatcher
from dspex_bridge.host import Host, Options
from dspex_bridge.loop import serve_once
from dspex_protocol.codec import MAX_DEPTH_WRITTEN, decode, encode
from dspex_protocol.framing import SMALLEST_MAX_FRAME_BYTES, FrameReader, frame


class Bridge:
    """A bridge that serves one read, on this thread."""

    def __init__(self) -> None:
        self._bridge_reads, self._client_writes = os.pipe()
        self._client_reads, self._bridge_writes = os.pipe()
        os.set_blocking(self._bridge_writes, False)
        self.left: list[int] = []
        self.host = Host(self._bridge_writes, Options(), self.left.append)
        self.host.dispatcher = Dispatcher(self.host)

    def asked(self, *requests: tuple[int, str, dict[str, Any]]) -> list[Any]:
        """What is answered to requests that come in one read."""
        wire = b"".join(frame(encode([0, *request])) for request in requests)
        os.write(self._client_writes, wire)
        assert serve_once(self.host, self._bridge_reads)
        frames = FrameReader().feed(os.read(self._client_reads, 65536))
        return [decode(payload) for payload in frames if isinstance(payload, bytes)]

    def close(self) -> None:
        for fd in (self._bridge_reads, self._client_writes):
            os.close(fd)
        for fd in (self._client_reads, self._bridge_writes):
            os.close(fd)


@pytest.fixture
def bridge() -> Iterator[Bridge]:
    bridge = Bridge()
    yield bridge
    bridge.close()


def codes(answers: list[Any]) -> list[tuple[int | None, str | None]]:
    return [(request_id, error and error["code"]) for _, request_id, error, _ in answers]


@pytest.mark.parametrize("own", [{}, {"payload": None}, {"payload": {"a": [1, b"2", 1.5]}}])
@pytest.mark.parametrize("common", [{}, {"timeout_ms": 1000}, {"meta": {"trace": "x"}}])
def test_the_answer_is_the_payload_whatever_else_the_request_carries(
    bridge: Bridge, own: dict[str, Any], common: dict[str, Any]
) -> None:
    assert bridge.asked((7, "ping", {**own, **common})) == [
        [1, 7, None, {"payload": own.get("payload")}]
    ]


def test_pings_are_counted_the_wrong_ones_as_errors(bridge: Bridge) -> None:
    stats = bridge.asked((1, "ping", {}), (2, "ping", {"paylod": 1}), (3, "stats", {}))[2][3]
    counted = stats["requests"]["ping"]
    assert (counted["count"], counted["errors"]) == (2, 1)


def test_a_wrong_parameter_is_refused_by_its_name(bridge: Bridge) -> None:
    ((_, _, error, _),) = bridge.asked((1, "ping", {"paylod": 1}))
    assert error["code"] == "invalid_params"
    assert "'paylod'. Did you mean 'payload'?" in error["message"]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True, "1", 2**63])
def test_a_deadline_that_is_none_is_refused_though_nothing_waits_for_it(
    bridge: Bridge, wrong: object
) -> None:
    ((_, _, error, _),) = bridge.asked((1, "ping", {"timeout_ms": wrong}))
    assert error["code"] == "invalid_params"
    assert "timeout_ms" in error["message"]


@pytest.mark.parametrize("timeout_ms", [1, 2**31, 2**31 + 1, 2**63 - 1, None])
def test_any_deadline_will_do(bridge: Bridge, timeout_ms: int | None) -> None:
    asked = {"payload": 1, "timeout_ms": timeout_ms}
    assert bridge.asked((1, "ping", asked)) == [[1, 1, None, {"payload": 1}]]


def test_a_ping_with_the_id_of_a_request_in_flight_is_refused(bridge: Bridge) -> None:
    # `list` waits for DSPy to be imported.
    answers = bridge.asked((1, "list", {}), (1, "ping", {}), (2, "ping", {}))
    assert codes(answers) == [(None, "invalid_request"), (2, None)]
    assert answers[0][2]["data"] == {"id": 1}
    assert bridge.host.dispatcher.in_flight == 1


def test_a_ping_behind_a_shutdown_is_refused(bridge: Bridge) -> None:
    # What is in flight keeps the bridge.
    # Its timer must not come in later tests, whose files have these numbers by then.
    drain = {"drain_ms": 3_600_000}
    answers = bridge.asked(
        (1, "ping", {}), (2, "list", {}), (3, "shutdown", drain), (4, "ping", {})
    )
    assert codes(answers) == [(1, None), (4, "shutting_down")]
    assert bridge.left == []


def test_a_ping_behind_an_initialize_keeps_to_the_limit_that_was_told(bridge: Bridge) -> None:
    limit = {"protocol_version": 1, "max_frame_bytes": SMALLEST_MAX_FRAME_BYTES}
    large = {"payload": "x" * SMALLEST_MAX_FRAME_BYTES}
    answers = bridge.asked((1, "ping", large), (2, "initialize", limit), (3, "ping", large))
    assert codes(answers) == [(1, None), (2, None), (3, "frame_too_large")]


def test_a_payload_that_is_read_and_cannot_be_sent_is_an_error(bridge: Bridge) -> None:
    # The message and its parameters are the first two levels.
    most = MAX_DEPTH_WRITTEN - 2
    deep: Any = None
    for _ in range(most):
        deep = [deep]
    ((_, _, error, result),) = bridge.asked((1, "ping", {"payload": deep}))
    assert error is None
    assert result == {"payload": deep}
    # One that was written by hand: `encode` writes none this deep.
    wire = b"\x94\0\2\xa4ping\x81\xa7payload" + b"\x91" * (most + 1) + b"\xc0"
    os.write(bridge._client_writes, frame(wire))
    assert serve_once(bridge.host, bridge._bridge_reads)
    (answer,) = FrameReader().feed(os.read(bridge._client_reads, 65536))
    assert isinstance(answer, bytes)
    assert codes([decode(answer)]) == [(2, "internal_error")]
