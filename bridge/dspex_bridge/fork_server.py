"""The fork server: imports DSPy once, in one thread, and forks bridges that are ready at once.

`dspex bridge --fork-server [OPTION ...]`. How it is made:

1. Its own stdin and stdout are a connection like a bridge's, and everyone's lifeline: their end is
   the end of the server and of every bridge that it forked. It knows two methods, `fork` and
   `ping`, and tells `exited`.
2. It keeps a spare: a bridge that is forked ahead, when there has been nothing else to do for a
   moment, and has all but a client (see `forked`). `fork` makes a socket in a folder that only this
   user may enter, gives it to the spare, and answers with the socket's path and the spare's pid.
   Where there is no spare, one is forked first.
3. A spare is nobody's. What becomes of it is not told, one that was killed is replaced with the
   next `fork`, and it ends when the server closes its end of the channel between the two.
4. The server has one thread, and looks before it forks: a lock that another thread holds at a fork
   is held for ever.
5. What was imported is frozen, so that no collection writes to it and it stays shared.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys

from dspex_protocol.connection import Connection
from dspex_protocol.errors import DSPexError, InternalError, MethodNotFoundError, ShuttingDownError
from dspex_protocol.messages import Request
from dspex_protocol.spelling import suggestion

from . import loop
from .exceptions import describe
from .forked import become_a_bridge
from .params import COMMON, anything, quoted, record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .host import Options
    from .stdio import Wire

__all__ = ["METHODS", "make_folder", "serve"]

# The one that was handed out has its first answer behind it by then: making the next one, which
# takes a processor 10 ms, would hold that up by half its time where there are two processors.
_AHEAD_AFTER_MS = 5

_READ_BYTES = 64 * 1024

# The least of the systems' limits for the path of a socket (macOS: 104 bytes with the final zero),
# without the number behind the folder.
_MAX_FOLDER_BYTES = 90

# They end the bridges, and with the last of them the server.
_PASSED_ON = (signal.SIGTERM, signal.SIGINT)


def make_folder() -> str:
    """A new folder that only this user may enter, with a path that is short enough for sockets."""
    from tempfile import gettempdir, mkdtemp

    # TMPDIR may be deep.
    is_short = len(os.fsencode(gettempdir())) < _MAX_FOLDER_BYTES - len("/dspex-fork-12345678")
    return mkdtemp(prefix="dspex-fork-", dir=None if is_short else "/tmp")  # noqa: S108 - made unguessably


def serve(wire: Wire, options: Options, folder: str) -> NoReturn:
    """Serves until the client is gone; the process exits here. `folder` is the sockets' own, which
    the guard removes."""
    _import()
    _ForkServer(wire, options, folder).run()


def _import() -> None:
    """All that a bridge needs for its first calls."""
    # NumPy's threads would make every fork a gamble.
    os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    try:
        import asyncio
        import concurrent.futures.thread

        from . import engine
        from .programs import registry

        engine.preload()
        del asyncio, concurrent, registry
    except Exception as error:  # noqa: BLE001 - a package may raise anything
        # Each bridge tries it again, and tells its client what came of it.
        sys.stderr.write(f"dspex bridge: DSPy could not be imported: {describe(error)}\n")
    gc.collect()
    gc.freeze()


class _Spare:
    """A bridge that was forked ahead, and waits for the socket where its client will find it."""

    __slots__ = ("_channel", "pid")

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self._channel = channel

    def hand_out(self, listener: socket.socket) -> None:
        """Gives it its socket. Raises ConnectionError where it is no more."""
        with self._channel:
            socket.send_fds(self._channel, [b"\0"], [listener.fileno()])

    def is_gone(self) -> bool:
        """Whether it was killed, which is seen here before its end can be waited for."""
        poller = select.poll()
        poller.register(self._channel, 0)
        return bool(poller.poll(0))

    def drop(self) -> None:
        """It ends."""
        self._channel.close()


class _ForkServer:
    def __init__(self, wire: Wire, options: Options, folder: str) -> None:
        self._wire = wire
        self._options = options
        self._folder = folder
        self._connection = Connection(options.max_frame_bytes)
        self._number = 0
        self._alive: set[int] = set()
        self._spare: _Spare | None = None
        # At first, and after each that was handed out; one that was killed, or could not be
        # forked, is none that the next `fork` has to wait for.
        self._is_spare_due = True
        self._is_asked_to_leave = False
        self._is_leaving = False
        # Written by a client that may be slow, and by nobody else: to wait is all there is to do.
        os.set_blocking(wire.write_fd, True)
        self._signals, self._wake = os.pipe()
        os.set_blocking(self._signals, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in _PASSED_ON:
            signal.signal(number, self._ask_to_leave)

    def run(self) -> NoReturn:
        poller = select.poll()
        poller.register(self._wire.read_fd, select.POLLIN)
        poller.register(self._signals, select.POLLIN)
        while not (self._is_leaving and not self._alive):
            ready = {fd for fd, _ in poller.poll(_AHEAD_AFTER_MS if self._is_spare_due else None)}
            if not ready:
                self._fork_ahead()
            if self._signals in ready:
                os.read(self._signals, _READ_BYTES)
                self._reap()
                if self._is_asked_to_leave and not self._is_leaving:
                    self._leave()
            if self._wire.read_fd in ready and not self._receive():
                break
            self._send()
        # The guard ends the bridges, and removes the folder.
        os._exit(0)

    def _receive(self) -> bool:
        """Handles what one read brings; False at the end of the stream."""
        data = loop.read(self._wire.read_fd)
        for event in self._connection.receive_data(data):
            if isinstance(event, Request):
                self._answer(event)
        return bool(data)

    def _send(self) -> None:
        data = memoryview(self._connection.data_to_send())
        while data:
            try:
                data = data[os.write(self._wire.write_fd, data) :]
            except BrokenPipeError:
                os._exit(0)

    def _answer(self, request: Request) -> None:
        try:
            method = METHODS.get(request.method)
            if method is None:
                raise MethodNotFoundError(
                    f"a fork server has no method {quoted(request.method)}."
                    f"{suggestion(request.method, METHODS)} Valid: {', '.join(METHODS)}. "
                    "The others are those of the bridges that it forks."
                )
            handler, check = method
            check(request.params, request.method)
            self._connection.send_result(request, handler(self, request.params))
        except DSPexError as error:
            self._connection.send_error(request, error)
        except Exception as error:  # noqa: BLE001 - the boundary: whatever it is, the client is told
            self._connection.send_error(request, InternalError(describe(error), retryable=True))

    def _ping(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"payload": params.get("payload")}

    def _fork(self, _params: dict[str, Any]) -> dict[str, Any]:
        if self._is_leaving:
            raise ShuttingDownError("the fork server is ending: start another one")
        if self._spare is not None and self._spare.is_gone():
            self._drop_spare()
        # Before there is a socket, of which it would have a descriptor for ever.
        if self._spare is None:
            self._spare = self._fork_one()
        self._number += 1
        path = f"{self._folder}/{self._number}"
        with socket.socket(socket.AF_UNIX) as listener:
            self._bind(listener, path)
            spare, self._spare = self._spare, None
            try:
                listener.listen(1)
                spare.hand_out(listener)
            except OSError:
                os.unlink(path)  # noqa: PTH108 - pathlib is a slow import
                raise
        self._alive.add(spare.pid)
        self._is_spare_due = True
        return {"pid": spare.pid, "path": path}

    def _bind(self, listener: socket.socket, path: str) -> None:
        try:
            listener.bind(path)
        except FileNotFoundError:
            # Systems remove what is old from their temporary folder.
            os.mkdir(self._folder, 0o700)  # noqa: PTH102
            listener.bind(path)

    def _fork_ahead(self) -> None:
        try:
            self._spare = self._fork_one()
        except (DSPexError, OSError):
            # No more than time is lost. The next `fork` tries it again, and tells what came of it.
            return

    def _fork_one(self) -> _Spare:
        self._is_spare_due = False
        threads = _threads()
        if threads > 1:
            raise InternalError(
                f"the fork server has {threads} threads, and a fork would keep the locks of all "
                "but one: some package of this environment starts threads when it is imported. "
                "Start each bridge by itself, without --fork-server"
            )
        server = os.getpid()
        channel, its_own = socket.socketpair()
        # What comes before the child is one that ends by it would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, _PASSED_ON)
        try:
            pid = os.fork()
        except OSError:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
            channel.close()
            its_own.close()
            raise
        if pid == 0:
            # Whatever happens in it, a bridge never goes on as a second fork server.
            try:
                self._forget()
                channel.close()
                become_a_bridge(its_own, self._options, server)
            except BaseException:  # noqa: BLE001 - nobody is above it
                import traceback

                traceback.print_exc()
            finally:
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        its_own.close()
        return _Spare(pid, channel)

    def _drop_spare(self) -> None:
        if self._spare is not None:
            self._spare.drop()
            self._spare = None

    def _forget(self) -> None:
        """Lets go of what is the server's, in a process that was forked."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *_PASSED_ON):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _PASSED_ON)
        for own in (self._wire.read_fd, self._wire.write_fd, self._signals, self._wake):
            os.close(own)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._alive:
                self._alive.discard(pid)
                exited = {"pid": pid, "status": os.waitstatus_to_exitcode(status)}
                self._connection.send_notification("exited", exited)

    def _ask_to_leave(self, *_signal: object) -> None:
        self._is_asked_to_leave = True

    def _leave(self) -> None:
        """SIGTERM: each bridge finishes what is in flight; the server ends with the last one."""
        self._is_leaving = True
        self._is_spare_due = False
        self._drop_spare()
        for pid in self._alive:
            os.kill(pid, signal.SIGTERM)


METHODS: dict[str, tuple[Callable[..., dict[str, Any]], Callable[[Any, str], None]]] = {
    "fork": (_ForkServer._fork, record(optional=COMMON)),
    "ping": (_ForkServer._ping, record(optional={"payload": anything, **COMMON})),
}


def _threads() -> int:
    """Those of C libraries too, where the system tells; else those of Python."""
    try:
        return len(os.listdir("/proc/self/task"))  # noqa: PTH208
    except OSError:
        import threading

        return threading.active_count()
