"""Programs: what they may be, which revision runs, and what goes with them."""

from __future__ import annotations

from typing import Any

import pytest
from dspex_protocol.errors import (
    AlreadyExistsError,
    InvalidParamsError,
    NotFoundError,
    SignatureError,
)
from dspex_server.db.models import Execution, Program, Revision, Transition
from dspex_server.errors import WrongStateError
from dspex_server.resources import executions, program_creation, programs
from dspex_server.resources.signatures import create_signature
from sqlalchemy import func, select

from tests.server.background import on_a_loop
from tests.server.resources import begin, history, make_program, opened


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
async def test_a_program_that_is_replaced_has_another_revision_where_something_is_new(
    url: str,
) -> None:
    async with opened(url) as database:

        async def put(draft: bool = False, **params: Any) -> Program:
            async with database.write() as session:
                named = await create_signature(session, "named", "question -> answer")
                return await program_creation.create_program(
                    session, params, name="qa", signature=named, draft=draft, replace=True
                )

        first = await put()
        assert (first.revision, (await put()).id, (await put()).revision) == (1, first.id, 1)
        assert (await put(instructions="Answer.")).revision == 2
        assert (await put(instructions="Answer.")).signature_id == first.signature_id
        with pytest.raises(InvalidParamsError, match="give one of them"):
            await put(draft=True)

        # Of another signature, which has no name.
        async with database.write() as session:
            params = {"signature": "q -> a"}
            other = await program_creation.create_program(session, params, name="qa", replace=True)
        assert (other.id, other.revision, other.signature_id) == (first.id, 3, None)

        async with database.write() as session:
            await programs.archive_program(session, "qa")
        with pytest.raises(WrongStateError, match="archived"):
            await put()


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
