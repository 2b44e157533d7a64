"""`unhealthy`: once for each cause, and the bridge goes on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from dspex_bridge.health import Health, memory_bytes
from dspex_bridge.host import Host, Options

from integration.pipe import Pipe

STUBBORN = (sys.executable, str(Path(__file__).with_name("stubborn_bridge.py")))


def told(pipe: Pipe) -> dict[str, Any]:
    """The first `unhealthy`."""
    while (message := pipe.receive())[:2] != [2, "unhealthy"]:
        pass
    return dict(message[2])


def test_a_bridge_over_its_memory_says_so_and_goes_on() -> None:
    with Pipe("--max-memory-mb", "1") as pipe:
        params = told(pipe)
        assert params["reason"] == "memory"
        assert params["message"].endswith("MiB are used, 1 are the limit")
        assert pipe.ask("ping", {"payload": 1}) == {"payload": 1}


def test_a_bridge_with_work_that_does_not_end_says_so() -> None:
    with Pipe("--max-stuck", "1", command=STUBBORN) as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        pipe.ask("create", {"program": "p", "signature": "a -> b"})
        execute = {"program": "p", "inputs": {"a": "x"}, "timeout_ms": 50}
        for request in [pipe.request("execute", execute) for _ in range(2)]:
            assert pipe.response(request)[2]["code"] == "timeout"
        params = told(pipe)
        assert params["reason"] == "stuck"
        assert params["message"] == "2 pieces of work do not end, 1 may"


class Watched:
    """What Health looks at and speaks to."""

    def __init__(self, options: Options, stuck: int) -> None:
        self.options = options
        self.dispatcher = self
        self.log = self
        self.connection = self
        self.runner = self
        self.lag_s = 0.0
        self.memory_bytes = memory_bytes
        self.stuck = stuck
        self.sent: list[str] = []

    def send_notification(self, _method: str, params: dict[str, Any]) -> bool:
        self.sent.append(params["reason"])
        return True

    def submit(self, _work: object) -> None: ...

    def warning(self, _message: str) -> None: ...

    def flush(self) -> None: ...


def health(options: Options, stuck: int) -> tuple[Health, list[str]]:
    watched: Any = Watched(options, stuck)
    host: Host = watched
    return Health(host), watched.sent


def test_each_cause_is_told_once() -> None:
    watcher, sent = health(Options(max_memory_mb=1, max_stuck=0), stuck=1)
    for _ in range(3):
        watcher.check()
    assert sent == ["memory", "stuck"]


@pytest.mark.parametrize(
    "memory_mb", [None, memory_bytes() // 2**20 + 1000], ids=["no limit", "more than it has"]
)
def test_nothing_is_told_within_the_limits(memory_mb: int | None) -> None:
    watcher, sent = health(Options(max_memory_mb=memory_mb, max_stuck=2), stuck=2)
    watcher.check()
    assert sent == []
