"""What tests ask of servers: programs, datasets, optimizations and batches, and their LM."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex_bridge.testing.scripted_lm import Prompt, ScriptedLM

    from integration.server_process import ServerProcess

__all__ = [
    "BATCH",
    "CANCEL",
    "DATASET",
    "EXECUTE_BATCH",
    "ITEMS",
    "JOB",
    "OPTIMIZE",
    "RANDOM_SEARCH",
    "ROWS",
    "WAIT_S",
    "Gate",
    "batch_under_way",
    "execute_batch",
    "moves",
    "optimize",
    "prepare",
    "revisions",
    "solve",
]

PROGRAM = """
mutation ($name: String!) { createProgram(input: {name: $name, signature: "question -> answer"}) {
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

# For something of a server's to happen, on a machine under load.
WAIT_S = 60


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


def prepare(server: ServerProcess, name: str = "qa") -> str:
    """The id of a new program; the dataset is there too."""
    server.graphql(DATASET, rows=ROWS)
    program_id: str = server.graphql(PROGRAM, name=name)["createProgram"]["id"]
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


def batch_under_way(
    server: ServerProcess, lm: ScriptedLM, count: int, *, answered: int
) -> tuple[str, Gate]:
    """A batch of so many of a new program, and the gate at which it waits when some of its prompts
    were answered."""
    prepare(server)
    gate = Gate(answered)
    lm.always(gate)
    batch_id = execute_batch(server, count)
    assert gate.reached.wait(WAIT_S)
    return batch_id, gate


def revisions(server: ServerProcess, name: str = "qa") -> list[dict[str, Any]]:
    query = "query ($id: ID!) { program(id: $id) {"
    query += " revisions { number origin parent jobId score } } }"
    found: list[dict[str, Any]] = server.graphql(query, id=name)["program"]["revisions"]
    return found


def moves(job: dict[str, Any]) -> list[str]:
    return [item["target"] for item in job["transitions"]]
