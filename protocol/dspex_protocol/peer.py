"""One end of a connection, over two asyncio streams: asks, answers and hears.

Every request raises the `DSPexError` that the other end answered with, ConnectionLostError where it
went away before it answered, and EncodeError (a ValueError) for a value that cannot be sent. A task
that is cancelled while it waits cancels its request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self, TypeAlias

from .connection import Answered, Connection, Event, Refused
from .errors import DSPexError, InternalError, MethodNotFoundError, RequestCancelledError
from .framing import DEFAULT_MAX_FRAME_BYTES
from .messages import Notification, Request

__all__ = ["Handler", "Listener", "Peer"]

#: Answers a request from the bridge: the tools and metrics of this program.
Handler: TypeAlias = Callable[[dict[str, Any]], Awaitable[Any]]

#: Hears a notification. It must return at once; what it raises is logged.
Listener: TypeAlias = Callable[[Notification], None]

# Notifications about a request of ours: once it has ended, nobody is left to hear them.
_ABOUT_A_REQUEST = frozenset({"chunk", "item", "progress"})

_READ_BYTES = 64 * 1024

# A bridge ends within a second of its answer to `shutdown`, and at once when its stdin ends.
_EXIT_TIMEOUT_S = 5.0

_log = logging.getLogger("dspex.client")


class Peer:
    """A connection to a bridge, with the process where it has one."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        handlers: Mapping[str, Handler] | None = None,
        listener: Listener | None = None,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        peer_max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        process: asyncio.subprocess.Process | None = None,
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer
        self._handlers = dict(handlers or {})
        self._listener = listener
        self._connection = Connection(max_frame_bytes)
        self._connection.peer_max_frame_bytes = peer_max_frame_bytes
        self._listeners: dict[int, Listener | None] = {}
        self._handling: dict[Request, asyncio.Task[None]] = {}
        self._receiving = asyncio.create_task(self._receive(), name="dspex-client")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection, and with it the bridge, at once: what is in flight is lost.

        `shutdown` first lets it finish.
        """
        self._writer.close()
        # A task of its own: a timeout around wait_closed() would cancel the stream's own future.
        ended = asyncio.create_task(self._ended())
        if not (await asyncio.wait({ended}, timeout=_EXIT_TIMEOUT_S))[0]:
            _log.warning("the bridge did not end, or did not read, when it was left: cut off")
            if self.process is None:
                self._writer.transport.abort()
            else:
                with contextlib.suppress(ProcessLookupError):
                    self.process.kill()
            await ended
        self._receiving.cancel()
        self._end()
        # A handler may be the one that closes.
        tasks = {self._receiving, *self._handling.values()} - {asyncio.current_task()}
        await asyncio.wait(tasks, timeout=_EXIT_TIMEOUT_S)

    async def _ended(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
        if self.process is not None:
            await self.process.wait()

    # Requests

    async def request(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        *,
        timeout_ms: int | None = None,
        listener: Listener | None = None,
    ) -> Any:
        """Sends a request and waits for its answer.

        `timeout_ms` is the bridge's deadline for it; `listener` hears the notifications that are
        about this request (`chunk`, `item`, `progress`).
        """
        own = {key: value for key, value in (params or {}).items() if value is not None}
        if timeout_ms is not None:
            own["timeout_ms"] = timeout_ms
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        request_id = self._connection.send_request(method, own, waiter=answer)
        self._listeners[request_id] = listener or self._listener
        try:
            await self._send()
            return await answer
        finally:
            self._listeners.pop(request_id, None)
            if self._connection.give_up(request_id):
                self._connection.send_notification("cancel", {"id": request_id})
                self._flush()

    def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Sends a notification."""
        self._connection.send_notification(method, dict(params))
        self._flush()

    # Input and output

    async def _send(self) -> None:
        self._flush()
        # A bridge that has gone is told by the end of its stdout, to everybody at once.
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def _flush(self) -> None:
        data = self._connection.data_to_send()
        if data and not self._writer.is_closing():
            self._writer.write(data)

    async def _receive(self) -> None:
        try:
            while data := await self._reader.read(_READ_BYTES):
                for event in self._connection.receive_data(data):
                    self._handle(event)
                self._flush()
        except OSError as error:
            _log.info("the connection broke: %s", error)
        finally:
            # Whatever ended this, nobody may wait for an answer that nobody reads.
            self._end()

    def _end(self) -> None:
        for event in self._connection.receive_eof():
            self._handle(event)
        for task in self._handling.values():
            if not task.cancelling():  # a second cancel would cut off what the first one cleans up
                task.cancel()

    def _handle(self, event: Event) -> None:
        if isinstance(event, Answered):
            # Now, and not when its task runs: a chunk that comes behind it is nobody's.
            self._listeners.pop(event.id, None)
            answer: asyncio.Future[Any] = event.waiter
            if answer.done():  # its task was cancelled just now
                return
            if event.error is None:
                answer.set_result(event.result)
            else:
                answer.set_exception(event.error)
        elif isinstance(event, Notification):
            self._hear(event)
        elif isinstance(event, Request):
            task = asyncio.create_task(self._serve(event))
            self._handling[event] = task
            task.add_done_callback(lambda _: self._handling.pop(event, None))
        elif isinstance(event, Refused):
            _log.warning("a bad frame from the bridge was refused: %s", event.error)
        else:
            _log.warning("%s", event.reason)

    def _hear(self, notification: Notification) -> None:
        about = notification.params.get("id")
        request_id: int = about if type(about) is int else -1  # which no request has
        if notification.method == "cancel":
            self._cancel(request_id)
            return
        listener = self._listener
        if notification.method in _ABOUT_A_REQUEST:
            listener = self._listeners.get(request_id)
        if listener is not None:
            try:
                listener(notification)
            except Exception:  # noqa: BLE001 - one listener's failure is not the connection's
                _log.exception("a listener failed at %s", notification.method)

    def _cancel(self, request_id: int) -> None:
        """Answers a request of the bridge's at once; its handler may take its time to end."""
        for request, task in self._handling.items():
            if request.id == request_id and self._connection.is_open(request):
                cancelled = RequestCancelledError("the bridge cancelled the request")
                self._connection.send_error(request, cancelled)
                task.cancel()

    async def _serve(self, request: Request) -> None:
        """Answers a request of the bridge's."""
        handler = self._handlers.get(request.method)
        try:
            if handler is None:
                raise MethodNotFoundError(f"this client has no {request.method!r}")
            self._connection.send_result(request, await handler(request.params))
        except asyncio.CancelledError:
            self._connection.send_error(request, RequestCancelledError("the handler was cancelled"))
        except DSPexError as error:
            self._connection.send_error(request, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the bridge is told
            _log.exception("the handler of %s failed", request.method)
            self._connection.send_error(request, InternalError(f"{type(error).__name__}: {error}"))
        self._flush()
