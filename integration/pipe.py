"""A bridge behind a real pipe, spoken to in bytes: no client of ours in between."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self

from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import FrameReader, Oversized, frame

__all__ = ["BOUND_S", "BRIDGE", "Connected", "Exchange", "Forked", "Pipe", "Silent"]

BRIDGE = (sys.executable, "-P", "-m", "dspex_bridge")

# Far above what anything here takes, so that a slow machine does not fail a test.
BOUND_S = 60.0


class Silent(AssertionError):
    """Nothing came within the bound."""


class Exchange:
    """A connection to a bridge. `ask` is for requests one at a time; `send` and `receive` for the
    rest."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._out = read_fd
        self._in = write_fd
        self._reader = FrameReader()
        self._messages: list[Any] = []
        self._next_id = 0
        self.notifications: list[Any] = []

    def send_bytes(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._in, view) :]

    def send(self, message: Any) -> None:
        self.send_bytes(frame(encode(message)))

    def request(self, method: str, params: Any = None, request_id: int | None = None) -> int:
        """Sends a request without waiting; its id."""
        if request_id is None:
            self._next_id += 1
            request_id = self._next_id
        self.send([0, request_id, method, {} if params is None else params])
        return request_id

    def receive(self, bound_s: float = BOUND_S) -> Any:
        """The next message, whichever it is. Raises Silent; EOFError where the bridge ended."""
        deadline = time.monotonic() + bound_s
        while not self._messages:
            ready, _, _ = select.select([self._out], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Silent(f"no message within {bound_s} s")
            data = os.read(self._out, 65536)
            if not data:
                raise EOFError
            for item in self._reader.feed(data):
                assert not isinstance(item, Oversized), "what is on stdout is no frame"
                self._messages.append(decode(item))
        return self._messages.pop(0)

    def response(self, request_id: int | None, bound_s: float = BOUND_S) -> Any:
        """The response to a request, `[1, id, error, result]`; what comes before it is kept."""
        kept: list[Any] = []
        while True:
            message = self.receive(bound_s)
            if message[0] == 1 and message[1] == request_id:
                self._messages[:0] = kept
                return message
            if message[0] == 2:
                self.notifications.append(message)
            else:
                kept.append(message)

    def ask(self, method: str, params: Any = None) -> Any:
        """The result of a request. Fails where it is answered with an error."""
        _, _, error, result = self.response(self.request(method, params))
        assert error is None, error
        return result

    def refusal(self, method: str, params: Any = None) -> dict[str, Any]:
        """The error of a request. Fails where it succeeds."""
        _, _, error, result = self.response(self.request(method, params))
        assert error is not None, result
        assert set(error) == {"code", "message", "retryable", "data"}
        assert result is None
        return dict(error)


class Connected(Exchange):
    """A bridge at the other end of a socket, as a fork server's answer says."""

    def __init__(self, forked: Mapping[str, Any]) -> None:
        self.pid: int = forked["pid"]
        self.path: str = forked["path"]
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(self.path)
        super().__init__(self.socket.fileno(), self.socket.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.socket.close()


class Forked(Connected):
    """A bridge that a fork server is asked for."""

    def __init__(self, server: Exchange) -> None:
        super().__init__(server.ask("fork"))


class Pipe(Exchange):
    """Spawns a bridge."""

    def __init__(
        self,
        *options: str,
        command: Sequence[str] = BRIDGE,
        env: Mapping[str, str] | None = None,
        stderr_to_null: bool = False,
    ) -> None:
        self.process = subprocess.Popen(
            [*command, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if stderr_to_null else subprocess.PIPE,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        super().__init__(self.process.stdout.fileno(), self.process.stdin.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def wait(self, bound_s: float = BOUND_S) -> int:
        """The exit status."""
        return self.process.wait(bound_s)

    def stderr_after_exit(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()
