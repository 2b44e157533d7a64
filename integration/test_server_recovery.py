"""What a kill at the wrong moment leaves behind, made by hand: somebody sees to it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from integration.server_work import BATCH, WAIT_S, batch_under_way, prepare, solve

if TYPE_CHECKING:
    from pathlib import Path

    from dspex_bridge.testing.scripted_lm import ScriptedLM

    from integration.server_process import Start

pytestmark = pytest.mark.timeout(180)

EXECUTE = """
mutation { executeProgram(input: {program: "qa", inputs: {question: "1 + 1?"}}) {
  ... on Execution { id state } } }
"""
EXECUTION = "query ($id: ID!) { execution(id: $id) { state error { code } } }"


def change(folder: Path, statement: str, *values: str) -> None:
    file = folder / "data" / "dspex.sqlite"
    with closing(sqlite3.connect(file, timeout=WAIT_S)) as connection, connection:
        assert connection.execute(statement, values).rowcount == 1


def test_a_batch_of_a_server_that_was_never_written_down_is_taken_over(
    start: Start, lm: ScriptedLM, tmp_path: Path
) -> None:
    server = start()
    batch_id, gate = batch_under_way(server, lm, 10, answered=2)
    server.kill()
    # It was killed before it wrote itself down; or it was held for dead, and its row is gone.
    change(tmp_path, "DELETE FROM servers")
    lm.always(solve)
    gate.opened.set()
    batch = start().wait(BATCH, "COMPLETED", id=batch_id)
    assert (batch["completed"], batch["failed"]) == (10, 0)


def test_a_batch_loses_nothing_where_its_server_is_asked_to_end(
    start: Start, lm: ScriptedLM
) -> None:
    server = start()
    batch_id, gate = batch_under_way(server, lm, 10, answered=2)
    assert server.close() == 0
    said = "".join(server.output)
    assert "Traceback" not in said, said
    lm.always(solve)
    gate.opened.set()
    batch = start().wait(BATCH, "COMPLETED", id=batch_id)
    # The eighth of these answers is a wrong one, which completes no less.
    assert (batch["completed"], batch["failed"]) == (10, 0)


def test_an_execution_that_its_server_does_not_run_is_failed_as_interrupted(
    start: Start, tmp_path: Path
) -> None:
    server = start()
    prepare(server)
    execution_id = server.graphql(EXECUTE)["executeProgram"]["id"]
    # As where the database wrote it and went away before it said so.
    change(
        tmp_path,
        "UPDATE executions SET state = 'running', created_at = '2020-01-01 00:00:00' WHERE id = ?",
        execution_id,
    )
    found = server.wait(EXECUTION, "FAILED", id=execution_id)
    assert found["error"] == {"code": "interrupted"}
