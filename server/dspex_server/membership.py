"""Which processes serve a database: each says that it lives, and takes over from those that do
not."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dspex_protocol.errors import DSPexError
from sqlalchemy import delete, select, update

from .db.models import Server, now
from .resources.executions import fail_orphans

if TYPE_CHECKING:
    from .db.database import Database
    from .events import Events
    from .jobs import Jobs
    from .workflows import Workflows

__all__ = ["Membership"]

_BEAT_S = 2.0

# Longer than a pause of a machine under load; work of a dead server waits as long.
DEAD_AFTER_S = 15.0

_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)

_log = logging.getLogger("dspex.server")


class Membership:
    def __init__(
        self,
        database: Database,
        server_id: str,
        role: str,
        *,
        workflows: Workflows,
        jobs: Jobs,
        events: Events,
    ) -> None:
        self._database = database
        self._server_id = server_id
        self._role = role
        self._workflows = workflows
        self._jobs = jobs
        self._events = events
        self._beating: asyncio.Task[None] | None = None

    async def join(self, *, is_alone: bool) -> None:
        """`is_alone`: nobody else can have the database open, so that all others are dead."""
        await self._register()
        await self._take_over(0.0 if is_alone else DEAD_AFTER_S)
        self._beating = asyncio.create_task(self._beat(), name="membership")

    async def leave(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
        # What it leaves open need not wait until it is held for dead.
        try:
            async with self._database.write() as session:
                await session.execute(
                    update(Server).where(Server.id == self._server_id).values(seen_at=_LONG_AGO)
                )
        except DSPexError as error:
            _log.warning("%s", error)

    async def _register(self) -> None:
        async with self._database.write() as session:
            session.add(
                Server(
                    id=self._server_id,
                    role=self._role,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                )
            )

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                async with self._database.write() as session:
                    seen = await session.scalar(
                        update(Server)
                        .where(Server.id == self._server_id)
                        .values(seen_at=now())
                        .returning(Server.id)
                    )
                if seen is None:
                    _log.warning("this server was held for dead: it goes on as a new one")
                    await self._register()
                await self._take_over(DEAD_AFTER_S)
            except DSPexError as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - the next round may be a better one
                _log.exception("the round of this server failed")

    async def _take_over(self, after_s: float) -> None:
        """Its row goes when what it left is cared for: who dies in between is taken over from."""
        async with self._database.read() as session:
            dead = list(
                await session.scalars(
                    select(Server.id).where(
                        Server.id != self._server_id,
                        Server.seen_at < now() - timedelta(seconds=after_s),
                    )
                )
            )
        if dead:
            _log.info("%d servers have ended: what they left is taken over", len(dead))
            async with self._database.write() as session:
                ended = await fail_orphans(session, dead)
            for execution_id in ended:
                self._events.changed(execution_id)
            await self._workflows.take_over(dead)
            async with self._database.write() as session:
                await session.execute(delete(Server).where(Server.id.in_(dead)))
        await self._jobs.reconcile()
