from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from dspex_bridge.writer import Writer
from dspex_protocol.codec import decode
from dspex_protocol.connection import Connection
from dspex_protocol.framing import FrameReader

BOUND_S = 20.0


class Pipe:
    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.write_fd, False)
        self.broken: list[OSError] = []
        self.connection = Connection()
        self.writer = Writer(self.write_fd, self.connection, self.broken.append)

    def notify(self, number: int, size: int = 0) -> None:
        self.connection.send_notification("n", {"number": number, "padding": "x" * size})

    def numbers(self, count: int) -> list[int]:
        reader = FrameReader()
        numbers: list[int] = []
        while len(numbers) < count:
            for frame in reader.feed(os.read(self.read_fd, 65536)):
                assert isinstance(frame, bytes)
                numbers.append(decode(frame)[2]["number"])
        return numbers


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for fd in (pipe.read_fd, pipe.write_fd):
        with suppress(OSError):
            os.close(fd)


def test_what_is_queued_is_written_in_order(pipe: Pipe) -> None:
    for number in range(10):
        pipe.notify(number)
    pipe.writer.flush()
    assert pipe.numbers(10) == list(range(10))
    assert pipe.writer.backlog == 0


def test_a_full_pipe_holds_up_nobody_and_loses_nothing(pipe: Pipe) -> None:
    count = 64
    for number in range(count):  # 64 x 64 KiB: many times what a pipe holds
        pipe.notify(number, 65536)
        pipe.writer.flush()
    assert pipe.writer.backlog > 0
    assert pipe.numbers(count) == list(range(count))
    assert pipe.writer.wait_until_below(0, BOUND_S)


def test_many_threads_lose_nothing(pipe: Pipe) -> None:
    threads, each = 8, 500

    def send(first: int) -> None:
        for number in range(first, first + each):
            pipe.notify(number, 100)
            pipe.writer.flush()

    started = [threading.Thread(target=send, args=(n * each,)) for n in range(threads)]
    for thread in started:
        thread.start()
    numbers = pipe.numbers(threads * each)
    for thread in started:
        thread.join(BOUND_S)
    assert sorted(numbers) == list(range(threads * each))
    for first in range(0, threads * each, each):
        own = [number for number in numbers if first <= number < first + each]
        assert own == sorted(own), "one thread's messages keep their order"


def test_waiting_ends_when_the_client_has_read(pipe: Pipe) -> None:
    for number in range(32):
        pipe.notify(number, 65536)
    pipe.writer.flush()
    assert not pipe.writer.wait_until_below(0, timeout=0.01)
    waited: list[bool] = []
    waiter = threading.Thread(
        target=lambda: waited.append(pipe.writer.wait_until_below(0, BOUND_S))
    )
    waiter.start()
    pipe.numbers(32)
    waiter.join(BOUND_S)
    assert waited == [True]


def test_a_client_that_closed_its_end_is_reported(pipe: Pipe) -> None:
    os.close(pipe.read_fd)
    pipe.notify(0)
    pipe.writer.flush()
    assert [type(error) for error in pipe.broken] == [BrokenPipeError]
