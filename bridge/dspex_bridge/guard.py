"""The guard: a tiny process that leaves nothing behind.

It is forked before any thread or large import, shares the bridge's process group and ends the
whole group with SIGKILL when the bridge or its client is gone, or when the client has closed the
connection and the bridge has not ended by itself. SIGKILL of the client, a bridge whose C code
holds the interpreter lock, a stopped bridge, children of children: none of them can outlive it.

PR_SET_PDEATHSIG alone would not do: it fires when the client's spawning *thread* ends, and it does
not reach grandchildren.
"""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Watch = Callable[[int | None, int, int | None], bool]

__all__ = ["start"]

# How long a bridge may take to end by itself once the client has closed the connection.
_GRACE_MS = 1000

# Where the kernel has no pidfd (before Linux 5.3, macOS), parents are asked for at this interval.
_POLL_MS = 20


def start(
    read_fd: int,
    write_fd: int,
    *,
    client: int | None = None,
    folder: str | None = None,
    is_sent: bool = False,
) -> int:
    """Forks the guard, which watches the parent of this process, this process and `read_fd`.

    `client` is the parent's pid, for a process that knows it: one that was forked may have lost it
    by now. `folder` is removed at the end, with the sockets in it. Where it `is_sent`, what to
    watch is not there yet: it comes over the socket `read_fd`, of which this process has the other
    end.

    The process becomes the leader of a group of its own where it is not one yet: the group is what
    the guard ends, and a client that shares it must not be ended with it. Returns the guard's pid.
    Exits where the client is gone already.
    """
    if client is None:
        client = os.getppid()
    is_session_leader = os.getsid(0) == os.getpid()
    if os.getpgrp() != os.getpid():
        os.setsid()
        is_session_leader = True
    bridge_pidfd = _pidfd(os.getpid())
    client_pidfd = _pidfd(client)
    if os.getppid() != client:
        os._exit(0)
    bridge = os.getpid()
    pid = os.fork()
    if not is_session_leader:
        # The leader of a shell's job: the others of its pipeline are in its group. The guard gets
        # one of its own (set here and there, whoever runs first), and the bridge joins it.
        guard = pid or os.getpid()
        os.setpgid(guard, guard)
        if pid:
            os.setpgid(0, guard)
    if pid == 0:
        from signal import SIGKILL  # a slow import, which the bridge itself does not wait for

        try:
            _detach(read_fd, write_fd, keep=(bridge_pidfd, client_pidfd))
            if bridge_pidfd is None:
                watch = _polled(bridge, client)
            else:
                watch = _watched(bridge_pidfd, client_pidfd)
            _wait_until_over(watch, read_fd, is_sent=is_sent)
            if folder is not None:
                _remove(folder)
        finally:
            # Whatever happened: a bridge without its guard must not go on.
            os.killpg(os.getpgrp(), SIGKILL)
    for fd in (bridge_pidfd, client_pidfd):
        if fd is not None:
            os.close(fd)
    return pid


def _pidfd(pid: int) -> int | None:
    # A parent of 0 lives in another pid namespace and cannot be watched; its pipe still can.
    if pid == 0 or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _detach(read_fd: int, write_fd: int, keep: tuple[int | None, ...]) -> None:
    """Lets go of everything but what is watched: a guard that held the pipe to the client would
    keep it from seeing the end of the bridge."""
    import signal

    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP):
        signal.signal(ignored, signal.SIG_IGN)
    kept = sorted({read_fd, *(fd for fd in keep if fd is not None)})
    low = 0
    for fd in kept:
        os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, max(low, write_fd, 1023) + 1)
    try:
        with open("/proc/self/comm", "w") as comm:  # noqa: PTH123 - pathlib is a slow import
            comm.write("dspex-guard")
    except OSError:
        return  # a name for people who read `ps`; nothing depends on it


def _remove(folder: str) -> None:
    with os.scandir(folder) as sockets:
        for socket in sockets:
            try:
                os.unlink(socket.path)  # noqa: PTH108 - pathlib is a slow import
            except FileNotFoundError:
                continue  # a bridge has just been connected to
    os.rmdir(folder)  # noqa: PTH106


def _wait_until_over(watch: Watch, read_fd: int, *, is_sent: bool) -> None:
    if is_sent:
        if not watch(read_fd, select.POLLIN, None):
            return
        received = _receive(read_fd)
        if received is None:
            return
        read_fd = received
    # A hang-up is always reported; POLLRDHUP is what a socket says for it (Node.js gives sockets).
    if watch(read_fd, getattr(select, "POLLRDHUP", 0), None):
        watch(None, 0, _GRACE_MS)


def _receive(fd: int) -> int | None:
    """The descriptor that comes over a socket; None where the other end was closed without."""
    import socket

    with socket.socket(fileno=fd) as connection:
        _, descriptors, _, _ = socket.recv_fds(connection, 1, 1)
    return descriptors[0] if descriptors else None


def _watched(bridge: int, client: int | None) -> Watch:
    """By the pidfds of the two. A watch returns when `fd` is ready, or time is up: True where the
    bridge and its client are there then."""

    def watch(fd: int | None, events: int, timeout_ms: int | None) -> bool:
        poller = select.poll()
        poller.register(bridge, select.POLLIN)
        if client is not None:
            poller.register(client, select.POLLIN)
        if fd is not None:
            poller.register(fd, events)
        ready = {ready for ready, _ in poller.poll(timeout_ms)}
        return not ready & {bridge, client}

    return watch


def _polled(bridge: int, client: int) -> Watch:
    """The same by their pids, where there are no pidfds."""

    def watch(fd: int | None, events: int, timeout_ms: int | None) -> bool:
        poller = select.poll()
        if fd is not None:
            poller.register(fd, events)
        left_ms = timeout_ms
        while os.getppid() == bridge and _is_alive(client):
            if poller.poll(_POLL_MS):
                return True
            if left_ms is not None:
                left_ms -= _POLL_MS
                if left_ms <= 0:
                    return True
        return False

    return watch


def _is_alive(pid: int) -> bool:
    if pid == 0:
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
