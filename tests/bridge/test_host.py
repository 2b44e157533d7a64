from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from dspex_bridge.host import Host, Options
from dspex_protocol.codec import decode
from dspex_protocol.framing import FrameReader

BOUND_S = 20.0


class Client:
    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe()
        os.set_blocking(self.write_fd, False)
        self.host = Host(self.write_fd, Options(), lambda _status: None)

    def messages(self, count: int) -> list[Any]:
        reader = FrameReader()
        messages: list[Any] = []
        while len(messages) < count:
            for frame in reader.feed(os.read(self.read_fd, 65536)):
                assert isinstance(frame, bytes)
                messages.append(decode(frame))
        return messages


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    yield client
    for fd in (client.read_fd, client.write_fd):
        with suppress(OSError):
            os.close(fd)


def test_who_logs_in_the_middle_of_sending_is_not_kept_waiting_and_is_heard(
    client: Client,
) -> None:
    """A finalizer that a collection runs there would otherwise wait for its own thread."""
    host, done = client.host, threading.Event()

    def send() -> None:
        with host.connection._lock:
            host.tell_log({"message": "from a finalizer"})
        host.connection.send_notification("ready", {})
        host.flush()
        done.set()

    threading.Thread(target=send, daemon=True).start()
    assert done.wait(BOUND_S)
    told = client.messages(2)
    assert sorted(message[1] for message in told) == ["log", "ready"]


def test_log_events_keep_their_order(client: Client) -> None:
    done = threading.Event()

    def send() -> None:
        with client.host.connection._lock:
            client.host.tell_log({"message": "1"})
        for number in "23":
            client.host.tell_log({"message": number})
        done.set()

    threading.Thread(target=send, daemon=True).start()
    assert done.wait(BOUND_S)
    assert [message[2]["message"] for message in client.messages(3)] == ["1", "2", "3"]
