"""A server from its start to its end: what it is made of is opened in order, closed in reverse."""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .app import App
from .batching import Batcher
from .bridges import BridgeOptions, Bridges
from .db.database import Database, parse_url
from .db.migrate import migrate
from .events import Events
from .executing import Executor
from .ids import new_id
from .jobs import Jobs
from .membership import Membership
from .optimizing import Optimizer
from .relay import Relay
from .settings import bridge_environment
from .workflows import BATCH_QUEUE, OPTIMIZATION_QUEUE, Workflows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .settings import Settings

__all__ = ["InUseError", "running"]

# The files are the owner's: inputs and outputs are in them.
_FOLDER_MODE = 0o700


class InUseError(RuntimeError):
    """Another server has this SQLite database open."""


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[App]:
    """Raises InUseError, RefusedLMsError, DatabaseUnavailableError, and RuntimeError for a newer
    database."""
    state_dir = settings.data_dir / "state"
    state_dir.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
    url = parse_url(settings.database_url)
    is_sqlite = url.get_backend_name() == "sqlite"
    plain_url = url.set(drivername=url.get_backend_name()).render_as_string(hide_password=False)
    server_id = new_id()
    async with AsyncExitStack() as stack:
        jobs_url = plain_url
        if is_sqlite:
            file = Path(url.database or "")
            stack.enter_context(_alone(file))
            jobs_url = f"sqlite:///{file.with_suffix('.jobs.sqlite')}"
        bridges = Bridges(
            BridgeOptions(
                size=settings.bridges,
                lms=settings.lms,
                default_lm=settings.default_lm,
                state_dir=str(state_dir),
                env=bridge_environment(),
            )
        )
        # Before a job is begun: with LMs that no bridge takes each of them would fail.
        await asyncio.gather(bridges.start(), asyncio.to_thread(migrate, url))
        database = Database(settings.database_url)
        stack.push_async_callback(database.close)
        events = Events()
        executor = Executor(database, bridges, events, server_id)
        workflows = Workflows(
            jobs_url,
            server_id,
            {OPTIMIZATION_QUEUE: settings.optimizations, BATCH_QUEUE: settings.batches},
        )
        jobs = Jobs(database, workflows, executor, events)
        membership = Membership(
            database,
            server_id,
            "server" if settings.serves else "worker",
            workflows=workflows,
            jobs=jobs,
            executor=executor,
            events=events,
        )
        await membership.register()
        # At the end its work is stopped, then its bridges; then others may take over what is left.
        stack.push_async_callback(membership.leave)
        stack.push_async_callback(bridges.close)
        await workflows.launch(
            Optimizer(database, bridges, executor, events, state_dir),
            Batcher(database, executor, events, server_id),
        )
        stack.push_async_callback(workflows.close)
        if not is_sqlite:
            relay = Relay(plain_url, server_id, events, executor.look_at)
            relay.start()
            stack.push_async_callback(relay.close)
        await membership.join(is_alone=is_sqlite)
        stack.push_async_callback(membership.rest)
        yield App(database, bridges, events, executor, jobs)


@contextmanager
def _alone(file: Path) -> Iterator[None]:
    """SQLite has one writer, and its executions one owner."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=_FOLDER_MODE)
    with file.with_suffix(".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InUseError(
                f"another dspex serve has {file} open: take another --data-dir, or PostgreSQL for "
                "several servers"
            ) from None
        os.set_inheritable(lock.fileno(), False)
        yield
