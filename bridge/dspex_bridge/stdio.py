"""The descriptors of the wire, claimed before anything else can touch them."""

from __future__ import annotations

import os

__all__ = ["Wire", "claim"]

_NULL, _STDERR = 0, 2
# Above the three standard ones, wherever the process was started with some of those closed.
_FIRST_PRIVATE = 3

_IGNORED_BYTES = 64 * 1024


class Wire:
    """The private descriptors of the connection: requests are read from one, answers written to
    the other. Neither is inherited by a child process."""

    __slots__ = ("read_fd", "write_fd")

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self.read_fd = read_fd
        self.write_fd = write_fd

    def finish(self, timeout_s: float) -> None:
        """After the last write: returns when the client has read all of it, or when time is up.

        A socket's client that writes to one that is closed loses what it has not read. Pipes are
        two, and there is nothing to wait for.
        """
        if not os.path.sameopenfile(self.read_fd, self.write_fd):
            return
        import socket
        import time

        deadline = time.monotonic() + timeout_s
        try:
            connection = socket.socket(fileno=self.write_fd)
            connection.shutdown(socket.SHUT_WR)
            while (left := deadline - time.monotonic()) > 0:
                connection.settimeout(left)
                if not connection.recv(_IGNORED_BYTES):
                    return
        except OSError:
            # It is no socket, or the client is gone, or has been silent for so long.
            return


def claim() -> Wire:
    """Moves descriptors 0 and 1 to private ones; then 0 is null and 1 is stderr.

    A print, a C library or a child process cannot reach the wire afterwards. Raises OSError where
    0 or 1 is not open. Call it before any import that could print.
    """
    read_fd = _private(0)
    write_fd = _private(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, _NULL)
    try:
        os.fstat(_STDERR)
    except OSError:
        os.dup2(null, _STDERR)
    os.dup2(_STDERR, 1)
    if null > _STDERR:
        os.close(null)
    _enlarge(read_fd)
    _enlarge(write_fd)
    os.set_blocking(write_fd, False)
    return Wire(read_fd, write_fd)


def _private(fd: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_PRIVATE)


def _enlarge(fd: int) -> None:
    """Pipes of 1 MiB double the bandwidth of large payloads; 64 KiB is Linux's default."""
    import fcntl

    try:
        fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, 1024 * 1024)
    except (AttributeError, OSError):
        # Not Linux, not a pipe (Node.js gives sockets), or over the user's pipe quota: only speed.
        return
