"""Lets those who tell a client much wait until it has read."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio

    from .writer import Writer

__all__ = ["OUTFLOW_HIGH", "Outflow"]

# Well below where the bridge stops reading (BACKLOG_HIGH): who makes items and events waits first,
# so that answers, cancels and pings of a slow client still go through.
OUTFLOW_HIGH = 8 * 1024 * 1024


class Outflow:
    """Used on the event loop's thread, but for `is_full`, which any may ask."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._draining: asyncio.Future[bool] | None = None

    @property
    def is_full(self) -> bool:
        return self._writer.backlog > OUTFLOW_HIGH

    async def room(self) -> None:
        """Waits while more than OUTFLOW_HIGH bytes are unsent. However many wait, one thread
        does."""
        import asyncio

        while self.is_full:
            if self._draining is None or self._draining.done():
                self._draining = asyncio.ensure_future(
                    asyncio.to_thread(self._writer.wait_until_below, OUTFLOW_HIGH // 2)
                )
            await asyncio.shield(self._draining)
