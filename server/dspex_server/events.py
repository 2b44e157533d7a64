"""News of resources, for those who wait for them in this process.

What is told is only that a resource changed: who hears it reads the database, so that nobody sees
what was not committed, and a slow one misses nothing that still counts.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import contextmanager
from typing import TYPE_CHECKING

from dspex_protocol.errors import ShuttingDownError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

__all__ = ["MAX_NEWS", "Events", "News"]

# Of one listener: a megabyte.
MAX_NEWS = 10_000


class News:
    """The ids of what changed, each once until it is read. Who does not read misses the oldest."""

    def __init__(self) -> None:
        self._ids: dict[str, None] = {}
        self._event = asyncio.Event()
        self._are_over = False

    def add(self, resource_id: str) -> None:
        self._ids[resource_id] = None
        if len(self._ids) > MAX_NEWS:
            del self._ids[next(iter(self._ids))]
        self._event.set()

    def end(self) -> None:
        self._are_over = True
        self._event.set()

    async def __aiter__(self) -> AsyncIterator[str]:
        """Raises ShuttingDownError after `end`, when all that there was is read."""
        while True:
            await self._event.wait()
            while self._ids:
                resource_id = next(iter(self._ids))
                del self._ids[resource_id]
                yield resource_id
            if self._are_over:
                raise ShuttingDownError("the server is shutting down: follow it at another one")
            self._event.clear()


class Events:
    """A topic is an id: a resource's own, that of its program or of its batch."""

    def __init__(self) -> None:
        self._listening: defaultdict[str, set[News]] = defaultdict(set)
        #: Told of everything that changed here, to tell other servers.
        self.relay: Callable[[tuple[str, ...]], None] | None = None
        self._are_over = False

    def end(self) -> None:
        """For whoever listens, and whoever comes: there will be no more."""
        self._are_over = True
        for listening in self._listening.values():
            for news in listening:
                news.end()

    def changed(self, resource_id: str, *topics: str | None) -> None:
        """A resource did, here. `topics` are what it belongs to."""
        named = (resource_id, *(topic for topic in topics if topic is not None))
        self.heard(named)
        if self.relay is not None:
            self.relay(named)

    def heard(self, named: tuple[str, ...]) -> None:
        """A resource did, here or elsewhere: its id, then its topics."""
        for topic in named:
            for news in self._listening.get(topic, ()):
                news.add(named[0])

    @contextmanager
    def listening(self, topic: str) -> Iterator[News]:
        news = News()
        if self._are_over:
            news.end()
        self._listening[topic].add(news)
        try:
            yield news
        finally:
            self._listening[topic].discard(news)
            if not self._listening[topic]:
                del self._listening[topic]
