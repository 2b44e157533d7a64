"""The bridge's side of the jobs: asks the zygote for workers, speaks to them, kills them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

from dspex_protocol.client import Client
from dspex_protocol.errors import ConnectionLostError, InternalError
from dspex_protocol.framing import LARGEST_MAX_FRAME_BYTES

from .environment import worker_environment
from .places import Places
from .zygote import MAX_PACKET_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from dspex_protocol.peer import Handler, Listener

    #: Asks a job, for a reason, to end with what it has.
    Stop: TypeAlias = Callable[[str], None]

__all__ = ["Jobs"]

# As many want a processor at once.
MAX_AT_WORK = 8

# Each is a process of 10 MB and more, and may have a Deno of 100 MB.
MAX_PROCESSES = 64

# A tool may ask a person; 64 at once that have all waited this long are waiting for each other, or
# as good as that.
STALL_S = 30.0

# What the client's own code answers, which may ask for another job, or a program that is run in
# one. The other requests are answered by the bridge alone.
_ANSWERED_OUTSIDE = frozenset({"call_tool", "call_metric", "metric"})

_ZYGOTE = (sys.executable, "-P", "-m", "dspex_bridge.jobs.zygote")

# The import of DSPy takes a second or two; a machine that needs longer than this is lost.
_START_TIMEOUT_S = 60.0


class Jobs:
    """Used on the event loop's thread only. The zygote is started with the first job."""

    def __init__(
        self,
        max_at_work: int = MAX_AT_WORK,
        zygote: tuple[str, ...] = _ZYGOTE,
        max_processes: int = MAX_PROCESSES,
        stall_s: float = STALL_S,
    ) -> None:
        self._places = Places(max_at_work, max_processes, stall_s)
        self._command = zygote
        self._starting = asyncio.Lock()
        self._zygote: _Zygote | None = None

    async def run(
        self,
        kind: str,
        params: Mapping[str, Any],
        *,
        handlers: Mapping[str, Handler],
        listener: Listener,
        started: Callable[[Stop], None] | None = None,
        nice: int = 0,
    ) -> Any:
        """The result of one job. Raises the error that it ended with, and OverloadedError.

        `handlers` answer the worker's requests, `listener` hears its notifications; they run in
        the caller's context. `started` is called with a function that asks the job to end with what
        it has. A caller that is cancelled kills the worker, whatever it does.
        """
        async with self._places.process() as place:
            worker = await (await self._ready_zygote()).fork(nice)
            answering = {
                method: place.left_meanwhile(handler) if method in _ANSWERED_OUTSIDE else handler
                for method, handler in handlers.items()
            }
            try:
                return await worker.run(kind, params, answering, listener, started)
            finally:
                worker.kill()

    @property
    def root_pid(self) -> int | None:
        """The process under which all jobs are; None before the first one. For any thread."""
        zygote = self._zygote
        return None if zygote is None or zygote.is_gone else zygote.pid

    async def close(self) -> None:
        """Ends every job, and the zygote."""
        if self._zygote is not None:
            await self._zygote.close()

    async def _ready_zygote(self) -> _Zygote:
        async with self._starting:
            if self._zygote is None or self._zygote.is_gone:
                self._zygote = await _Zygote.start(self._command)
            return self._zygote


