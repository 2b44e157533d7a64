"""Requests to the client: its own tools and metrics, called from inside a program."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from dspex_protocol.connection import Answered

    from .host import Host

__all__ = ["Callbacks"]


class Callbacks:
    """Waits for answers on the event loop. Any number are open at once, and they nest: while a
    tool runs, the client may send requests of its own."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def request(self, method: str, params: dict[str, Any]) -> Any:
        """The client's answer. Raises the error that it answered with; a wait that is cancelled
        cancels the request."""
        connection = self._host.connection
        answer = self._host.runner.loop.create_future()
        request_id = connection.send_request(method, params, waiter=answer)
        self._host.flush()
        try:
            return await answer
        finally:
            if connection.give_up(request_id):
                connection.send_notification("cancel", {"id": request_id})
                self._host.flush()

    def answered(self, event: Answered) -> None:
        """Called by the reader; the answer is handed over to the loop's thread."""
        self._host.runner.submit(lambda: _settle(event))


def _settle(event: Answered) -> None:
    answer: asyncio.Future[Any] = event.waiter
    if answer.done():
        return
    if event.error is None:
        answer.set_result(event.result)
    else:
        answer.set_exception(event.error)
