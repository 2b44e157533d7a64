"""A process that speaks frames on its stdin and stdout, and whatever else it may do instead: every
wait for it is bounded."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any, Self

from dspex_protocol.codec import decode
from dspex_protocol.errors import ParseError
from dspex_protocol.framing import FrameReader, Oversized

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Peer", "PeerError"]

_READ_BYTES = 64 * 1024

# Of what the peer wrote to stderr, in the account of a failure.
_SHOWN_STDERR_LINES = 10


class PeerError(Exception):
    """The peer did something that no expectation can be about: it is silent, gone, or babbles."""


class Peer:
    """Raises PeerError where the peer is not there in time, and OSError where it cannot start."""

    def __init__(self, command: Sequence[str], timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._reader = FrameReader()
        self._messages: list[Any] = []
        self._has_ended = False
        self._process = subprocess.Popen(  # noqa: S603 - the command that the user named
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - both are pipes
        assert self._process.stdout is not None  # noqa: S101
        self._in, self._out = self._process.stdin, self._process.stdout
        os.set_blocking(self._in.fileno(), False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        """Ends the process and what it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._in.close()
        self._out.close()
        self._stderr.close()

    def send(self, data: bytes) -> None:
        """Writes all of `data`, reading meanwhile: a peer may wait for that before it reads on."""
        view = memoryview(data)
        deadline = time.monotonic() + self._timeout_s
        while view:
            outputs = [] if self._has_ended else [self._out]
            left = max(0.0, deadline - time.monotonic())
            readable, writable, _ = select.select(outputs, [self._in], [], left)
            if not readable and not writable:
                raise PeerError(f"it read nothing for {self._timeout_s} s")
            if readable:
                self._read()
            if writable:
                try:
                    view = view[os.write(self._in.fileno(), view) :]
                except BrokenPipeError:
                    raise PeerError("it closed its stdin, or ended") from None

    def receive(self, timeout_s: float | None = None) -> Any:
        """The next message. Raises EOFError where there is none any more."""
        bound = self._timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + bound
        while not self._messages:
            if self._has_ended:
                if not self._reader.at_boundary:
                    raise PeerError("its stdout ended in the middle of a frame")
                raise EOFError
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self._out], [], [], left)
            if not readable:
                begun = "" if self._reader.at_boundary else " but the beginning of a frame"
                raise PeerError(f"nothing came within {bound} s{begun}")
            self._read()
        return self._messages.pop(0)

    def close_stdin(self) -> None:
        self._in.close()

    def wait(self, timeout_s: float | None = None) -> int:
        """The exit status."""
        bound = self._timeout_s if timeout_s is None else timeout_s
        try:
            return self._process.wait(bound)
        except subprocess.TimeoutExpired:
            raise PeerError(f"it still ran after {bound} s") from None

    def last_words(self) -> str:
        """The last lines that it wrote to stderr."""
        fd = self._stderr.fileno()
        start = max(0, os.fstat(fd).st_size - _READ_BYTES)
        lines = os.pread(fd, _READ_BYTES, start).decode("utf-8", "replace").splitlines()
        return "\n".join(lines[-_SHOWN_STDERR_LINES:])

    def _read(self) -> None:
        data = os.read(self._out.fileno(), _READ_BYTES)
        self._has_ended = not data
        for item in self._reader.feed(data):
            if isinstance(item, Oversized):
                raise PeerError(
                    f"its stdout holds what is no frame: {item.size} bytes are announced, "
                    f"beginning with {item.head.hex(' ')}"
                )
            try:
                self._messages.append(decode(item))
            except ParseError as error:
                raise PeerError(f"a frame of its: {error}: {item[:64].hex(' ')}") from None
