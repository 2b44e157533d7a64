"""Writes what the connection has queued: whichever thread finds the writer free writes for all."""

from __future__ import annotations

import os
import select
import threading
from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_protocol.connection import Connection

__all__ = ["BACKLOG_HIGH", "Writer"]

# A client that sends without reading is not read from above this many unsent bytes, until half of
# them are gone: what it makes the bridge hold stays bounded by it and its requests in flight.
BACKLOG_HIGH = 32 * 1024 * 1024

# Messages are joined to no more than so many bytes: to write those costs far more than the call,
# and what waits behind them, or is large itself, is not copied.
_AT_ONCE = 256 * 1024


class Writer:
    """Coalescing, never blocking for its callers.

    Many threads call `flush`; one of them writes everything there is, so that a burst of answers
    is one system call. When the pipe is full a thread of its own waits for it: a client that does
    not read holds up nobody.
    """

    def __init__(
        self, fd: int, connection: Connection, on_broken: Callable[[OSError], None]
    ) -> None:
        self._fd = fd
        self._connection = connection
        self._on_broken = on_broken
        self._writing = allocate_lock()
        self._rest: bytes | memoryview = b""
        self._stalled = threading.Semaphore(0)
        self._waiter: threading.Thread | None = None
        self._drained = threading.Condition()
        self._waiting = 0

    @property
    def backlog(self) -> int:
        """Bytes that wait for the client to read."""
        return self._connection.queued_bytes + len(self._rest)

    def flush(self) -> None:
        # After each release somebody may have queued and found the writer taken: look again.
        connection = self._connection
        while connection.queued_bytes and self._writing.acquire(False):
            self._rest = connection.data_to_send(_AT_ONCE)
            if not self._write():
                self._hand_over()
                return
            self._writing.release()
            if self._waiting:
                self._notify()

    def wait_until_below(self, limit: int, timeout: float | None = None) -> bool:
        """Blocks until at most `limit` bytes wait; False when `timeout` seconds ran out."""
        with self._drained:
            self._waiting += 1  # before the first look: a writer that is done by then notifies
            try:
                return self._drained.wait_for(lambda: self._is_below(limit), timeout)
            finally:
                self._waiting -= 1

    def _is_below(self, limit: int) -> bool:
        # Between taking what is queued and noting it as its rest, a writer holds bytes that
        # neither counts: nothing waits only when nobody writes either.
        return self.backlog <= limit and (limit > 0 or not self._writing.locked())

    def _write(self) -> bool:
        """Writes as much as the pipe takes; whether that was everything."""
        rest = self._rest
        while rest:
            try:
                written = os.write(self._fd, rest)
            except BlockingIOError:
                return False
            except OSError as error:
                self._on_broken(error)
                written = len(rest)
            rest = b"" if written == len(rest) else memoryview(rest)[written:]
            self._rest = rest
        return True

    def _hand_over(self) -> None:
        """The pipe is full: the waiter takes over, with `_writing` still held for it."""
        if self._waiter is None:
            self._waiter = threading.Thread(target=self._wait, name="dspex-writer", daemon=True)
            self._waiter.start()
        self._stalled.release()

    def _wait(self) -> None:
        poller = select.poll()
        poller.register(self._fd, select.POLLOUT)
        while True:
            self._stalled.acquire()
            while not self._write():
                self._notify()
                poller.poll()
            self._writing.release()
            self._notify()
            self.flush()
            self._notify()

    def _notify(self) -> None:
        if self._waiting:
            with self._drained:
                self._drained.notify_all()
