"""Executions: each ends once, and what came of it is counted."""

from __future__ import annotations

import pytest
from dspex_protocol.errors import (
    RequestTimeoutError,
)
from dspex_server.errors import WrongStateError
from dspex_server.resources import executions, programs

from tests.server.background import on_a_loop
from tests.server.resources import RESULT, begin, history, make_program, on, opened


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
