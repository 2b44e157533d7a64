"""The zygote: imports DSPy once, in one thread, and forks a worker whenever the bridge asks.

`python -P -m dspex_bridge.jobs.zygote FD`: FD is one end of a SOCK_SEQPACKET pair. A packet is one
of these; numbers are decimal text:

    to the zygote     fork NICE, with the worker's socket   ->  forked PID, or failed REASON
                      kill PID
    from the zygote   ready                                 DSPy is imported
                      exited PID STATUS                     STATUS as of os.waitstatus_to_exitcode

Only the zygote can kill a worker without ever hitting a stranger: until it has waited for one, the
kernel gives its pid to nobody else.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys

__all__ = ["MAX_PACKET_BYTES", "main"]

# The longest packet is a reason why a fork failed.
MAX_PACKET_BYTES = 1024

_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Serves until the bridge's end of the socket is closed, and its workers with it."""
    control = socket.socket(fileno=int(arguments[0]))
    # A signal for the group is the bridge's to handle, which ends the zygote by closing the socket.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    from . import worker

    # What was imported stays shared with every worker: no collection writes to it.
    gc.collect()
    gc.freeze()
    control.send(b"ready")
    _serve(control, worker.main)


def _serve(control: socket.socket, work: worker_main) -> None:
    exits_read, exits_write = os.pipe()
    os.set_blocking(exits_write, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(exits_write, warn_on_full_buffer=False)
    alive: set[int] = set()
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(exits_read, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poller.poll()}
        if exits_read in ready:
            os.read(exits_read, MAX_PACKET_BYTES)
            _reap(control, alive)
        if control.fileno() in ready:
            packet, fds = _receive(control)
            if not packet:
                break
            command, argument = packet.split()
            if command == b"fork":
                _fork(control, socket.socket(fileno=fds[0]), int(argument), alive, work)
            elif int(argument) in alive:
                os.kill(int(argument), signal.SIGKILL)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    try:
        packet, fds, _, _ = socket.recv_fds(control, MAX_PACKET_BYTES, 1)
    except ConnectionResetError:  # the bridge ended with packets of ours unread
        return b"", []
    return packet, fds


def _fork(
    control: socket.socket,
    link: socket.socket,
    nice: int,
    alive: set[int],
    work: worker_main,
) -> None:
    zygote = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        control.send(f"failed {error.strerror}".encode())
        link.close()
        return
    if pid == 0:
        # Whatever happens in it, a worker never goes on as a second zygote.
        try:
            control.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _die_with(zygote)
            os.nice(nice)
            work(link)
        finally:
            os._exit(1)
    link.close()
    alive.add(pid)
    control.send(f"forked {pid}".encode())


def _reap(control: socket.socket, alive: set[int]) -> None:
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        alive.discard(pid)
        control.send(f"exited {pid} {os.waitstatus_to_exitcode(status)}".encode())


def _die_with(zygote: int) -> None:
    """The zygote has one thread, so that this signal, which is the thread's, is right here."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != zygote:
        os._exit(1)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    worker_main: TypeAlias = Callable[[socket.socket], object]

if __name__ == "__main__":
    main(sys.argv[1:])
