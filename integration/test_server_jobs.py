"""Jobs: optimizations and batches, also where their server is killed in the middle."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from dspex_bridge.testing.scripted_lm import Failure, Prompt, ScriptedLM

from integration.server_process import ServerProcess, write_lms
from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PROGRAM = """
mutation { createProgram(input: {name: "qa", signature: "question -> answer"}) {
  ... on Program { id } ... on Problem { message } } }
"""
DATASET = """
mutation ($rows: [JSON!]!) { createDataset(input: {name: "sums", rows: $rows}) {
  ... on Dataset { id version size } ... on Problem { message } } }
"""
OPTIMIZE = """
mutation ($input: OptimizeInput!) { optimizeProgram(input: $input) {
  __typename ... on OptimizationJob { id state } ... on Problem { code message } } }
"""
JOB = """
query ($id: ID!) { optimizationJob(id: $id) {
  state score baseScore resultRevision attempts error { code message }
  transitions { source target } } }
"""
EXECUTE_BATCH = """
mutation ($input: BatchInput!) { executeBatch(input: $input) {
  __typename ... on Batch { id state total } ... on Problem { code message } } }
"""
BATCH = """
query ($id: ID!) { batch(id: $id) {
  state total completed failed attempts transitions { source target } } }
"""
ITEMS = """
query ($id: ID!) { executions(filter: {batchId: $id}, page: {first: 500}, direction: ASC) {
  nodes { batchIndex state outputs } } }
"""
CANCEL = """
mutation ($id: ID!) { cancelJob(id: $id) {
  __typename ... on OptimizationJob { state } ... on Batch { batchState: state }
  ... on WrongState { currentState } } }
