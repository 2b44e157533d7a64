"""Who tells a client much waits until it has read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
from dspex_bridge.outflow import OUTFLOW_HIGH, Outflow
from dspex_bridge.writer import Writer
from dspex_protocol.connection import Connection

BOUND_S = 20.0

# More than may wait and than any pipe takes, and within a frame.
NOTIFICATION = "x" * (OUTFLOW_HIGH + 2 * 1024 * 1024)


class Client:
    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.write_fd, False)
        self.connection = Connection()
        self.writer = Writer(self.write_fd, self.connection, lambda _error: None)
        self.outflow = Outflow(self.writer)

    def fill(self) -> None:
        self.connection.send_notification("n", {"text": NOTIFICATION})
        self.writer.flush()

    def read(self) -> None:
        left = len(NOTIFICATION)
        while left > 0:
            left -= len(os.read(self.read_fd, 1024 * 1024))


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    for fd in (client.read_fd, client.write_fd):
        with suppress(OSError):
            os.close(fd)


def test_there_is_room_while_the_client_reads(client: Client) -> None:
    async def test() -> None:
        await client.outflow.room()

    asyncio.run(asyncio.wait_for(test(), BOUND_S))
    assert not client.outflow.is_full


def test_all_who_wait_go_on_once_the_client_has_read_and_one_who_is_cancelled_at_once(
    client: Client,
) -> None:
    async def test() -> None:
        client.fill()
        assert client.outflow.is_full
        waiting = [asyncio.create_task(client.outflow.room()) for _ in range(20)]
        await asyncio.sleep(0)  # all of them have begun
        waiting[0].cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting[0]
        assert not any(task.done() for task in waiting[1:])
        await asyncio.to_thread(client.read)
        await asyncio.gather(*waiting[1:])
        assert not client.outflow.is_full

    asyncio.run(asyncio.wait_for(test(), BOUND_S))
