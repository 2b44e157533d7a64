"""News between servers of one PostgreSQL, by its LISTEN and NOTIFY."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

import psycopg

from .db.connections import KEEPALIVES

if TYPE_CHECKING:
    from collections.abc import Callable

    from .events import Events

__all__ = ["Relay"]

_CHANNEL = "dspex"
_PAUSE_S = 1.0

# News that nobody could be told of are worth less with every second; the rows have it all.
_MAX_WAITING = 10_000

_log = logging.getLogger("dspex.server")


class Relay:
    """`heard` is called with the id of everything that changed on another server."""

    def __init__(
        self, url: str, server_id: str, events: Events, heard: Callable[[str], None]
    ) -> None:
        self._url = url
        self._server_id = server_id
        self._events = events
        self._heard = heard
        self._waiting: asyncio.Queue[tuple[str, ...]] = asyncio.Queue(_MAX_WAITING)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._events.relay = self._put
        self._tasks = [
            asyncio.create_task(self._again(work), name=f"relay {work.__name__}")
            for work in (self._tell, self._listen)
        ]

    async def close(self) -> None:
        self._events.relay = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _put(self, named: tuple[str, ...]) -> None:
        if not self._waiting.full():
            self._waiting.put_nowait(named)

    async def _again(self, work: Callable[[psycopg.AsyncConnection], object]) -> None:
        """For ever, whatever becomes of the database."""
        while True:
            try:
                connection = await psycopg.AsyncConnection.connect(
                    self._url, autocommit=True, **KEEPALIVES
                )
                async with connection:
                    await work(connection)  # type: ignore[misc]
            except psycopg.Error as error:
                _log.info("news of other servers have to wait: %s", error)
            await asyncio.sleep(_PAUSE_S)

    async def _tell(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            waiting = [await self._waiting.get()]
            while not self._waiting.empty():
                waiting.append(self._waiting.get_nowait())
            texts = [json.dumps([self._server_id, *named]) for named in waiting]
            # One statement, however many there are: each is a journey and a transaction.
            await connection.execute(
                "SELECT pg_notify(%s, text) FROM unnest(%s::text[]) AS text", (_CHANNEL, texts)
            )

    async def _listen(self, connection: psycopg.AsyncConnection) -> None:
        await connection.execute(f"LISTEN {_CHANNEL}")
        async for news in connection.notifies():
            sender, *named = json.loads(news.payload)
            if sender != self._server_id:
                self._events.heard(tuple(named))
                self._heard(named[0])
