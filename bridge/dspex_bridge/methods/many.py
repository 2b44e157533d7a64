"""Many runs of one request: as many at once as it says, and what is told of them meanwhile."""

from __future__ import annotations

from dspex_protocol.codec import EncodeError
from dspex_protocol.errors import FrameTooLargeError, InternalError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.host import Host

__all__ = ["DEFAULT_CONCURRENCY", "MAX_CONCURRENCY", "Halt", "Teller", "run_many"]

# Enough to keep a provider busy, and few enough for its rate limits where nothing is said.
DEFAULT_CONCURRENCY = 16

# What one process is meant for at once.
MAX_CONCURRENCY = 4096


class Halt(Exception):
    """Raised by one of many to end them all."""


async def run_many(
    count: int, concurrency: int | None, run: Callable[[int], Awaitable[None]]
) -> bool:
    """Runs `run(index)` for each index, in order, at most `concurrency` at once.

    False where one of them halted: the others have been cancelled, and have ended. What else one
    raises ends them all, too, and is raised here.
    """
    import asyncio

    rest = iter(range(count))

    async def work() -> None:
        for index in rest:
            await run(index)
            # A run that is over before it has waited for anything must not keep the loop.
            await asyncio.sleep(0)

    tasks = [
        asyncio.create_task(work()) for _ in range(min(concurrency or DEFAULT_CONCURRENCY, count))
    ]
    try:
        await asyncio.gather(*tasks)
    except Halt:
        return False
    finally:
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
    return True


class Teller:
    """Sends `item` and `progress` of a request, none of them after its response."""

    def __init__(self, host: Host, call: Call, total: int) -> None:
        self._host = host
        self._call = call
        self._total = total
        self._step = 0

    async def item(self, index: int, outcome: dict[str, Any]) -> None:
        """One element of a batch, once the client has read enough of those before it. One that
        cannot be sent is told as the error that says so."""
        await self._host.outflow.room()
        about = {"id": self._call.request.id, "index": index}
        try:
            self._send_item({**about, **outcome})
        except FrameTooLargeError as error:
            self._send_item({**about, "error": error.to_wire()})
        except EncodeError as error:
            unsendable = InternalError(f"the result cannot be sent: {error}")
            self._send_item({**about, "error": unsendable.to_wire()})

    def progress(self) -> None:
        """One more is done."""
        self._step += 1
        request = self._call.request
        params = {"id": request.id, "step": self._step, "total": self._total}
        self._host.connection.send_notification("progress", params, about=request)
        self._host.flush()

    def _send_item(self, params: dict[str, Any]) -> None:
        self._host.connection.send_notification("item", params, about=self._call.request)
        self._host.flush()
