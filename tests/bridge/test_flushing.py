"""How many system calls answers cost."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from dspex_bridge.dispatch import Dispatcher
from dspex_bridge.host import Host, Options
from dspex_bridge.loop import serve_once
from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import FrameReader, frame
from dspex_protocol.messages import Request

BOUND_S = 20.0


class Bridge:
    """A bridge whose reader is this thread, and the client's ends of its pipes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bridge_reads, self.client_writes = os.pipe()
        self.client_reads, self.bridge_writes = os.pipe()
        os.set_blocking(self.bridge_writes, False)
        self.host = Host(self.bridge_writes, Options(), lambda _status: None)
        self.host.dispatcher = Dispatcher(self.host)
        self.writes = 0
        self._reader = FrameReader()
        write = os.write

        def counted(fd: int, data: bytes) -> int:
            self.writes += fd == self.bridge_writes
            return write(fd, data)

        monkeypatch.setattr(os, "write", counted)

    def send(self, *requests: Request) -> None:
        os.write(self.client_writes, b"".join(frame(encode(r.to_wire())) for r in requests))

    def answers(self, count: int) -> list[Any]:
        answers: list[Any] = []
        while len(answers) < count:
            for payload in self._reader.feed(os.read(self.client_reads, 65536)):
                assert isinstance(payload, bytes)
                answers.append(decode(payload))
        return answers

    def on_loop(self, call: Callable[[], object]) -> None:
        """Runs it there, and waits until the turn in which it ran is over."""
        over = threading.Event()

        def run() -> None:
            call()
            self.host.runner.loop.call_soon(over.set)

        self.host.runner.submit(run)
        assert over.wait(BOUND_S)

    def close(self) -> None:
        for fd in (self.bridge_reads, self.client_writes, self.client_reads, self.bridge_writes):
            with suppress(OSError):
                os.close(fd)


@pytest.fixture
def bridge(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bridge]:
    bridge = Bridge(monkeypatch)
    yield bridge
    bridge.close()


def pings(count: int) -> list[Request]:
    return [Request(number, "ping", {"payload": number}) for number in range(count)]


def test_the_pings_of_one_read_are_answered_by_one_write(bridge: Bridge) -> None:
    bridge.send(*pings(100))
    assert serve_once(bridge.host, bridge.bridge_reads)
    assert [answer[1] for answer in bridge.answers(100)] == list(range(100))
    assert bridge.writes == 1


def test_a_lone_ping_is_answered_with_the_read_that_brought_it(bridge: Bridge) -> None:
    for number, request in enumerate(pings(3), start=1):
        bridge.send(request)
        assert serve_once(bridge.host, bridge.bridge_reads)
        assert bridge.writes == number
        assert [answer[1] for answer in bridge.answers(1)] == [request.id]


def test_what_one_turn_of_the_loop_says_goes_in_one_write_and_is_there_when_it_is_over(
    bridge: Bridge,
) -> None:
    bridge.host.runner.start()

    def say(count: int) -> None:
        for number in range(count):
            bridge.host.connection.send_notification("n", {"number": number})
            bridge.host.flush()
            assert bridge.host.connection.queued_bytes, "it waits for the others"

    for turn, count in enumerate((1, 50), start=1):
        bridge.on_loop(partial(say, count))
        assert bridge.writes == turn
        assert len(bridge.answers(count)) == count


def test_what_a_long_turn_says_is_read_while_the_turn_goes_on(bridge: Bridge) -> None:
    """A stream whose LM has everything ready is one turn."""
    bridge.host.runner.start()
    is_read, was_read = threading.Event(), []

    def say() -> None:
        for number in range(2000):
            bridge.host.connection.send_notification("n", {"number": number})
            bridge.host.flush()
        was_read.append(is_read.wait(BOUND_S))

    bridge.host.runner.submit(say)
    numbers = [message[2]["number"] for message in bridge.answers(500)]
    is_read.set()
    numbers += [message[2]["number"] for message in bridge.answers(2000 - len(numbers))]
    assert numbers == list(range(2000))
    assert was_read == [True]
    assert bridge.writes < 5


def test_tasks_that_end_in_one_turn_are_answered_by_one_write(bridge: Bridge) -> None:
    bridge.host.runner.start()
    loop = bridge.host.runner.loop

    async def answer(number: int) -> None:
        bridge.host.connection.send_notification("n", {"number": number})
        bridge.host.flush()

    def start() -> None:
        for number in range(20):
            loop.create_task(answer(number))

    bridge.host.runner.submit(start)
    assert [message[2]["number"] for message in bridge.answers(20)] == list(range(20))
    assert bridge.writes == 1


def test_what_another_thread_says_is_written_at_once(bridge: Bridge) -> None:
    said = threading.Event()

    def say() -> None:
        bridge.host.connection.send_notification("n", {})
        bridge.host.flush()
        assert bridge.writes == 1
        said.set()

    threading.Thread(target=say, daemon=True).start()
    assert said.wait(BOUND_S)
    assert len(bridge.answers(1)) == 1
