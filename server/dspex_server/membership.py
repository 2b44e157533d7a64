"""Which processes serve a database: each says that it lives, and takes over from those that do
not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dspex_protocol.errors import DSPexError, NotFoundError
from sqlalchemy import delete, func, select, update

from .db.models import Server, now
from .errors import WrongStateError
from .resources.executions import fail_orphans, interrupt_execution, open_executions

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from .db.database import Database
    from .events import Events
    from .executing import Executor
    from .jobs import Jobs
    from .workflows import Workflows

__all__ = ["Membership"]

_BEAT_S = 2.0

# Longer than a pause of a machine under load; work of a dead server waits as long.
DEAD_AFTER_S = 15.0

# Any number that is the same for all.
_LOCK = 0x6473706579

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
        executor: Executor,
        events: Events,
    ) -> None:
        self._database = database
        self._server_id = server_id
        self._role = role
        self._workflows = workflows
        self._jobs = jobs
        self._executor = executor
        self._events = events
        self._beating: asyncio.Task[None] | None = None

    async def register(self) -> None:
        """Before its first workflow: what is run by nobody who is registered is taken over."""
        async with self._database.write() as session:
            session.add(
                Server(
                    id=self._server_id,
                    role=self._role,
                    host=socket.gethostname(),
                    pid=os.getpid(),
                )
            )

    async def join(self, *, is_alone: bool) -> None:
        """`is_alone`: nobody else can have the database open, so that all others are dead."""
        await self._take_over(0.0 if is_alone else DEAD_AFTER_S)
        await self._jobs.reconcile()
        self._beating = asyncio.create_task(self._beat(), name="membership")

    async def rest(self) -> None:
        """From here on it takes nothing over. It goes on saying that it lives, so that nobody
        takes over from it, until it has ended its own work, and leaves."""
        await self._stop()
        self._beating = asyncio.create_task(self._stay(), name="membership at rest")

    async def leave(self) -> None:
        """When nothing runs here any more: others begin at once with what is left open."""
        await self._stop()
        try:
            async with self._database.write() as session:
                await session.execute(
                    update(Server).where(Server.id == self._server_id).values(seen_at=_LONG_AGO)
                )
        except DSPexError as error:
            _log.warning("%s", error)

    async def _stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})

    async def _stay(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                await self._say_alive()
            except DSPexError as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - the next one may be better
                _log.exception("this server could not say that it lives")

    async def _say_alive(self) -> bool:
        """False where it is not known any more."""
        async with self._database.write() as session:
            seen = await session.scalar(
                update(Server)
                .where(Server.id == self._server_id)
                .values(seen_at=now())
                .returning(Server.id)
            )
        return seen is not None

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_S)
            try:
                if not await self._say_alive():
                    _log.warning("this server was held for dead: it goes on as a new one")
                    await self.register()
                if await self._dead(DEAD_AFTER_S):
                    await self._take_over(DEAD_AFTER_S)
                await self._jobs.reconcile()
                await self._fail_forgotten()
            except DSPexError as error:
                _log.warning("%s", error)
            except Exception:  # noqa: BLE001 - the next round may be a better one
                _log.exception("the round of this server failed")

    async def _dead(self, after_s: float) -> list[str]:
        async with self._database.read() as session:
            return await self._silent(session, after_s)

    async def _silent(self, session: AsyncSession, after_s: float) -> list[str]:
        found = await session.scalars(
            select(Server.id).where(
                Server.id != self._server_id,
                Server.seen_at < now() - timedelta(seconds=after_s),
            )
        )
        return list(found)

    async def _take_over(self, after_s: float) -> None:
        """What belongs to no server that lives. The rows of the dead go in the same transaction:
        who dies in the middle of this is taken over from too, with what it had not done."""
        async with self._database.write() as session:
            if not await self._is_first(session):
                return
            dead = await self._silent(session, after_s)
            alive = list(await session.scalars(select(Server.id).where(Server.id.not_in(dead))))
            await self._workflows.take_over(alive)
            ended = await fail_orphans(session, alive)
            await session.execute(delete(Server).where(Server.id.in_(dead)))
        if dead:
            _log.info("%d servers have ended: what they left is taken over", len(dead))
        for execution_id in ended:
            self._events.changed(execution_id)

    async def _is_first(self, session: AsyncSession) -> bool:
        """Whether nobody else takes over just now. SQLite has one writer anyway."""
        if self._database.is_sqlite:
            return True
        return bool(await session.scalar(select(func.pg_try_advisory_xact_lock(_LOCK))))

    async def _fail_forgotten(self) -> None:
        """Ends executions of this server's that nobody runs: the database wrote them, and went
        away before it said so."""
        long_ago = now() - timedelta(seconds=DEAD_AFTER_S)
        async with self._database.read() as session:
            found = await open_executions(session, self._server_id, before=long_ago)
        for execution_id, program_id in found:
            if execution_id not in self._executor.running:
                with contextlib.suppress(WrongStateError, NotFoundError):
                    async with self._database.write() as session:
                        await interrupt_execution(session, execution_id)
                self._events.changed(execution_id, program_id)
