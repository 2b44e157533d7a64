"""`dspex serve` and `dspex worker`."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import math
import os
import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn
from dspex_protocol.errors import DSPexError

from .api.web import web
from .db.database import parse_url, place
from .errors import RefusedLMsError
from .lifetime import InUseError, running
from .settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType

    from .app import App
    from .settings import Settings

__all__ = ["main"]

# Calls under way may finish for so long. Those that have not are ended before, and have what is
# left of it to be written down as interrupted and answered.
_GRACE_S = 10
_ANSWERS_S = 2

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def main(command: str, arguments: Sequence[str]) -> int:
    """The exit status. `command` is `serve` or `worker`."""
    settings = read_settings(command, arguments)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        asyncio.run(_serve(settings) if settings.serves else _work(settings))
    except RefusedLMsError as error:
        # Settings are wrong: as where `read_settings` finds it.
        sys.stderr.write(f"dspex {command}: error: {error}\n")
        return _left(2)
    except (InUseError, DSPexError, RuntimeError, OSError) as error:
        sys.stderr.write(f"dspex {command}: {error}\n")
        return _left(1)
    return _left(0)


def _left(status: int) -> int:
    """Python would wait for threads of DBOS, which ask a database that is away for ever. What
    they want is in the database already, or is taken over."""
    if threading.active_count() > 1:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


async def _serve(settings: Settings) -> None:
    with _listener(settings) as listener:
        # Connections inherit it. Without it an answer in two parts waits 40 ms for the client's
        # acknowledgement of the first.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with running(settings) as app:
            config = uvicorn.Config(
                web(app, settings.host, settings.token),
                log_level="warning",
                lifespan="off",
                timeout_graceful_shutdown=_GRACE_S,
                server_header=False,
            )
            await _Server(config, app, settings).serve(sockets=[listener])


def _listener(settings: Settings) -> socket.socket:
    """Raises OSError, which says what cannot be listened at and which setting is another place."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        option = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        reason = str(error.strerror).partition(" (")[0]  # Python repeats the place
        text = f"cannot listen at {_place(settings.host, settings.port)}: {reason}. "
        raise OSError(f"{text}Take another {option}") from error


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, app: App, settings: Settings) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._is_forced = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Not before: whoever has read it may end the server, by a signal that it listens to.
        for listener in sockets or ():
            place = _place(self._settings.host, listener.getsockname()[1])
            _say(self._settings, f"GraphQL at http://{place}/graphql, JSON at /v1/openapi.json")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        until = loop.time() + _GRACE_S
        calls = self._app.executor.calls
        interrupting = loop.call_at(until - _ANSWERS_S, calls.interrupt)
        for server in self.servers:
            server.close()
        # A client that keeps its connection would go on calling. Those over WebSockets uvicorn
        # would cut off.
        websocket = self.config.ws_protocol_class
        for connection in list(self.server_state.connections):
            if websocket is None or not isinstance(connection, websocket):
                connection.shutdown()
        answering = asyncio.create_task(self._answer_websockets())
        forced = asyncio.create_task(self._is_forced.wait())
        try:
            # Uvicorn cuts WebSockets off at once, and waits for HTTP's answers alone.
            await asyncio.wait(
                (answering, forced), timeout=_GRACE_S, return_when=asyncio.FIRST_COMPLETED
            )
            self.config.timeout_graceful_shutdown = math.ceil(max(until - loop.time(), 0.0))
            await super().shutdown(sockets)
        finally:
            for task in (answering, forced, interrupting):
                task.cancel()

    async def _answer_websockets(self) -> None:
        """Those who run programs over one are answered, then those who follow them are told."""
        await self._app.executor.calls.under_way.ended()
        self._app.events.end()
        await self._app.operations.ended()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self.force_exit:
            self._is_forced.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises the signal again, which would end the process before the rest of
        it is closed."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


async def _work(settings: Settings) -> None:
    ended = asyncio.Event()
    for number in _SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with running(settings):
        _say(settings, "waiting for jobs")
        await ended.wait()


def _say(settings: Settings, text: str) -> None:
    if settings.notice is not None:
        sys.stderr.write(f"{settings.notice}\n")
    sys.stderr.write(f"The database is {place(parse_url(settings.database_url))}\n")
    sys.stdout.write(f"dspex: {text}\n")
    sys.stdout.flush()