class _Zygote:
    """The process that forks workers, by its control socket."""

    def __init__(self, control: socket.socket, process: asyncio.subprocess.Process) -> None:
        self.is_gone = False
        self.pid = process.pid
        self._control = control
        self._process = process
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.create_future()
        self._forking: deque[asyncio.Future[_Worker]] = deque()
        self._workers: dict[int, _Worker] = {}
        # Packets that the socket had no room for, with the socket that goes along.
        self._unsent: deque[tuple[bytes, socket.socket | None]] = deque()
        self._loop.add_reader(control, self._receive)

    @classmethod
    async def start(cls, command: tuple[str, ...]) -> _Zygote:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=worker_environment(os.environ),
            )
        zygote = cls(ours, process)
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                await zygote._started
        except BaseException:
            zygote._end()
            process.kill()
            raise
        return zygote

    async def fork(self, nice: int) -> _Worker:
        ours, theirs = socket.socketpair()
        forked: asyncio.Future[_Worker] = self._loop.create_future()
        self._forking.append(forked)
        self._send(f"fork {nice}".encode(), theirs)
        try:
            # A worker that nobody waits for any more is killed as soon as it is there.
            worker = await asyncio.shield(forked)
        except asyncio.CancelledError:
            forked.add_done_callback(_kill_unwanted)
            ours.close()
            raise
        except BaseException:
            ours.close()
            raise
        worker.socket = ours
        return worker

    def kill(self, pid: int) -> None:
        if pid in self._workers and not self.is_gone:
            self._send(f"kill {pid}".encode())

    def _send(self, packet: bytes, along: socket.socket | None = None) -> None:
        """In order, now or as soon as the zygote has read others: it never fails. `along` is
        closed when it is sent."""
        self._unsent.append((packet, along))
        if len(self._unsent) == 1:
            self._send_rest()

    def _send_rest(self) -> None:
        while self._unsent:
            packet, along = self._unsent[0]
            try:
                fds = [] if along is None else [along.fileno()]
                socket.send_fds(self._control, [packet], fds)
            except BlockingIOError:
                self._loop.add_writer(self._control, self._send_rest)
                return
            except OSError:
                self._end()
                return
            self._unsent.popleft()
            if along is not None:
                along.close()
        self._loop.remove_writer(self._control)

    async def close(self) -> None:
        self._end()
        await self._process.wait()

    def _receive(self) -> None:
        try:
            packet = self._control.recv(MAX_PACKET_BYTES)
        except OSError:
            packet = b""
        if not packet:
            self._end()
            return
        word, _, rest = packet.decode().partition(" ")
        if word == "ready":
            self._started.set_result(None)
        elif word == "forked":
            worker = self._workers[int(rest)] = _Worker(self, int(rest))
            self._forking.popleft().set_result(worker)
        elif word == "failed":
            error = InternalError(f"no job process can be started: {rest}", retryable=True)
            self._forking.popleft().set_exception(error)
        else:
            pid, status = map(int, rest.split())
            self._workers.pop(pid).exited.set_result(status)

    def _end(self) -> None:
        """The zygote is gone, and its workers with it."""
        if self.is_gone:
            return
        self.is_gone = True
        self._loop.remove_reader(self._control)
        self._loop.remove_writer(self._control)
        self._control.close()
        for _, along in self._unsent:
            if along is not None:
                along.close()
        self._unsent.clear()
        error = "the process that starts jobs ended: what it wrote to stderr says why"
        if not self._started.done():
            self._started.set_exception(InternalError(error))
        for forked in self._forking:
            forked.set_exception(InternalError(error, retryable=True))
        for worker in self._workers.values():
            worker.exited.set_result(None)
        self._workers.clear()


class _Worker:
    def __init__(self, zygote: _Zygote, pid: int) -> None:
        self.pid = pid
        self.socket: socket.socket | None = None
        # Its exit status, None where that is not known.
        self.exited: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._zygote = zygote

    async def run(
        self,
        kind: str,
        params: Mapping[str, Any],
        handlers: Mapping[str, Handler],
        listener: Listener,
        started: Callable[[Stop], None] | None,
    ) -> Any:
        reader, writer = await asyncio.open_connection(sock=self.socket)
        client = Client(
            reader,
            writer,
            handlers=handlers,
            listener=listener,
            max_frame_bytes=LARGEST_MAX_FRAME_BYTES,
            peer_max_frame_bytes=LARGEST_MAX_FRAME_BYTES,
        )
        if started is not None:
            started(lambda reason: client.notify("stop", {"reason": reason}))
        try:
            return await client.request(kind, params)
        except ConnectionLostError as error:
            raise InternalError(
                f"the job process ended before it was done ({_reason(await self.exited)})",
                retryable=True,
            ) from error
        finally:
            self.kill()
            await client.close()

    def kill(self) -> None:
        self._zygote.kill(self.pid)


def _kill_unwanted(forked: asyncio.Future[_Worker]) -> None:
    if not forked.cancelled() and forked.exception() is None:
        forked.result().kill()


def _reason(status: int | None) -> str:
    if status is None:
        return "with the process that started it"
    if status == -9:
        return "killed; where nobody killed it, the machine ran out of memory"
    return f"by signal {-status}" if status < 0 else f"with status {status}"
