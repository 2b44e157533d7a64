"""Work whose news and result go out as server-sent events; who hangs up ends it."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import DSPexError, InternalError
from starlette.responses import Response

from dspex_server.resources.executions import error_map

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.types import Receive, Scope, Send

    #: Tells of an event; what comes third is called once it has been passed on to the client.
    Tell = Callable[[str, Mapping[str, Any], Callable[[], object] | None], None]

__all__ = ["EventStream"]

_HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

_log = logging.getLogger("dspex.server")


class EventStream(Response):
    """`work` is given a function to tell events with. The last event is `result`, what it
    returned, or `error`. A client that has gone has the work cancelled."""

    media_type = "text/event-stream"

    def __init__(self, work: Callable[[Tell], Awaitable[Mapping[str, Any]]]) -> None:
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
        waiting: asyncio.Queue[tuple[str, Any, Any] | None] = asyncio.Queue()

        def tell(event: str, data: Any, passed_on: Any = None) -> None:
            waiting.put_nowait((event, data, passed_on))

        async def work() -> None:
            try:
                tell("result", await self._work(tell))
            except DSPexError as error:
                tell("error", error_map(error))
            except RecursionError:
                tell("error", error_map(InternalError("a value is nested too deep")))
            except Exception as error:  # noqa: BLE001 - the client must be told something
                _log.exception("a call failed")
                text = f"the server failed ({type(error).__name__}): its log says how"
                tell("error", error_map(InternalError(text)))
            finally:
                waiting.put_nowait(None)

        headers = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(headers)
        working = asyncio.create_task(work())
        try:
            while (event := await waiting.get()) is not None:
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
