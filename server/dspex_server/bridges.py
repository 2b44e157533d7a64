"""A pool of bridges, each replaced when it ends, and given each program once.

One is started with the server, to say whether it takes the LMs; the others when they are needed.

What a bridge holds is a copy: revisions come from the database, and a bridge that was killed is
made again from there. A run that was under way in it is run again elsewhere, a few times at most
where it comes no further, so that an input that kills bridges does not kill them for ever.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_protocol.client import Client
from dspex_protocol.errors import (
    ConnectionLostError,
    InvalidParamsError,
    NotFoundError,
    ShuttingDownError,
)

from .errors import BridgeUnavailableError, RefusedLMsError
from .loaded import LoadedPrograms

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping

    from dspex_protocol.messages import Notification

    from .loaded import Stored

__all__ = ["BridgeOptions", "Bridges"]

T = TypeVar("T")

# A bridge with fewer runs than this under way takes more before another one is started.
_BUSY = 8

# Of one run: its own, and two more for bridges that ended under it.
MAX_ATTEMPTS = 3

# How long a bridge that wants to be replaced may finish what it has.
_RETIRE_S = 60.0

_COMMAND = (sys.executable, "-P", "-m", "dspex_bridge")

_log = logging.getLogger("dspex.server")


@dataclass(frozen=True)
class BridgeOptions:
    """`lms` and `default_lm` as `configure` takes them; `command` is this Python's by default."""

    size: int
    lms: Mapping[str, Any]
    default_lm: str
    state_dir: str | None = None
    command: tuple[str, ...] | None = None
    env: Mapping[str, str] | None = None


class _Worker:
    def __init__(self, client: Client) -> None:
        self.client = client
        self.programs = LoadedPrograms(client)
        self.in_flight = 0
        self.is_retiring = False


class Bridges:
    """Belongs to one event loop. `close` ends every bridge."""

    def __init__(self, options: BridgeOptions) -> None:
        self._options = options
        self._workers: list[_Worker] = []
        self._starting: set[asyncio.Task[_Worker]] = set()
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def pids(self) -> list[int]:
        """Of the bridges that run."""
        return [worker.client.process.pid for worker in self._workers if worker.client.process]

    @property
    def lms(self) -> Collection[str]:
        """The names of the LMs that each of them is given."""
        return self._options.lms.keys()

    async def start(self) -> None:
        """Returns when the first one is configured, or cannot be started: then it is when it is
        needed. Raises RefusedLMsError, and what else `configure` raises."""
        try:
            await self._spawn()
        except BridgeUnavailableError as error:
            _log.error("%s", error)
        except (InvalidParamsError, NotFoundError) as error:
            raise RefusedLMsError(error.message, data=error.data) from error

    async def run(
        self,
        program: Stored,
        work: Callable[[Client, str], Awaitable[T]],
        kept: Callable[[], int] = lambda: 0,
    ) -> T:
        """What `work` returns, given a bridge's client and the program's id there.

        Where the bridge ends under it, it is called again with another one. Raises
        ConnectionLostError where that happened `MAX_ATTEMPTS` times and what the work has `kept`
        for the next attempt was no more than before it, UnavailableError where no bridge can be
        started, and what `load` and the work raise.
        """
        attempt, most = 0, kept()
        while True:
            attempt += 1
            try:
                worker = await self._take()
            except BridgeUnavailableError:
                if attempt == MAX_ATTEMPTS:
                    raise
                continue  # it may have been killed while it started
            worker.in_flight += 1
            try:
                async with worker.programs.using(program) as key:
                    return await work(worker.client, key)
            except ConnectionLostError as error:
                self._drop(worker)
                if kept() > most:
                    attempt, most = 1, kept()
                if attempt == MAX_ATTEMPTS:
                    raise ConnectionLostError(
                        f"the bridge ended {attempt} times while it ran this: its log says why"
                    ) from error
                _log.warning("a bridge ended with work under way, which is run again elsewhere")
            finally:
                worker.in_flight -= 1
                if worker.is_retiring and worker.in_flight == 0:
                    self._drop(worker)

    async def close(self) -> None:
        self._is_closed = True
        for starting in list(self._starting):
            starting.cancel()
        await asyncio.gather(*self._starting, return_exceptions=True)
        for worker in list(self._workers):
            self._drop(worker)
        await asyncio.gather(*self._closing)

    async def _take(self) -> _Worker:
        """The one that has the least to do. Another is started where all are busy."""
        if self._is_closed:
            raise ShuttingDownError("the server is shutting down")
        free = [worker for worker in self._workers if not worker.is_retiring]
        least = min(free, key=lambda worker: worker.in_flight, default=None)
        has_room = len(free) + len(self._starting) < self._options.size
        if (least is None or least.in_flight >= _BUSY) and (
            has_room or (least is None and not self._starting)
        ):
            self._start()
        if least is not None:
            return least
        # One waiter's cancellation is not that of the bridge.
        done, _ = await asyncio.wait(list(self._starting), return_when=asyncio.FIRST_COMPLETED)
        starting = done.pop()
        if starting.cancelled():
            raise ShuttingDownError("the server is shutting down")
        return starting.result()

    def _start(self) -> None:
        starting = asyncio.create_task(self._spawn())
        self._starting.add(starting)

        def started(task: asyncio.Task[_Worker]) -> None:
            self._starting.discard(task)
            if not task.cancelled() and task.exception() is not None:
                _log.error("%s", task.exception())

        starting.add_done_callback(started)

    async def _spawn(self) -> _Worker:
        options = self._options
        command = [*(options.command or _COMMAND)]
        if options.state_dir is not None:
            command += ["--state-dir", options.state_dir]
        workers: list[_Worker] = []

        def hear(notification: Notification) -> None:
            if notification.method == "unhealthy" and workers:
                reason = notification.params.get("reason")
                _log.warning("a bridge is replaced: it said that it is unhealthy (%s)", reason)
                self._retire(workers[0])

        try:
            client = await Client.spawn(command, env=options.env, listener=hear)
            try:
                await client.configure(lms=dict(options.lms), default_lm=options.default_lm)
            except BaseException:
                await client.close()
                raise
        except (OSError, ConnectionLostError) as error:
            raise BridgeUnavailableError(
                f"no bridge can be started with {command[0]!r}: {error}"
            ) from error
        worker = _Worker(client)
        workers.append(worker)
        self._workers.append(worker)
        return worker

    def _retire(self, worker: _Worker) -> None:
        worker.is_retiring = True
        if worker.in_flight == 0:
            self._drop(worker)
        else:
            asyncio.get_running_loop().call_later(_RETIRE_S, self._drop, worker)

    def _drop(self, worker: _Worker) -> None:
        if worker not in self._workers:
            return
        self._workers.remove(worker)
        closing = asyncio.create_task(worker.client.close())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
