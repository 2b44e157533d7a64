"""Executions on real bridges: the row is written before, and tells afterwards what came of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from dspex_bridge.testing.scripted_lm import Failure, Prompt, ScriptedLM
from dspex_protocol.errors import NotFoundError
from dspex_server import batching, bridges, executing, loaded, optimizing, workflows
from dspex_server.batching import Batcher
from dspex_server.bridges import BridgeOptions, Bridges
from dspex_server.db.database import Database, parse_url
from dspex_server.db.migrate import migrate
from dspex_server.db.models import Execution
from dspex_server.errors import DatabaseUnavailableError, WrongStateError
from dspex_server.events import Events
from dspex_server.executing import Call, Executor
from dspex_server.resources.datasets import create_dataset
from dspex_server.resources.executions import find_execution
from dspex_server.resources.jobs import (
    BATCHES,
    OPTIMIZATION_JOBS,
    create_batch,
    create_optimization,
    find_batch,
    find_optimization,
)
from dspex_server.resources.program_creation import create_program
from dspex_server.resources.programs import archive_program, find_program
from sqlalchemy import select

from integration.server_work import RANDOM_SEARCH, ROWS
from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

QUESTION = {"question": "2 + 2?"}
WAIT_S = 30

# Of the questions of an optimization.
FEW = 10


@pytest.fixture
def lm() -> Iterator[ScriptedLM]:
    scripted = ScriptedLM()
    yield scripted
    scripted.close()


@dataclass
class House:
    database: Database
    bridges: Bridges
    executor: Executor
    events: Events

    async def create(self, name: str = "qa", **params: Any) -> str:
        async with self.database.write() as session:
            asked = {"signature": "question -> answer", **params}
            return (await create_program(session, asked, name=name)).id

    async def row(self, execution_id: str) -> Execution:
        async with self.database.read() as session:
            return await find_execution(session, execution_id)


@asynccontextmanager
async def house(folder: Path, lm: ScriptedLM, **options: Any) -> AsyncIterator[House]:
    url = f"sqlite:///{folder}/test.sqlite"
    migrate(parse_url(url))
    database, events = Database(url), Events()
    settings = {"size": 1, "lms": {"main": lm.lm}, "default_lm": "main", **options}
    pool = Bridges(BridgeOptions(**settings))
    try:
        yield House(database, pool, Executor(database, pool, events, "me"), events)
    finally:
        await pool.close()
        await database.close()


@on_a_loop
async def test_an_execution_is_run_and_its_row_has_what_came_of_it(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    lm.always({"answer": "4"})
    async with house(tmp_path, lm) as here:
        await here.create()
        done = await here.executor.execute("qa", QUESTION, Call(trace_id="abc"))
        assert (done.state, done.outputs, done.lm) == ("completed", {"answer": "4"}, "main")
        assert done.total_tokens > 0
        assert done.finished_at is not None
        assert done.started_at is not None
        assert done.trace_id == "abc"
        many = await asyncio.gather(
            *(here.executor.execute("qa", QUESTION, Call()) for _ in range(20))
        )
        assert {one.state for one in many} == {"completed"}
        async with here.database.read() as session:
            assert (await find_program(session, "qa")).executions == 21


@on_a_loop
async def test_inputs_that_do_not_fit_are_refused_before_a_bridge_is_started(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    async with house(tmp_path, lm) as here:
        await here.create(signature="question, n: int -> answer")
        failed = await here.executor.execute("qa", {"question": 1, "n": "x"}, Call())
        assert failed.state == "failed"
        assert failed.error is not None
        assert failed.error["code"] == "input_validation"
        assert [item["path"] for item in failed.error["data"]["errors"]] == [["question"], ["n"]]
        assert here.bridges.pids == []
        with pytest.raises(NotFoundError):
            await here.executor.execute("nobody", QUESTION, Call())
        async with here.database.write() as session:
            await archive_program(session, "qa")
        with pytest.raises(WrongStateError):
            await here.executor.execute("qa", QUESTION, Call())


@on_a_loop
async def test_an_lm_that_fails_leaves_a_failed_execution_with_its_error(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    lm.answer(Failure(401, "no"))
    async with house(tmp_path, lm) as here:
        await here.create()
        failed = await here.executor.execute("qa", QUESTION, Call())
        assert failed.error is not None
        assert (failed.state, failed.error["code"]) == ("failed", "lm_error")
        assert failed.error["data"]["kind"] == "auth"


@on_a_loop
async def test_a_bridge_that_is_killed_is_replaced_and_its_runs_are_run_again(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait(_prompt: Prompt) -> dict[str, str]:
        asked.set()
        assert go_on.wait(WAIT_S)
        return {"answer": "late"}

    lm.answer(wait)
    lm.always({"answer": "4"})
    async with house(tmp_path, lm) as here:
        await here.create()
        running = asyncio.create_task(here.executor.execute("qa", QUESTION, Call()))
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        (pid,) = here.bridges.pids
        os.kill(pid, signal.SIGKILL)
        done = await running
        go_on.set()
        assert (done.state, done.outputs) == ("completed", {"answer": "4"})
        assert here.bridges.pids not in ([], [pid])


@on_a_loop
async def test_a_run_that_ends_every_bridge_fails_after_a_few(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    async with house(tmp_path, lm) as here:
        killed = []

        def kill(_prompt: Prompt) -> dict[str, str]:
            (pid,) = here.bridges.pids
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
            return {"answer": "nobody reads this"}

        lm.always(kill)
        await here.create()
        failed = await here.executor.execute("qa", QUESTION, Call())
        assert failed.error is not None
        assert (failed.state, failed.error["code"]) == ("failed", "connection_lost")
        assert len(killed) == len(set(killed)) == bridges.MAX_ATTEMPTS


@on_a_loop
async def test_a_cancelled_execution_ends_at_once_and_stays_cancelled(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait(_prompt: Prompt) -> dict[str, str]:
        asked.set()
        assert go_on.wait(WAIT_S)
        return {"answer": "late"}

    lm.answer(wait)
    async with house(tmp_path, lm) as here:
        await here.create()
        began: list[str] = []
        running = asyncio.create_task(
            here.executor.execute("qa", QUESTION, Call(), began=began.append)
        )
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        cancelled = await here.executor.cancel(began[0])
        assert cancelled.state == "cancelled"
        assert (await running).state == "cancelled"
        go_on.set()
        with pytest.raises(WrongStateError, match="cancelled, which is final"):
            await here.executor.cancel(began[0])
        assert here.executor.running == []


@on_a_loop
async def test_who_goes_away_leaves_a_cancelled_execution(tmp_path: Path, lm: ScriptedLM) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def wait(_prompt: Prompt) -> dict[str, str]:
        asked.set()
        assert go_on.wait(WAIT_S)
        return {"answer": "late"}

    lm.answer(wait)
    async with house(tmp_path, lm) as here:
        await here.create()
        began: list[str] = []
        running = asyncio.create_task(
            here.executor.execute("qa", QUESTION, Call(), began=began.append)
        )
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        go_on.set()
        assert (await here.row(began[0])).state == "cancelled"


@on_a_loop
async def test_a_bridge_that_cannot_be_started_is_told(tmp_path: Path, lm: ScriptedLM) -> None:
    async with house(tmp_path, lm, command=("/bin/false",)) as here:
        await here.create()
        failed = await here.executor.execute("qa", QUESTION, Call())
        assert failed.error is not None
        assert failed.error["code"] == "unavailable"
        assert "/bin/false" in failed.error["message"]
        async with here.database.read() as session:
            assert (await find_program(session, "qa")).state == "ready"


@on_a_loop
async def test_a_bridge_that_is_killed_at_the_servers_start_is_no_end_of_it(
    tmp_path: Path, lm: ScriptedLM, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path, lm, command=("sh", "-c", "kill -9 $$")) as here:
        await here.bridges.start()
        assert here.bridges.pids == []
    assert "no bridge can be started" in caplog.text


@on_a_loop
async def test_a_bridge_that_is_killed_while_it_starts_is_replaced(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    lm.always({"answer": "4"})
    # The first two end before they said a word.
    script = 'mkdir "$0" 2>&- && kill -9 $$; mkdir "$0/2" 2>&- && kill -9 $$; shift; exec "$@"'
    bridge = (sys.executable, "-P", "-m", "dspex_bridge")
    command = ("/bin/sh", "-c", script, str(tmp_path / "started"), "--", *bridge)
    async with house(tmp_path, lm, command=command) as here:
        await here.create()
        done = await asyncio.gather(
            *(here.executor.execute("qa", QUESTION, Call()) for _ in range(20))
        )
        assert {one.state for one in done} == {"completed"}
        assert (tmp_path / "started" / "2").is_dir()


@on_a_loop
async def test_a_bridge_that_ends_before_it_is_configured_is_replaced(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    # The first one's answer to hello arrives, and nothing after it.
    script = 'd=$0; mkdir "$d" 2>&- || exec "$@"; "$@" | dd bs=65536 count=1 2>&-'
    command = ("sh", "-c", script, str(tmp_path / "first"), sys.executable, "-m", "dspex_bridge")
    lm.always({"answer": "4"})
    async with house(tmp_path, lm, command=command) as here:
        await here.create()
        done = await here.executor.execute("qa", QUESTION, Call())
        assert (done.state, done.outputs) == ("completed", {"answer": "4"}), done.error
        assert (tmp_path / "first").exists()


@on_a_loop
async def test_programs_that_nobody_uses_are_forgotten_while_others_run(
    tmp_path: Path, lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "_MAX_PROGRAMS", 4)
    asked, go_on = threading.Event(), threading.Event()

    def answer(prompt: Prompt) -> dict[str, str]:
        if "wait" in prompt.text:
            asked.set()
            assert go_on.wait(WAIT_S)
        return {"answer": "4"}

    lm.always(answer)
    async with house(tmp_path, lm) as here:
        names = [f"p{index}" for index in range(12)]
        ids = [await here.create(name) for name in names]
        running = asyncio.create_task(here.executor.execute(names[0], {"question": "wait"}, Call()))
        assert await asyncio.to_thread(asked.wait, WAIT_S)
        try:
            # At no moment is the bridge without a run; the first and the last are asked for anew.
            for name in (*names, *reversed(names)):
                done = await here.executor.execute(name, QUESTION, Call())
                assert done.state == "completed", done.error
            async with here.database.read() as session:
                stored = await here.executor.stored(session, await find_program(session, ids[0]), 1)
            known = await here.bridges.run(stored, lambda client, _key: client.list())
            assert f"{ids[0]}@1" in {program["program"] for program in known}
            # One of them may be leaving just now.
            assert len(known) <= 4 + 1, known
        finally:
            go_on.set()
        assert (await running).state == "completed"


@on_a_loop
async def test_a_program_that_cannot_be_made_is_in_error_until_it_can(
    tmp_path: Path, lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Deno is needed by it, and not found on an empty path.
    async with house(tmp_path, lm, env={**os.environ, "PATH": "/nowhere"}) as here:
        await here.create(module="program_of_thought")
        failed = await here.executor.execute("qa", QUESTION, Call())
        assert failed.error is not None
        assert failed.error["code"] == "unavailable"
        async with here.database.read() as session:
            assert (await find_program(session, "qa")).state == "error"


@on_a_loop
async def test_who_goes_away_as_inputs_are_refused_leaves_nothing_open(
    tmp_path: Path, lm: ScriptedLM
) -> None:
    async with house(tmp_path, lm) as here:
        await here.create()
        write_soon = here.database.write_soon
        ending, go_on, written = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def late(work: Any, **options: Any) -> Any:
            if options.get("is_synced", True):  # its end
                ending.set()
                await go_on.wait()
            answer = await write_soon(work, **options)
            if ending.is_set():
                written.set()
            return answer

        here.database.write_soon = late  # type: ignore[method-assign]
        asking = asyncio.create_task(here.executor.execute("qa", {"question": 1}, Call()))
        async with asyncio.timeout(WAIT_S):
            await ending.wait()
            asking.cancel()
            await asyncio.wait({asking})
            go_on.set()
            await written.wait()
        async with here.database.read() as session:
            (row,) = await session.scalars(select(Execution))
        assert row.state == "failed"


@on_a_loop
async def test_a_batch_outlasts_a_database_that_is_away_for_longer_than_a_result_waits(
    tmp_path: Path, lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executing, "_WRITE_PATIENCE_S", 0.0)
    monkeypatch.setattr(executing, "_WRITE_PAUSES_S", (0.0,))
    monkeypatch.setattr(workflows, "_PAUSE_S", 0.0)
    lm.always({"answer": "4"})
    async with house(tmp_path, lm) as here:
        await here.create()
        async with here.database.write() as session:
            program = await find_program(session, "qa")
            batch, _ = await create_batch(
                session, program, 1, [QUESTION] * 5, idempotency_key=None, trace_id=None
            )
        write_soon, asked = here.database.write_soon, 0

        async def away(work: Any, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            if asked in (1, 2, 3, 4, 8, 9):
                raise DatabaseUnavailableError("it is away")
            return await write_soon(work, **options)

        here.database.write_soon = away  # type: ignore[method-assign]
        batcher = Batcher(here.database, here.executor, here.events, "me")
        async with asyncio.timeout(WAIT_S):
            attempt = workflows.Attempt()
            await workflows.outlasting(lambda: batcher.run(batch.id, attempt))
        async with here.database.read() as session:
            found = await find_batch(session, batch.id)
        assert (found.state, found.completed, found.failed) == ("completed", 5, 0)
        assert asked > 9
        # The database was away: that is no other attempt of the batch.
        assert found.attempts == 1


async def ask_for_optimization(here: House, **params: Any) -> str:
    """Of the program qa: the id of the job."""
    usual: Any = RANDOM_SEARCH["params"]
    async with here.database.write() as session:
        job, _ = await create_optimization(
            session,
            await find_program(session, "qa"),
            1,
            {
                "optimizer": {"name": RANDOM_SEARCH["optimizer"], "params": {**usual, **params}},
                "metric": RANDOM_SEARCH["metric"],
            },
            dataset=await create_dataset(session, "sums", ROWS),
            valset=None,
            idempotency_key=None,
        )
    return job.id


@on_a_loop
async def test_an_optimization_that_is_cancelled_elsewhere_asks_no_more(
    tmp_path: Path, lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizing, "_TELL_EVERY_S", 0.0)
    begun, go_on = threading.Event(), threading.Event()
    asked = 0

    def answer(_prompt: Prompt) -> dict[str, str]:
        nonlocal asked
        asked += 1
        if asked == FEW:
            begun.set()
            assert go_on.wait(WAIT_S)
        return {"answer": "wrong"}

    lm.always(answer)
    async with house(tmp_path, lm, state_dir=str(tmp_path)) as here:
        await here.create()
        job_id = await ask_for_optimization(here, num_candidate_programs=50)
        optimizer = optimizing.Optimizer(
            here.database, here.bridges, here.executor, here.events, tmp_path
        )
        running = asyncio.create_task(optimizer.run(job_id, workflows.Attempt(), is_last=True))
        assert await asyncio.to_thread(begun.wait, WAIT_S)
        # Where its server was not told, as the database of jobs was away.
        async with here.database.write() as session:
            await OPTIMIZATION_JOBS.move(session, job_id, "cancelled")
        go_on.set()
        async with asyncio.timeout(WAIT_S):
            await running
        async with here.database.read() as session:
            assert (await find_optimization(session, job_id)).state == "cancelled"
        # All of it asks some hundred times.
        assert asked < 10 * FEW


@on_a_loop
async def test_an_optimization_ends_however_often_its_bridge_is_killed_where_it_came_further(
    tmp_path: Path, lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bridges, "MAX_ATTEMPTS", 2)
    asked = 0
    dead: set[int] = set()
    house_of: list[House] = []

    def answer(_prompt: Prompt) -> dict[str, str]:
        nonlocal asked
        asked += 1
        # What was asked before is kept by now.
        if asked % 2 == 0 and len(dead) < bridges.MAX_ATTEMPTS:
            (pid,) = house_of[0].bridges.pids
            os.kill(pid, signal.SIGKILL)
            dead.add(pid)
        return {"answer": "wrong"}

    lm.always(answer)
    async with house(tmp_path, lm, state_dir=str(tmp_path)) as here:
        house_of.append(here)
        await here.create()
        job_id = await ask_for_optimization(here, num_candidate_programs=1)
        optimizer = optimizing.Optimizer(
            here.database, here.bridges, here.executor, here.events, tmp_path
        )
        await optimizer.run(job_id, workflows.Attempt(), is_last=True)
        async with here.database.read() as session:
            job = await find_optimization(session, job_id)
        assert (job.state, job.error, len(dead)) == ("completed", None, 2)


@on_a_loop
async def test_a_job_that_is_cancelled_while_it_begins_is_left_alone(
    tmp_path: Path, lm: ScriptedLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, lm) as here:
        await here.create()
        job_id = await ask_for_optimization(here)
        async with here.database.write() as session:
            program = await find_program(session, "qa")
            batch, _ = await create_batch(
                session, program, 1, [QUESTION], idempotency_key=None, trace_id=None
            )

        async def cancelled_meanwhile(session: Any, key: str) -> Any:
            await OPTIMIZATION_JOBS.move(session, job_id, "cancelled")
            await BATCHES.move(session, batch.id, "cancelled")
            return await find_program(session, key)

        monkeypatch.setattr(optimizing, "find_program", cancelled_meanwhile)
        monkeypatch.setattr(batching, "find_program", cancelled_meanwhile)
        optimizer = optimizing.Optimizer(
            here.database, here.bridges, here.executor, here.events, tmp_path
        )
        await optimizer.run(job_id, workflows.Attempt(), is_last=False)
        await Batcher(here.database, here.executor, here.events, "me").run(
            batch.id, workflows.Attempt()
        )
        assert here.bridges.pids == []
