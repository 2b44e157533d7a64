"""A client that can be killed, with a bridge that is in some state when it happens.

    python lifetime.py client STATE     spawns `python lifetime.py bridge STATE`, waits until the
                                        state holds, prints the bridge's pid, and waits for ever;
                                        when its own stdin ends it closes the bridge's
    python lifetime.py bridge STATE     the real bridge, which gets itself into the state

With `forked` behind the state the bridge is one that a fork server forked: the client prints the
pids of the server and of its spare, too, before the bridge's, and closes the bridge's socket, not
the server's stdin.

States: idle, busy (a Python thread that loops), gil (C code that holds the interpreter lock),
grandchild (a child process of the bridge), stopped (SIGSTOP).
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import IO, Any

from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import frame

STATES = ("idle", "busy", "gil", "grandchild", "stopped")


def bridge(state: str, report_fd: int, arguments: list[str]) -> None:
    """Serves, and reports on `report_fd` once the state holds."""
    from dspex_bridge import loop

    serve = loop.serve

    def in_state(*arguments: object) -> None:
        threading.Thread(target=enter, args=(state, report_fd), daemon=True).start()
        serve(*arguments)  # type: ignore[arg-type]

    # After the descriptors are claimed and the guard is there: as late as a program's own code.
    loop.serve = in_state  # type: ignore[assignment]
    from dspex_bridge import cli

    cli.bridge(arguments)


def enter(state: str, report_fd: int) -> None:
    if state == "gil":
        import ctypes

        # PyDLL does not release the lock for the call. The report comes from C as well: no Python
        # runs any more, and the canary, a thread that wrote all the time, stands still.
        threading.Thread(target=sing, args=(report_fd,), daemon=True).start()
        libc = ctypes.PyDLL(None)
        script = f"echo held >&{report_fd}; exec sleep 1000"
        libc.system(script.encode())
        return
    if state == "grandchild":
        subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL)
    if state == "busy":
        threading.Thread(target=spin, daemon=True).start()
    os.write(report_fd, b"there\n")
    if state == "stopped":
        os.kill(os.getpid(), signal.SIGSTOP)


def spin() -> None:
    while True:
        sum(range(1000))


def sing(report_fd: int) -> None:
    while True:
        os.write(report_fd, b".")


def wait_until_silent(fd: int) -> None:
    """Until the canary stands still: it would fill the pipe in less than a millisecond."""
    import select

    while select.select([fd], [], [], 0.2)[0]:
        os.read(fd, 65536)


def client(state: str, *forked: str) -> None:
    read_fd, write_fd = os.pipe()
    process = subprocess.Popen(
        [sys.executable, __file__, "bridge", state, str(write_fd), *forked],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(write_fd,),
        start_new_session=True,
    )
    os.close(write_fd)
    assert process.stdin is not None
    assert process.stdout is not None
    pids = [process.pid]
    end, to_bridge, from_bridge = process.stdin.close, process.stdin, process.stdout
    if forked:
        answer = ask(process.stdin, process.stdout, "fork", {})
        pids.append(answer["pid"])
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(answer["path"])
        to_bridge, from_bridge = connection.makefile("wb"), connection.makefile("rb")

        def end() -> None:
            connection.shutdown(socket.SHUT_RDWR)

    if state in ("gil", "stopped"):  # these two may be in their state before the answer
        to_bridge.write(PING)
        to_bridge.flush()
    else:
        ask(to_bridge, from_bridge, "ping", {})
    report = b""
    while b"\n" not in report:
        report = os.read(read_fd, 65536)
    if state == "gil":
        wait_until_silent(read_fd)
    while state == "stopped" and state_of(pids[-1]) != "T":
        os.sched_yield()
    if forked:
        pids.insert(1, spare_of(*pids))
    sys.stdout.write(f"{' '.join(map(str, pids))}\n")
    sys.stdout.flush()
    # Told to, by the end of its own stdin, it closes its end of the connection and lives on.
    sys.stdin.read()
    end()
    threading.Event().wait()


PING = frame(encode([0, 1, "ping", {}]))


def ask(to: IO[bytes], answers: IO[bytes], method: str, params: dict[str, Any]) -> Any:
    to.write(frame(encode([0, 1, method, params])))
    to.flush()
    while True:
        message = decode(answers.read(int.from_bytes(answers.read(4), "big")))
        if message[:2] == [1, 1]:
            assert message[2] is None, message
            return message[3]


def state_of(pid: int) -> str:
    """A letter, as `ps` has it."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def spare_of(server: int, *known: int) -> int:
    """The bridge that a fork server has forked ahead, once its guard is there: a child that leads a
    group, and is none of those that are known."""
    while True:
        with open(f"/proc/{server}/task/{server}/children") as children:
            for pid in map(int, children.read().split()):
                if pid not in known and len(group(pid)) > 1:
                    return pid
        os.sched_yield()


def group(leader: int) -> dict[int, str]:
    """The processes of a group that are not dead yet: pid -> name. A zombie (Z) is dead."""
    alive = {}
    for entry in os.scandir("/proc"):
        if not entry.name.isdecimal():
            continue
        try:
            with open(f"/proc/{entry.name}/stat") as stat:
                name, _, rest = stat.read().partition("(")[2].rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _parent, pgrp = rest.split()[:3]
        if int(pgrp) == leader and state not in ("Z", "X"):
            alive[int(entry.name)] = name
    return alive


def seconds_until_gone(pids: list[int], timeout_s: float) -> float | None:
    """Waits until all of `pids` are dead; None where some were not within `timeout_s`."""
    import select

    started = time.monotonic()
    poller = select.poll()
    fds = set()
    for pid in pids:
        try:
            fds.add(os.pidfd_open(pid))
        except ProcessLookupError:
            continue
    for fd in fds:
        poller.register(fd, select.POLLIN)
    try:
        left = set(fds)
        while left:
            remaining = timeout_s - (time.monotonic() - started)
            ready = poller.poll(max(0.0, remaining) * 1000)
            if not ready:
                return None
            for fd, _ in ready:
                poller.unregister(fd)
                left.discard(fd)
    finally:
        for fd in fds:
            os.close(fd)
    return time.monotonic() - started


if __name__ == "__main__":
    if sys.argv[1] == "client":
        client(sys.argv[2], *sys.argv[3:])
    else:
        bridge(sys.argv[2], int(sys.argv[3]), ["--fork-server"] if sys.argv[4:] else [])
