"""The resources: their rules and state machines, on both databases."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from dspex_protocol.errors import (
    AlreadyExistsError,
    InvalidParamsError,
    NotFoundError,
    RequestTimeoutError,
    SignatureError,
)
from dspex_server.db.database import Database
from dspex_server.db.models import Execution, Program, Revision, Signature, Transition
from dspex_server.errors import WrongStateError
from dspex_server.resources import executions, jobs, programs, signatures
from dspex_server.resources.datasets import create_dataset, examples_of
from sqlalchemy import func, select

from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from dspex_server.resources.machine import StateMachine
    from sqlalchemy.ext.asyncio import AsyncSession

T = TypeVar("T")

MACHINES = [
    signatures.SIGNATURES,
    programs.PROGRAMS,
    executions.EXECUTIONS,
    jobs.OPTIMIZATION_JOBS,
    jobs.BATCHES,
]
RESULT: dict[str, Any] = {
    "outputs": {"answer": "4"},
    "lm": "main",
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    "cost_usd": 0.25,
    "duration_ms": 1.5,
    "cached": False,
}


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()


async def make_program(database: Database, name: str = "qa", **params: Any) -> str:
    async with database.write() as session:
        asked = {"signature": "question -> answer", **params}
        return (await programs.create_program(session, asked, name=name)).id


async def history(database: Database, resource_id: str) -> list[tuple[str | None, str]]:
    async with database.read() as session:
        rows = await session.execute(
            select(Transition.source, Transition.target)
            .where(Transition.resource_id == resource_id)
            .order_by(Transition.at, Transition.source.is_not(None), Transition.id)
        )
        return [(row.source, row.target) for row in rows]


async def on(session: AsyncSession, work: Callable[..., T], *arguments: Any) -> T:
    return await (await session.connection()).run_sync(work, *arguments)


async def begin(database: Database, program_id: str, *, running: bool = True) -> str:
    async with database.write() as session:
        connection = await session.connection()
        return await connection.run_sync(
            executions.begin_execution,
            program_id,
            1,
            {"question": "2 + 2?"},
            owner="me",
            running=running,
            trace_id=None,
        )


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.resource)
def test_a_state_machine_allows_what_its_table_says_and_nothing_else(machine: StateMachine) -> None:
    for source, targets in machine.moves.items():
        for target in machine.moves:
            if target in targets:
                machine.require("x", source, target)
            else:
                with pytest.raises(WrongStateError) as refused:
                    machine.require("x", source, target)
                assert refused.value.data["allowed"] == list(targets)


@on_a_loop
async def test_a_changed_definition_is_a_new_version_and_the_same_one_is_not(url: str) -> None:
    async with opened(url) as database:

        async def create(definition: str, **options: Any) -> Signature:
            async with database.write() as session:
                return await signatures.create_signature(session, "qa", definition, **options)

        first = await create("question -> answer")
        assert (first.version, first.state) == (1, "active")
        assert (await create("question: str -> answer: str")).id == first.id
        second = await create("question -> answer: int", draft=True)
        assert (second.version, second.state) == (2, "draft")
        assert (await create("question -> answer: int")).state == "active"
        assert await history(database, second.id) == [(None, "draft"), ("draft", "active")]
        with pytest.raises(SignatureError):
            await create("question -> answer: nonsense")


@on_a_loop
async def test_programs_are_not_made_of_a_deprecated_signature(url: str) -> None:
    async with opened(url) as database:
        async with database.write() as session:
            made = await signatures.create_signature(session, "qa", "question -> answer")
            await signatures.SIGNATURES.move(session, made.id, "deprecated")
        with pytest.raises(WrongStateError, match="deprecated: make programs of a newer version"):
            async with database.write() as session:
                await signatures.usable_signature(session, made.id)


@on_a_loop
async def test_what_is_wrong_with_a_program_is_told_and_nothing_is_kept(url: str) -> None:
    async with opened(url) as database:
        cases: list[tuple[dict[str, Any], type[Exception], str]] = [
            ({"module": "predct"}, InvalidParamsError, "Did you mean 'predict'"),
            ({"config": {"api_key": "x"}}, InvalidParamsError, "unknown parameter 'api_key'"),
            ({"tools": []}, InvalidParamsError, "this server has none"),
            ({"signature": "a -> b: strr"}, SignatureError, "strr"),
        ]
        for params, error, text in cases:
            with pytest.raises(error, match=text):
                await make_program(database, **params)
        async with database.read() as session:
            assert await session.scalar(select(func.count()).select_from(Program)) == 0
            assert await session.scalar(select(func.count()).select_from(Transition)) == 0


@on_a_loop
async def test_a_name_is_one_programs_only(url: str) -> None:
    async with opened(url) as database:
        await make_program(database)
        with pytest.raises(AlreadyExistsError, match="'qa' already"):
            await make_program(database)
        with pytest.raises(InvalidParamsError, match="name must be"):
            await make_program(database, name="a\x00b")


@on_a_loop
async def test_a_name_that_no_database_can_hold_is_nobodys(url: str) -> None:
    async with opened(url) as database:

        async def find() -> None:
            async with database.read() as session:
                await programs.find_program(session, "a\x00")

        # PostgreSQL does not even look for it.
        with pytest.raises((NotFoundError, InvalidParamsError)):
            await find()


@on_a_loop
async def test_a_program_runs_its_deployed_revision_and_goes_back_to_an_earlier_one(
    url: str,
) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)
        async with database.write() as session:
            program = await programs.find_program(session, "qa", for_update=True)
            first = await programs.find_revision(session, program, 1)
            number = await programs.add_revision(
                session, program, first.state, parent=1, job_id="j", score=0.5
            )
            assert number == 2
        async with database.write() as session:
            program = await programs.deploy_program(session, "qa", 1)
            assert (program.state, programs.require_runnable(program)) == ("deployed", 1)
        async with database.write() as session:
            program = await programs.deploy_program(session, "qa")
            assert programs.require_runnable(program) == 2
        async with database.write() as session:
            program = await programs.rollback_program(session, "qa", 1)
            assert programs.require_runnable(program) == 1
        async with database.write() as session:
            program = await programs.archive_program(session, "qa")
        with pytest.raises(WrongStateError, match="archived: only ready"):
            programs.require_runnable(program)
        with pytest.raises(WrongStateError, match="archived, which is final"):
            async with database.write() as session:
                await programs.deploy_program(session, "qa")
        assert await history(database, program_id) == [
            (None, "draft"),
            ("draft", "ready"),
            ("ready", "optimized"),
            ("optimized", "deployed"),
            ("deployed", "deployed"),
            ("deployed", "deployed"),
            ("deployed", "archived"),
        ]
        with pytest.raises(NotFoundError, match="no revision 9"):
            async with database.write() as session:
                await programs.rollback_program(session, "qa", 9)


@on_a_loop
async def test_a_rollback_that_is_refused_changes_nothing(url: str) -> None:
    async with opened(url) as database:
        await make_program(database)
        async with database.write() as session:
            await programs.archive_program(session, "qa")
        with pytest.raises(WrongStateError):
            async with database.write() as session:
                await programs.rollback_program(session, "qa", 1)
        async with database.read() as session:
            assert (await programs.find_program(session, "qa")).state == "archived"


@on_a_loop
async def test_an_execution_is_completed_once_and_its_program_counts_it(url: str) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)
        execution_id = await begin(database, program_id)
        async with database.write() as session:
            await on(session, executions.complete_execution, execution_id, RESULT)
        with pytest.raises(WrongStateError, match="completed, which is final"):
            async with database.write() as session:
                await on(session, executions.complete_execution, execution_id, RESULT)
        async with database.read() as session:
            row = await executions.find_execution(session, execution_id)
            assert (row.state, row.outputs, row.total_tokens) == ("completed", {"answer": "4"}, 7)
            assert row.created_at.tzinfo is not None
            program = await programs.find_program(session, program_id)
            assert (program.executions, program.failures) == (1, 0)
            assert (program.total_tokens, program.cost_usd) == (7, 0.25)
        assert await history(database, execution_id) == [
            (None, "pending"),
            ("pending", "running"),
            ("running", "completed"),
        ]


@on_a_loop
async def test_a_failed_execution_keeps_its_error_and_what_was_spent(url: str) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)
        execution_id = await begin(database, program_id)
        error = RequestTimeoutError(
            "too \x00 long", data={"usage": {"total_tokens": 3}, "cost_usd": 0.5}
        )
        async with database.write() as session:
            await on(session, executions.fail_execution, execution_id, error)
        async with database.read() as session:
            row = await executions.find_execution(session, execution_id)
            assert row.error is not None
            assert (row.state, row.error["code"]) == ("failed", "timeout")
            assert row.error["message"] == "too \x00 long"
            assert (row.total_tokens, row.cost_usd) == (3, 0.5)
            program = await programs.find_program(session, program_id)
            assert (program.executions, program.failures) == (1, 1)


@on_a_loop
async def test_what_a_dead_server_left_open_is_failed_and_what_others_run_is_not(url: str) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)
        mine = await begin(database, program_id)
        pending = await begin(database, program_id, running=False)
        async with database.write() as session:
            assert await executions.fail_orphans(session, ["me", "another"]) == []
        async with database.write() as session:
            assert sorted(await executions.fail_orphans(session, ["another"])) == sorted(
                [mine, pending]
            )
        async with database.read() as session:
            row = await executions.find_execution(session, pending)
            assert row.error is not None
            assert (row.state, row.error["code"]) == ("failed", "interrupted")


@on_a_loop
async def test_of_many_who_change_a_state_at_once_one_does(url: str) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)
        execution_id = await begin(database, program_id)

        async def complete() -> bool:
            try:
                async with database.write() as session:
                    await on(session, executions.complete_execution, execution_id, RESULT)
            except WrongStateError:
                return False
            return True

        assert sum(await asyncio.gather(*(complete() for _ in range(10)))) == 1
        async with database.read() as session:
            assert (await programs.find_program(session, program_id)).executions == 1


@on_a_loop
async def test_a_program_is_not_deleted_while_it_runs_and_takes_all_of_its_own_with_it(
    url: str,
) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)
        execution_id = await begin(database, program_id)
        with pytest.raises(WrongStateError, match="1 executions under way"):
            async with database.write() as session:
                await programs.delete_program(session, "qa")
        async with database.write() as session:
            await executions.cancel_execution(session, execution_id)
            await programs.delete_program(session, "qa")
        async with database.read() as session:
            for model in (Program, Revision, Execution):
                assert await session.scalar(select(func.count()).select_from(model)) == 0


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
async def test_a_dataset_with_other_rows_is_a_new_version(url: str) -> None:
    rows = [{"inputs": {"question": str(i)}, "outputs": {"answer": i}} for i in range(3)]
    async with opened(url) as database:
        versions = []
        for examples in (rows, rows, rows[:2], rows):
            async with database.write() as session:
                dataset = await create_dataset(session, "three", examples)
                versions.append(dataset.version)
        assert versions == [1, 1, 2, 3]
        async with database.read() as session:
            assert await examples_of(session, dataset.id) == rows