"""
ROWS = [
    {"inputs": {"question": f"{n} + {n}?"}, "outputs": {"answer": str(2 * n)}} for n in range(8)
]
RANDOM_SEARCH = {
    "program": "qa",
    "optimizer": "bootstrap_few_shot_random_search",
    "params": {"num_candidate_programs": 2, "max_bootstrapped_demos": 2, "num_threads": 1},
    "dataset": "sums",
    "metric": {"name": "exact_match"},
    "seed": 1,
}
WAIT_S = 60

Start: TypeAlias = "Callable[..., ServerProcess]"


def solve(prompt: Prompt) -> dict[str, str]:
    """The sum in the last question; one of them is wrong, so that the search does not end early."""
    number = int(prompt.text.rpartition(" + ")[2].partition("?")[0])
    return {"answer": str(2 * number) if number != 7 else "wrong"}


class Gate:
    """Answers `solve` until `count` prompts were answered; then it waits for `open`."""

    def __init__(self, count: int) -> None:
        self._left = threading.Semaphore(count)
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, prompt: Prompt) -> dict[str, str]:
        if not self._left.acquire(blocking=False):
            self.reached.set()
            assert self.opened.wait(WAIT_S)
        return solve(prompt)


@pytest.fixture
def lm() -> Iterator[ScriptedLM]:
    scripted = ScriptedLM()
    scripted.always(solve)
    yield scripted
    scripted.close()


@pytest.fixture
def start(tmp_path: Path, lm: ScriptedLM) -> Iterator[Start]:
    """Starts a server in one folder, again and again."""
    lms = write_lms(tmp_path, {"main": lm.lm})
    started: list[ServerProcess] = []

    def begin(*arguments: str) -> ServerProcess:
        server = ServerProcess(
            *("--data-dir", str(tmp_path / "data"), "--lms", str(lms), "--bridges", "1"),
            *arguments,
        )
        started.append(server)
        return server

    yield begin
    for server in started:
        server.close()


def prepare(server: ServerProcess) -> str:
    server.graphql(DATASET, rows=ROWS)
    program_id: str = server.graphql(PROGRAM)["createProgram"]["id"]
    return program_id


def optimize(server: ServerProcess, **more: Any) -> str:
    started = server.graphql(OPTIMIZE, input={**RANDOM_SEARCH, **more})["optimizeProgram"]
    assert started["__typename"] == "OptimizationJob", started
    job_id: str = started["id"]
    return job_id


def execute_batch(server: ServerProcess, count: int, **more: Any) -> str:
    inputs = [{"question": f"{n} + {n}?"} for n in range(count)]
    asked = {"program": "qa", "inputs": inputs, **more}
    batch_id: str = server.graphql(EXECUTE_BATCH, input=asked)["executeBatch"]["id"]
    return batch_id


def revisions(server: ServerProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = server.graphql(
        '{ program(id: "qa") { revisions { number origin parent jobId score } } }'
    )["program"]["revisions"]
    return found


def moves(job: dict[str, Any]) -> list[str]:
    return [item["target"] for item in job["transitions"]]


def test_an_optimization_makes_a_revision_that_runs_from_then_on(start: Start) -> None:
    server = start()
    prepare(server)
    job_id = optimize(server, idempotencyKey="once")
    assert optimize(server, idempotencyKey="once") == job_id
    job = server.wait(JOB, "COMPLETED", id=job_id)
    assert job["resultRevision"] == 2
    assert job["score"] == pytest.approx(7 / 8)
    assert moves(job) == ["queued", "running", "completed"]
    (first, second) = revisions(server)
    assert (first["origin"], second["origin"]) == ("created", "optimized")
    assert (second["parent"], second["jobId"]) == (1, job_id)
    program = server.graphql('{ program(id: "qa") { state revision } }')["program"]
    assert program == {"state": "OPTIMIZED", "revision": 2}
    ended = server.graphql(CANCEL, id=job_id)["cancelJob"]
    assert (ended["__typename"], ended["currentState"]) == ("WrongState", "completed")


@on_a_loop
async def test_an_optimization_is_followed_to_its_end(start: Start) -> None:
    import asyncio

    server = await asyncio.to_thread(start)
    await asyncio.to_thread(prepare, server)
    job_id = await asyncio.to_thread(optimize, server)
    query = """
    subscription ($id: ID!) { optimizationUpdates(jobId: $id) { state progress score } }
    """
    async with server.subscribe(query, id=job_id) as events:
        told = [event["optimizationUpdates"] async for event in events]
    assert told[-1]["state"] == "COMPLETED"
    assert any(item["progress"] and "lm_calls" in item["progress"] for item in told)


def test_what_cannot_be_optimized_is_told_before_anything_runs(start: Start) -> None:
    server = start()
    prepare(server)
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"optimizer": "coppro"}, "invalid_params", "Did you mean 'copro'"),
        ({"dataset": "nothing"}, "not_found", "no dataset"),
        ({"dataset": None}, "invalid_params", "needs a dataset"),
        ({"metric": {"name": "exact"}}, "invalid_params", "exact_match"),
    ]
    for given, code, text in cases:
        asked = {**RANDOM_SEARCH, **given}
        problem = server.graphql(OPTIMIZE, input=asked)["optimizeProgram"]
        assert (problem["code"], text in problem["message"]) == (code, True), problem


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
    assert moves(job) == ["queued", "running", "completed"]
    assert [item["jobId"] for item in revisions(again)] == [None, whole, job_id]
    # What was answered before the kill was not asked again.
    assert len(lm.prompts) - before <= asked - asked // 2 + 1


def test_an_optimization_that_is_cancelled_makes_nothing(start: Start, lm: ScriptedLM) -> None:
    server = start()
    prepare(server)
    gate = Gate(3)
    lm.always(gate)
    job_id = optimize(server)
    assert gate.reached.wait(WAIT_S)
    assert server.graphql(CANCEL, id=job_id)["cancelJob"]["state"] == "CANCELLED"
    gate.opened.set()
    lm.always(solve)
    # Its place is free again.
    second = optimize(server)
    server.wait(JOB, "COMPLETED", id=second)
    assert server.graphql(JOB, id=job_id)["optimizationJob"]["state"] == "CANCELLED"
    assert [item["jobId"] for item in revisions(server)] == [None, second]


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


def test_a_batch_runs_every_input_and_counts_what_failed(start: Start, lm: ScriptedLM) -> None:
    server = start()
    prepare(server)

    def answer(prompt: Prompt) -> Any:
        return Failure(400, "no") if "5 + 5?" in prompt.text else solve(prompt)

    lm.always(answer)
    batch_id = execute_batch(server, 20, idempotencyKey="once")
    assert execute_batch(server, 20, idempotencyKey="once") == batch_id
    batch = server.wait(BATCH, "COMPLETED", id=batch_id)
    assert (batch["total"], batch["completed"], batch["failed"]) == (20, 19, 1)
    items = server.graphql(ITEMS, id=batch_id)["executions"]["nodes"]
    by_index = {item["batchIndex"]: item for item in items}
    assert sorted(by_index) == list(range(20))
    assert by_index[5]["state"] == "FAILED"
    assert by_index[6]["outputs"] == {"answer": "12"}


def test_a_batch_goes_on_after_a_kill_and_runs_nothing_twice_that_had_ended(
    start: Start, lm: ScriptedLM
) -> None:
    server = start()
    prepare(server)
    gate = Gate(30)
    lm.always(gate)
    batch_id = execute_batch(server, 60)
    assert gate.reached.wait(WAIT_S)
    # Those that were answered are written down before it is killed.
    done = server.graphql(BATCH, id=batch_id)["batch"]["completed"]
    server.kill()
    lm.always(solve)
    gate.opened.set()
    again = start()
    batch = again.wait(BATCH, "COMPLETED", id=batch_id)
    assert (batch["completed"], batch["failed"]) == (60, 0)
    items = again.graphql(ITEMS, id=batch_id)["executions"]["nodes"]
    assert {item["state"] for item in items} == {"COMPLETED"}
    assert done <= 30
    counted = again.graphql('{ program(id: "qa") { executions failures } }')["program"]
    assert counted == {"executions": 60, "failures": 0}


def test_a_batch_that_is_cancelled_leaves_no_item_open(start: Start, lm: ScriptedLM) -> None:
    server = start()
    prepare(server)
    gate = Gate(5)
    lm.always(gate)
    batch_id = execute_batch(server, 40)
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
