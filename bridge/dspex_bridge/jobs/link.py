"""A worker's connection to the bridge: requests from any of its threads, one reader."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NoReturn

from dspex_protocol.connection import Answered, Connection
from dspex_protocol.framing import LARGEST_MAX_FRAME_BYTES
from dspex_protocol.messages import Notification, Request

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from dspex_protocol.connection import Event

__all__ = ["Link"]

_READ_BYTES = 64 * 1024


class Link:
    """Made in the worker, where the bridge's end of `sock` is served by a Client."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._socket = sock
        # The other end is this project's own process, whose own limits have been kept already.
        self._connection = Connection(LARGEST_MAX_FRAME_BYTES)
        self._connection.peer_max_frame_bytes = LARGEST_MAX_FRAME_BYTES
        self._sending = threading.Lock()
        self._reader = threading.Thread(target=self._receive, name="dspex-link", daemon=True)
        self._on_stop: Callable[[str], object] | None = None
        self._stop_reason: str | None = None
        self._stopping = threading.Lock()

    def first_request(self) -> Request:
        """The job. Reads until it is there; the reader's thread goes on from then."""
        first: Request | None = None
        while first is None:
            for event in self._connection.receive_data(self._read()):
                if isinstance(event, Request):
                    first = event
                else:
                    self._handle(event)
        self._reader.start()
        return first

    def on_stop(self, end: Callable[[str], object]) -> None:
        """`end(reason)` is called, once, where the bridge asks the job to end with what it has: on
        the reader's thread or, where it has asked already, here."""
        with self._stopping:
            self._on_stop, reason = end, self._stop_reason
        if reason is not None:
            end(reason)

    def request(self, method: str, params: dict[str, Any]) -> Future[Any]:
        """Asks the bridge. The future has its answer or raises the error that it answered with."""
        answer: Future[Any] = Future()
        self._connection.send_request(method, params, waiter=answer)
        self._flush()
        return answer

    def notify(self, method: str, params: dict[str, Any], about: Request | None = None) -> None:
        self._connection.send_notification(method, params, about=about)
        self._flush()

    def answer(self, request: Request, result: Any) -> None:
        self._connection.send_result(request, result)
        self._flush()

    def fail(self, request: Request, error: Any) -> None:
        self._connection.send_error(request, error)
        self._flush()

    def end(self) -> NoReturn:
        """Sends nothing more, and ends the process when the bridge has read the answer and closed
        its end: where it wrote to one that is gone, it would lose what it has not read."""
        with self._sending:
            while threading.current_thread() is self._reader:
                self._read()
            self._reader.join()
        os._exit(1)

    def _flush(self) -> None:
        with self._sending:
            self._socket.sendall(self._connection.data_to_send())

    def _read(self) -> bytes:
        data = self._socket.recv(_READ_BYTES)
        if not data:
            # The bridge is gone, or wants no more of this: there is nobody to work for.
            os._exit(0)
        return data

    def _stop(self, reason: str) -> None:
        with self._stopping:
            self._stop_reason, end = reason, self._on_stop
        if end is not None:
            end(reason)

    def _receive(self) -> None:
        try:
            while True:
                for event in self._connection.receive_data(self._read()):
                    self._handle(event)
        finally:
            os._exit(1)

    def _handle(self, event: Event) -> None:
        if isinstance(event, Answered):
            _settle(event)
        elif isinstance(event, Notification) and event.method == "stop":
            self._stop(event.params["reason"])


def _settle(event: Answered) -> None:
    answer: Future[Any] = event.waiter
    # A wait that was cancelled has marked it.
    if answer.set_running_or_notify_cancel():
        if event.error is None:
            answer.set_result(event.result)
        else:
            answer.set_exception(event.error)
