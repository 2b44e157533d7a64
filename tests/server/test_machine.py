"""State machines: what may follow what, also where many change a state at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from dspex_server.errors import WrongStateError
from dspex_server.resources import executions, jobs, programs, signatures

from tests.server.background import on_a_loop
from tests.server.resources import RESULT, begin, make_program, on, opened

if TYPE_CHECKING:
    from dspex_server.resources.machine import StateMachine


MACHINES = [
    signatures.SIGNATURES,
    programs.PROGRAMS,
    executions.EXECUTIONS,
    jobs.OPTIMIZATION_JOBS,
    jobs.BATCHES,
]


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
