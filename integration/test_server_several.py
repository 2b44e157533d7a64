"""Several servers and workers on one PostgreSQL: work of one that dies is taken over by another."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from integration.server_work import (
    BATCH,
    JOB,
    WAIT_S,
    Gate,
    batch_under_way,
    optimize,
    prepare,
    revisions,
    solve,
)
from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from dspex_bridge.testing.scripted_lm import ScriptedLM

    from integration.postgres import Postgres
    from integration.server_process import Start

# A server is held for dead after 15 seconds; then its work has to be done.
TAKE_OVER_S = 90

pytestmark = pytest.mark.timeout(180)


def test_a_worker_runs_the_jobs_of_a_server_and_another_takes_over_when_it_is_killed(
    start_shared: Start, lm: ScriptedLM
) -> None:
    server = start_shared("--optimizations", "0", "--batches", "0")
    worker = start_shared(command="worker")
    prepare(server)
    first = optimize(server)
    assert server.wait(JOB, "COMPLETED", id=first)["resultRevision"] == 2
    gate = Gate(4)
    lm.always(gate)
    second = optimize(server)
    assert gate.reached.wait(WAIT_S)
    worker.kill()
    lm.always(solve)
    gate.opened.set()
    start_shared(command="worker")
    job = server.wait(JOB, "COMPLETED", TAKE_OVER_S, id=second)
    assert job["resultRevision"] == 3
    assert [item["jobId"] for item in revisions(server)] == [None, first, second]


def test_a_batch_of_a_server_that_is_killed_is_ended_by_another(
    start_shared: Start, lm: ScriptedLM
) -> None:
    first = start_shared()
    batch_id, gate = batch_under_way(first, lm, 40, answered=10)
    second = start_shared()
    first.kill()
    lm.always(solve)
    gate.opened.set()
    batch = second.wait(BATCH, "COMPLETED", TAKE_OVER_S, id=batch_id)
    assert (batch["completed"], batch["failed"], batch["attempts"]) == (40, 0, 2)
    assert any(f"batch {batch_id} had begun and not ended" in line for line in second.output)
    counted = second.graphql('{ program(id: "qa") { executions } }')["program"]
    assert counted == {"executions": 40}


@on_a_loop
async def test_an_execution_is_followed_and_cancelled_on_another_server(
    start_shared: Start, lm: ScriptedLM
) -> None:
    import asyncio

    runs, other = await asyncio.gather(
        asyncio.to_thread(start_shared), asyncio.to_thread(start_shared)
    )
    program_id = await asyncio.to_thread(prepare, runs)
    gate = Gate(0)
    lm.always(gate)
    query = 'mutation { executeProgram(input: {program: "qa", inputs: {question: "1 + 1?"}}) {'
    query += " ... on Execution { state } } }"
    news = "subscription ($id: ID!) { executionUpdates(programId: $id) { id state } }"
    async with other.subscribe(news, id=program_id) as events:
        running = asyncio.create_task(asyncio.to_thread(runs.graphql, query))
        execution_id = (await anext(events))["executionUpdates"]["id"]
        assert await asyncio.to_thread(gate.reached.wait, WAIT_S)
        cancel = "mutation ($id: ID!) { cancelExecution(id: $id) { ... on Execution { state } } }"
        await asyncio.to_thread(other.graphql, cancel, id=execution_id)
        # The one that ran it was told, and answers while the LM still does not.
        assert not gate.opened.is_set()
        assert (await running)["executeProgram"]["state"] == "CANCELLED"
    gate.opened.set()


def test_a_database_that_is_away_is_told_and_a_result_waits_for_it(
    start_shared: Start, lm: ScriptedLM, postgres: Postgres
) -> None:
    server = start_shared()
    prepare(server)
    gate = Gate(0)
    lm.always(gate)
    query = 'mutation { executeProgram(input: {program: "qa", inputs: {question: "1 + 1?"}}) {'
    query += " __typename ... on Execution { state outputs } ... on Problem { code } } }"
    answers = []
    asking = threading.Thread(target=lambda: answers.append(server.graphql(query)))
    asking.start()
    assert gate.reached.wait(WAIT_S)
    postgres.stop("immediate")
    problem = server.graphql(query)["executeProgram"]
    assert problem["code"] == "database_unavailable"
    health = server.http.get("/healthz")
    # Anybody may ask it: it does not tell where the database is.
    assert (health.status_code, health.json()) == (503, {"status": "unavailable"})
    gate.opened.set()
    postgres.start()
    asking.join(WAIT_S)
    assert answers[0]["executeProgram"]["outputs"] == {"answer": "2"}
    lm.always(solve)
    assert server.graphql(query)["executeProgram"]["state"] == "COMPLETED"
