"""Work whose news and result go out as server-sent events; who hangs up ends it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import DSPexError, InternalError
from starlette.responses import Response

from dspex_server.resources.executions import error_map

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import Receive, Scope, Send

__all__ = ["MAX_NEWS", "MAX_WAITING", "EventStream", "Outbox"]

# Events of one client that it has not read: those of a batch may each have a megabyte.
MAX_WAITING = 64

# Of news that are small, and that come in bursts whether there is room or not.
MAX_NEWS = 1_000

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

_log = logging.getLogger("dspex.server")


class Outbox:
    """Events on their way to a client, which may read them slowly, or not at all.

    Whoever makes many keeps them few: it waits for `room`, or goes on with a stream when a piece of
    it has been passed on, or tells the newest alone. Belongs to one event loop.
    """

    def __init__(self) -> None:
        self._events: deque[tuple[str, Any, Callable[[], object] | None]] = deque()
        self._news = asyncio.Event()
        self._read = asyncio.Event()
        self._is_closed = False

    async def room(self) -> None:
        """Returns when there is some."""
        while len(self._events) >= MAX_WAITING:
            self._read.clear()
            await self._read.wait()

    def tell(
        self, event: str, data: Mapping[str, Any], passed_on: Callable[[], object] | None = None
    ) -> None:
        """`passed_on` is called once the client's connection has taken it."""
        self._events.append((event, data, passed_on))
        self._news.set()

    def tell_newest(self, event: str, data: Mapping[str, Any]) -> None:
        """In the place of the last one of its kind where very many wait."""
        if len(self._events) >= MAX_NEWS:
            for index in reversed(range(len(self._events))):
                if self._events[index][0] == event:
                    self._events[index] = (event, data, None)
                    return
        self.tell(event, data)

    def close(self) -> None:
        """The last event has been told."""
        self._is_closed = True
        self._news.set()

    async def next(self) -> tuple[str, Any, Callable[[], object] | None] | None:
        """None after the last one."""
        while not self._events:
            if self._is_closed:
                return None
            self._news.clear()
            await self._news.wait()
        event = self._events.popleft()
        self._read.set()
        return event


class EventStream(Response):
    """`work` is given the box for its events. The last event is `result`, what it
    returned, or `error`. A client that has gone has the work cancelled."""

    media_type = "text/event-stream"

    def __init__(self, work: Callable[[Outbox], Awaitable[Mapping[str, Any]]]) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self._work = work

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        async def left() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        answering = asyncio.create_task(self._answer(send))
        leaving = asyncio.create_task(left())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            # The work may write down how it ended.
            for task in (answering, leaving):
                task.cancel()
            ended = await asyncio.gather(answering, leaving, return_exceptions=True)
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome

    async def _answer(self, send: Send) -> None:
        outbox = Outbox()
        tell = outbox.tell

        async def work() -> None:
            try:
                tell("result", await self._work(outbox))
            except DSPexError as error:
                tell("error", error_map(error))
            except RecursionError:
                tell("error", error_map(InternalError("a value is nested too deep")))
            except Exception as error:  # noqa: BLE001 - the client must be told something
                _log.exception("a call failed")
                text = f"the server failed ({type(error).__name__}): its log says how"
                tell("error", error_map(InternalError(text)))
            finally:
                outbox.close()

        headers = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(headers)
        working = asyncio.create_task(work())
        try:
            while (event := await outbox.next()) is not None:
                name, data, passed_on = event
                await send(
                    {"type": "http.response.body", "body": _event(name, data), "more_body": True}
                )
                if passed_on is not None:
                    passed_on()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)


def _event(name: str, data: Any) -> bytes:
    # JSON has its line breaks escaped: the data is one line.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()
