"""Jobs: optimizations and batches, also where their server is killed in the middle."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

import pytest
from dspex_bridge.testing.scripted_lm import Failure, Prompt, ScriptedLM

from integration.server_process import ServerProcess
from integration.server_work import (
    BATCH,
    CANCEL,
    ITEMS,
    JOB,
    OPTIMIZE,
    RANDOM_SEARCH,
    WAIT_S,
    Gate,
    batch_under_way,
    execute_batch,
    moves,
    optimize,
    prepare,
    revisions,
    solve,
)
from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from integration.server_process import Start


@pytest.fixture
def server(module_server: ServerProcess, module_lm: ScriptedLM) -> ServerProcess:
    """One for all tests that leave it as it was; each has a program of its own."""
    module_lm.always(solve)
    return module_server


def test_an_optimization_makes_a_revision_that_runs_from_then_on(server: ServerProcess) -> None:
    prepare(server, "made")
    job_id = optimize(server, program="made", idempotencyKey="once")
    assert optimize(server, program="made", idempotencyKey="once") == job_id
    job = server.wait(JOB, "COMPLETED", id=job_id)
    assert job["resultRevision"] == 2
    assert job["score"] == pytest.approx(7 / 8)
    assert moves(job) == ["queued", "running", "completed"]
    (first, second) = revisions(server, "made")
    assert (first["origin"], second["origin"]) == ("created", "optimized")
    assert (second["parent"], second["jobId"]) == (1, job_id)
    program = server.graphql('{ program(id: "made") { state revision } }')["program"]
    assert program == {"state": "OPTIMIZED", "revision": 2}
    ended = server.graphql(CANCEL, id=job_id)["cancelJob"]
    assert (ended["__typename"], ended["currentState"]) == ("WrongState", "completed")


@on_a_loop
async def test_an_optimization_is_followed_to_its_end(server: ServerProcess) -> None:
    import asyncio

    await asyncio.to_thread(prepare, server, "followed")
    job_id = await asyncio.to_thread(optimize, server, program="followed")
    query = """
    subscription ($id: ID!) { optimizationUpdates(jobId: $id) { state progress score } }
    """
    async with server.subscribe(query, id=job_id) as events:
        told = [event["optimizationUpdates"] async for event in events]
    assert told[-1]["state"] == "COMPLETED"
    assert any(item["progress"] and "lm_calls" in item["progress"] for item in told)


def test_what_cannot_be_optimized_is_told_before_anything_runs(server: ServerProcess) -> None:
    prepare(server, "refused")
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"optimizer": "coppro"}, "invalid_params", "Did you mean 'copro'"),
        ({"dataset": "nothing"}, "not_found", "no dataset"),
        ({"dataset": None}, "invalid_params", "needs a dataset"),
        ({"metric": {"name": "exact"}}, "invalid_params", "exact_match"),
    ]
    for given, code, text in cases:
        asked = {**RANDOM_SEARCH, "program": "refused", **given}
        problem = server.graphql(OPTIMIZE, input=asked)["optimizeProgram"]
        assert (problem["code"], text in problem["message"]) == (code, True), problem


def test_what_needs_code_of_the_clients_is_refused_and_says_so(server: ServerProcess) -> None:
    tools = [{"name": "look_up", "description": "…", "parameters": {"type": "object"}}]
    step = {"name": "one", "signature": "question -> answer", "module": "react", "tools": tools}
    query = "mutation ($input: ProgramInput!) { createProgram(input: $input) {"
    query += " __typename ... on Problem { code message } } }"
    asked: dict[str, Any] = {"name": "tools", "pipeline": {"steps": [step]}}
    refused = server.graphql(query, input=asked)["createProgram"]
    assert (refused["__typename"], refused["code"]) == ("InvalidInput", "invalid_params"), refused
    given = {"signature": "question -> answer", "module": "react", "tools": tools}
    answer = server.http.post("/v1/programs", json=given)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["data"]) == ("invalid_params", {"param": "tools"})
    assert "this server has none" in error["message"]
    prepare(server, "scored")
    asked = {**RANDOM_SEARCH, "program": "scored", "metric": {"callback": "right"}}
    query = "mutation ($input: OptimizeInput!) { optimizeProgram(input: $input) {"
    query += " __typename ... on InvalidInput { code param message } } }"
    problem = server.graphql(query, input=asked)["optimizeProgram"]
    assert (problem["__typename"], problem["param"]) == ("InvalidInput", "metric.callback")


def test_an_optimization_goes_on_from_its_checkpoint_after_a_kill(
    start: Start, lm: ScriptedLM
) -> None:
    server = start()
    prepare(server)
    whole = optimize(server)
    expected = server.wait(JOB, "COMPLETED", id=whole)
    asked = len(lm.prompts)
    gate = Gate(asked // 2)
    lm.always(gate)
    job_id = optimize(server)
    assert gate.reached.wait(WAIT_S)
    server.kill()
    lm.always(solve)
    gate.opened.set()
    before = len(lm.prompts)
    again = start()
    job = again.wait(JOB, "COMPLETED", id=job_id)
    assert (job["score"], job["baseScore"]) == (expected["score"], expected["baseScore"])
    assert (moves(job), job["attempts"]) == (["queued", "running", "completed"], 2)
    (told,) = [line for line in again.output if f"optimization job {job_id} had begun" in line]
    assert "it goes on here from its checkpoint (attempt 2)" in told
    assert [item["jobId"] for item in revisions(again)] == [None, whole, job_id]
    # What was answered before the kill was not asked again.
    assert len(lm.prompts) - before <= asked - asked // 2 + 1


def test_an_optimization_that_is_cancelled_makes_nothing(
    server: ServerProcess, module_lm: ScriptedLM
) -> None:
    prepare(server, "cancelled")
    gate = Gate(3)
    module_lm.always(gate)
    job_id = optimize(server, program="cancelled")
    assert gate.reached.wait(WAIT_S)
    assert server.graphql(CANCEL, id=job_id)["cancelJob"]["state"] == "CANCELLED"
    gate.opened.set()
    module_lm.always(solve)
    # Its place is free again.
    second = optimize(server, program="cancelled")
    server.wait(JOB, "COMPLETED", id=second)
    assert server.graphql(JOB, id=job_id)["optimizationJob"]["state"] == "CANCELLED"
    assert [item["jobId"] for item in revisions(server, "cancelled")] == [None, second]


def test_an_optimization_whose_lm_refuses_fails_with_its_error(
    start: Start, lm: ScriptedLM
) -> None:
    server = start()
    prepare(server)
    lm.always(Failure(401, "no"))
    job = server.wait(JOB, "FAILED", id=optimize(server))
    assert job["error"]["code"] in ("lm_error", "optimizer_error")
    assert (job["resultRevision"], job["attempts"]) == (None, 1)


def test_an_optimization_is_tried_again_where_its_lm_is_away_for_a_while(
    start: Start, lm: ScriptedLM
) -> None:
    server = start()
    prepare(server)
    lm.answer(*[Failure(503, "come back later")] * 6)
    job_id = optimize(server)
    job = server.wait(JOB, "COMPLETED", id=job_id)
    assert job["attempts"] > 1
    assert moves(job) == [*["queued", "running"] * job["attempts"], "completed"]
    assert not any("Traceback" in line for line in server.output)


def test_a_batch_runs_every_input_and_counts_what_failed(
    server: ServerProcess, module_lm: ScriptedLM
) -> None:
    prepare(server, "batch")

    def answer(prompt: Prompt) -> Any:
        return Failure(400, "no") if "5 + 5?" in prompt.text else solve(prompt)

    module_lm.always(answer)
    batch_id = execute_batch(server, 20, program="batch", idempotencyKey="once")
    assert execute_batch(server, 20, program="batch", idempotencyKey="once") == batch_id
    batch = server.wait(BATCH, "COMPLETED", id=batch_id)
    assert (batch["total"], batch["completed"], batch["failed"]) == (20, 19, 1)
    items = server.graphql(ITEMS, id=batch_id)["executions"]["nodes"]
    assert [item["batchIndex"] for item in items] == list(range(20))
    assert items[5]["state"] == "FAILED"
    assert items[6]["outputs"] == {"answer": "12"}


def test_a_batch_goes_on_after_a_kill_and_runs_nothing_twice_that_had_ended(
    start: Start, lm: ScriptedLM
) -> None:
    server = start()
    batch_id, gate = batch_under_way(server, lm, 60, answered=30)
    # Those that were answered are written down before it is killed.
    done = server.graphql(BATCH, id=batch_id)["batch"]["completed"]
    server.kill()
    lm.always(solve)
    gate.opened.set()
    again = start()
    batch = again.wait(BATCH, "COMPLETED", id=batch_id)
    assert (batch["completed"], batch["failed"], batch["attempts"]) == (60, 0, 2)
    (told,) = [line for line in again.output if f"batch {batch_id} had begun" in line]
    assert "WARNING" in told
    assert re.search(r"it goes on here \(attempt 2\), with \d+ of 60 done$", told)
    items = again.graphql(ITEMS, id=batch_id)["executions"]["nodes"]
    assert {item["state"] for item in items} == {"COMPLETED"}
    assert done <= 30
    counted = again.graphql('{ program(id: "qa") { executions failures } }')["program"]
    assert counted == {"executions": 60, "failures": 0}


def test_a_batch_that_is_cancelled_leaves_no_item_open(
    server: ServerProcess, module_lm: ScriptedLM
) -> None:
    prepare(server, "stopped")
    gate = Gate(5)
    module_lm.always(gate)
    batch_id = execute_batch(server, 40, program="stopped")
    assert gate.reached.wait(WAIT_S)
    assert server.graphql(CANCEL, id=batch_id)["cancelJob"]["batchState"] == "CANCELLED"
    gate.opened.set()
    items = server.graphql(ITEMS, id=batch_id)["executions"]["nodes"]
    assert {item["state"] for item in items} <= {"COMPLETED", "CANCELLED"}
    assert sum(item["state"] == "COMPLETED" for item in items) <= 5


def test_an_execution_that_was_cut_off_by_a_kill_is_failed_as_interrupted(
    start: Start, lm: ScriptedLM
) -> None:
    server = start()
    prepare(server)
    gate = Gate(0)
    lm.always(gate)
    query = 'mutation { executeProgram(input: {program: "qa", inputs: {question: "1 + 1?"}}) {'
    query += " __typename } }"

    def ask() -> None:
        with pytest.raises(Exception, match=r"."):  # its connection ends
            server.ask(query)

    asking = threading.Thread(target=ask)
    asking.start()
    assert gate.reached.wait(WAIT_S)
    server.kill()
    asking.join(WAIT_S)
    gate.opened.set()
    again = start()
    (item,) = again.graphql("{ executions { nodes { state error { code } } } }")["executions"][
        "nodes"
    ]
    assert item == {"state": "FAILED", "error": {"code": "interrupted"}}


def test_a_second_server_in_the_same_folder_is_refused(start: Start) -> None:
    start()
    with pytest.raises(RuntimeError, match=r"another dspex serve has .*PostgreSQL for several"):
        start()
