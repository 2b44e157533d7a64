"""Jobs: what is checked when one is asked for."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest
from dspex_protocol.errors import InvalidParamsError
from dspex_server.bridges import BridgeOptions, Bridges
from dspex_server.db.models import Batch, Execution, Transition
from dspex_server.errors import DatabaseUnavailableError
from dspex_server.events import Events
from dspex_server.executing import Executor
from dspex_server.jobs import Jobs
from dspex_server.resources import executions, jobs, programs
from dspex_server.resources.datasets import create_dataset
from sqlalchemy import func, select, text

from tests.server.background import on_a_loop
from tests.server.resources import RESULT, make_program, opened

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_server.db.database import Database
    from dspex_server.workflows import Workflows
    from sqlalchemy import Connection

WAIT_S = 20


class FakeWorkflows:
    """Answers `status`; `cancel` raises what it is given, once `go_on` is set."""

    def __init__(self, *, status: str = "PENDING", problem: Exception | None = None) -> None:
        self._status = status
        self._problem = problem
        self.cancelling, self.go_on = asyncio.Event(), asyncio.Event()
        self.go_on.set()
        self.cancelled: list[str] = []

    async def status(self, _job_id: str) -> str:
        return self._status

    async def cancel(self, job_id: str) -> None:
        self.cancelling.set()
        await self.go_on.wait()
        if self._problem is not None:
            raise self._problem
        self.cancelled.append(job_id)


def jobs_of(database: Database, workflows: FakeWorkflows) -> Jobs:
    events = Events()
    bridges = Bridges(BridgeOptions(size=1, lms={}, default_lm="main"))
    executor = Executor(database, bridges, events, "me")
    return Jobs(database, cast("Workflows", workflows), executor, events)


async def begin_batch(database: Database, count: int) -> tuple[str, str, list[str]]:
    """A batch that runs, its program, and its items: the last of them runs too."""
    program_id = await make_program(database)
    async with database.write() as session:
        program = await programs.find_program(session, program_id)
        batch, _ = await jobs.create_batch(
            session, program, 1, [{"question": "a"}] * count, idempotency_key=None, trace_id=None
        )
        await jobs.BATCHES.move(session, batch.id, "running", source="queued")
        found = select(Execution.id).where(Execution.batch_id == batch.id).order_by(Execution.id)
        items = list(await session.scalars(found))
    await database.write_soon(lambda row: executions.start_execution(row, items[-1], "me"))
    return batch.id, program_id, items


async def states(database: Database) -> set[str]:
    async with database.read() as session:
        return set(await session.scalars(select(Execution.state)))


@on_a_loop
async def test_a_job_is_checked_when_it_is_asked_for_and_its_key_gives_the_same_one(
    url: str,
) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)

        async def ask(optimizer: dict[str, Any], key: str | None = None, **asked: Any) -> str:
            async with database.write() as session:
                program = await programs.find_program(session, program_id)
                dataset = await create_dataset(
                    session,
                    "examples",
                    [{"inputs": {"question": "a"}, "outputs": {"answer": "b"}}],
                )
                job, _ = await jobs.create_optimization(
                    session,
                    program,
                    1,
                    {"optimizer": optimizer, **asked},
                    dataset=dataset,
                    valset=None,
                    idempotency_key=key,
                )
                return job.id

        metric = {"name": "exact_match"}
        first = await ask({"name": "bootstrap_few_shot"}, "key", metric=metric)
        assert await ask({"name": "bootstrap_few_shot"}, "key", metric=metric) == first
        assert await ask({"name": "bootstrap_few_shot"}, metric=metric) != first
        cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
            ({"name": "coppro"}, {}, "Did you mean 'copro'"),
            ({"name": "copro"}, {}, "needs a metric"),
            ({"name": "copro"}, {"metric": {"callback": "f"}}, "this server has none"),
            ({"name": "copro", "params": {"bredth": 1}}, {"metric": metric}, "bredth"),
        ]
        for optimizer, asked, text in cases:
            with pytest.raises(InvalidParamsError, match=text):
                await ask(optimizer, **asked)


@on_a_loop
async def test_a_batch_whose_workflow_ended_without_it_leaves_no_item_open(url: str) -> None:
    async with opened(url) as database:
        batch_id, program_id, items = await begin_batch(database, 3)
        await jobs_of(database, FakeWorkflows(status="ERROR")).reconcile()
        async with database.read() as session:
            batch = await session.get_one(Batch, batch_id)
            reasons = await session.scalar(
                select(func.count()).where(
                    Transition.resource_id.in_(items), Transition.reason == "its batch failed"
                )
            )
        assert (batch.state, batch.error["code"] if batch.error else None) == (
            "failed",
            "internal_error",
        )
        assert (await states(database), reasons) == ({"cancelled"}, 3)
        async with database.write() as session:
            await programs.delete_program(session, program_id)


@on_a_loop
async def test_a_job_is_cancelled_though_its_workflow_cannot_be_told(url: str) -> None:
    async with opened(url) as database:
        batch_id, _program, _items = await begin_batch(database, 3)
        workflows = FakeWorkflows(problem=DatabaseUnavailableError("it is away"))
        assert (await jobs_of(database, workflows).cancel(batch_id)).state == "cancelled"
        assert await states(database) == {"cancelled"}


@on_a_loop
async def test_who_goes_away_has_cancelled_the_job_and_its_workflow(url: str) -> None:
    async with opened(url) as database:
        batch_id, _program, _items = await begin_batch(database, 1)
        workflows = FakeWorkflows()
        workflows.go_on.clear()
        asking = asyncio.create_task(jobs_of(database, workflows).cancel(batch_id))
        async with asyncio.timeout(WAIT_S):
            await workflows.cancelling.wait()
            asking.cancel()
            await asyncio.wait({asking})
            others = asyncio.all_tasks() - {asyncio.current_task()}
            workflows.go_on.set()
            await asyncio.wait([task for task in others if "_cancel" in repr(task.get_coro())])
        assert workflows.cancelled == [batch_id]


@on_a_loop
async def test_a_batch_is_cancelled_while_its_items_are_written_and_nobody_waits_for_the_other(
    url: str,
) -> None:
    async with opened(url) as database:
        if database.is_sqlite:
            return  # one transaction that writes at a time
        batch_id, program_id, items = await begin_batch(database, 20)
        holds, waits = threading.Event(), threading.Event()

        def complete(execution_id: str) -> Callable[[Connection], None]:
            def work(connection: Connection) -> None:
                if execution_id != items[-1]:
                    executions.start_execution(connection, execution_id, "me")
                else:
                    # It has the row of its execution, and not yet that of the batch.
                    connection.execute(
                        select(Execution.id).where(Execution.id == execution_id).with_for_update()
                    )
                    holds.set()
                    assert waits.wait(WAIT_S)
                executions.complete_execution(connection, execution_id, RESULT)

            return work

        done = asyncio.create_task(database.write_soon(complete(items[-1]), order=program_id))
        assert await asyncio.to_thread(holds.wait, WAIT_S)
        cancelled = asyncio.create_task(jobs_of(database, FakeWorkflows()).cancel(batch_id))
        blocked = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        async with asyncio.timeout(WAIT_S):
            while True:
                async with database.read() as session:
                    if await session.scalar(blocked):
                        break
        waits.set()
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(done, cancelled)
        async with database.read() as session:
            batch = await session.get_one(Batch, batch_id)
            conflicts = await session.scalar(
                text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
            )
        assert (batch.state, batch.completed, conflicts) == ("cancelled", 1, 0)
