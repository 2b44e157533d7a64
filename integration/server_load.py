"""Callers of several servers that go on whatever happens, and write down what they were told."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Any

import httpx

from integration.server_history import History
from integration.server_work import EXECUTE_BATCH, OPTIMIZE, RANDOM_SEARCH

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Load"]

_EXECUTORS = 4
_JOB_OWNERS = 8
_BATCH = 10

# A server that is killed closes its connections: this is for one that hangs.
_REQUEST_S = 30.0
# Between looks at a job, and tries where nobody answers.
_LOOK_S = 0.3

_EXECUTE = """
mutation ($input: ExecuteInput!) { executeProgram(input: $input) {
  __typename ... on Execution { id state outputs } ... on Problem { code retryable } } }
"""
_MAKE_DATASET = """
mutation ($input: DatasetInput!) { createDataset(input: $input) {
  __typename ... on Dataset { id version size } ... on Problem { code } } }
"""
_MAKE_PROGRAM = """
mutation ($input: ProgramInput!) { createProgram(input: $input) {
  __typename ... on Program { id name } ... on Problem { code } } }
"""
_ARCHIVE = """
mutation ($id: ID!) { archiveProgram(id: $id) {
  __typename ... on Program { id state } ... on Problem { code } } }
"""
_OPEN = """
{ executions(filter: {state: [PENDING, RUNNING]}, page: {first: 20}) { nodes { id batchId } } }
"""
_CANCEL_EXECUTION = """
mutation ($id: ID!) { cancelExecution(id: $id) {
  __typename ... on Execution { id } ... on Problem { code } } }
"""
_DEPLOY = """
mutation { deployProgram(id: "qa") {
  __typename ... on Program { id deployedRevision } ... on Problem { code } } }
"""
_ROLL_BACK = """
mutation { rollbackProgram(id: "qa", revision: 1) {
  __typename ... on Program { id deployedRevision } ... on Problem { code } } }
"""
_CANCEL = """
mutation ($id: ID!) { cancelJob(id: $id) { __typename ... on Problem { code } } }
"""
_STATE = {
    "batches": "query ($id: ID!) { batch(id: $id) { state } }",
    "optimization_jobs": "query ($id: ID!) { optimizationJob(id: $id) { state } }",
}


class Load:
    """`wait_for_url` gives the URL of some server, or None where there is none for so many
    seconds."""

    def __init__(
        self, seed: int, wait_for_url: Callable[[random.Random, float], str | None]
    ) -> None:
        self.history = History()
        self.calls = 0
        self.under_way = 0
        self.answers = 0
        self.results = 0
        # By the code that was told, or by the error of the connection.
        self.refusals: dict[str, int] = {}
        self._seed = seed
        self._wait_for_url = wait_for_url
        self._answered = threading.Condition()
        self._ended = threading.Event()
        self._crashes: list[BaseException] = []
        works = [self._execute] * _EXECUTORS + [self._own_jobs] * _JOB_OWNERS
        works += [self._make, self._cancel, self._deploy]
        self._threads = [
            threading.Thread(target=self._run, args=(work, number), daemon=True)
            for number, work in enumerate(works)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Raises what ended a caller."""
        self._ended.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if self._crashes:
            raise self._crashes[0]

    def wait_for_results(self, more: int, bound_s: float) -> bool:
        """Until so many more executions were completed. False where that took too long."""
        with self._answered:
            until = self.results + more
            return self._answered.wait_for(lambda: self.results >= until, bound_s)

    def _run(self, work: Callable[[random.Random, httpx.Client, int], None], number: int) -> None:
        noise = random.Random(f"{self._seed} {number}")
        try:
            with httpx.Client(timeout=_REQUEST_S, trust_env=False, verify=False) as http:  # noqa: S501
                work(noise, http, number)
        except BaseException as error:  # noqa: BLE001 - it is raised by `stop`
            self._crashes.append(error)

    def _execute(self, noise: random.Random, http: httpx.Client, _number: int) -> None:
        while not self._ended.is_set():
            n = noise.randrange(100)
            asked = {"program": "qa", "inputs": {"question": f"{n} + {n}?"}}
            found = self._graphql(noise, http, _EXECUTE, input=asked)
            if found is not None:
                self._told(
                    "ended", id=found["id"], state=found["state"].lower(), outputs=found["outputs"]
                )

    def _own_jobs(self, noise: random.Random, http: httpx.Client, number: int) -> None:
        """One job at a time: asked for until it is acknowledged, then cancelled or waited for."""
        count = 0
        while not self._ended.is_set():
            count += 1
            key = f"{self._seed}-{number}-{count}"
            if noise.random() < 0.7:
                table, query = "batches", EXECUTE_BATCH
                inputs = [{"question": f"{n} + {n}?"} for n in range(_BATCH)]
                asked: dict[str, Any] = {"program": "qa", "inputs": inputs}
            else:
                table, query, asked = "optimization_jobs", OPTIMIZE, dict(RANDOM_SEARCH)
            asked["idempotencyKey"] = key
            job_id = None
            while job_id is None and not self._ended.is_set():
                found = self._graphql(noise, http, query, input=asked)
                if found is not None:
                    job_id = found["id"]
                    self._told("job", id=job_id, table=table, key=key)
            if job_id is None:
                return
            is_unwanted = noise.random() < 0.15
            while not self._ended.wait(_LOOK_S):
                if is_unwanted and self._graphql(noise, http, _CANCEL, id=job_id) is not None:
                    self._told("cancelled", id=job_id, table=table)
                    break
                found = self._graphql(noise, http, _STATE[table], id=job_id)
                if found is not None and found["state"] in ("COMPLETED", "FAILED", "CANCELLED"):
                    break

    def _make(self, noise: random.Random, http: httpx.Client, _number: int) -> None:
        count = 0
        while not self._ended.wait(_LOOK_S):
            count += 1
            # Of one name: each is a new version, and they must not lose one another.
            rows = [{"inputs": {"question": str(count)}, "outputs": {"answer": "1"}}]
            found = self._graphql(
                noise, http, _MAKE_DATASET, input={"name": "growing", "rows": rows}
            )
            if found is not None:
                has = {"version": found["version"], "size": 1}
                self._told("made", table="datasets", id=found["id"], has=has)
            asked = {"name": f"p{count}", "signature": "question -> answer"}
            found = self._graphql(noise, http, _MAKE_PROGRAM, input=asked)
            if found is None:
                continue
            made = found["id"]
            self._told("made", table="programs", id=made, has={"name": asked["name"]})
            found = self._graphql(noise, http, _ARCHIVE, id=made)
            if found is not None:
                self._told("made", table="programs", id=made, has={"state": "archived"})

    def _cancel(self, noise: random.Random, http: httpx.Client, _number: int) -> None:
        """Executions of others: their callers are answered so."""
        while not self._ended.wait(_LOOK_S):
            found = self._graphql(noise, http, _OPEN)
            nodes = [] if found is None else found["nodes"]
            # An item of a batch is the batch's.
            ids = [node["id"] for node in nodes if node["batchId"] is None]
            # Not all that wait while a server or a bridge starts.
            is_unwanted = ids and noise.random() < 0.2
            if is_unwanted and (found := self._graphql(noise, http, _CANCEL_EXECUTION, id=ids[0])):
                self._told("cancelled", id=found["id"], table="executions")

    def _deploy(self, noise: random.Random, http: httpx.Client, _number: int) -> None:
        """Nobody else does: what runs in the end is what was deployed last."""
        is_deployed = False
        while not self._ended.wait(_LOOK_S):
            is_newest = not is_deployed or noise.random() < 0.5
            found = self._graphql(noise, http, _DEPLOY if is_newest else _ROLL_BACK)
            if found is not None:
                is_deployed = True
                revision = f"revision {found['deployedRevision']}"
                reason = revision if is_newest else f"rolled back to {revision}"
                self._told("deployed", id=found["id"], reason=reason)

    def _graphql(
        self, noise: random.Random, http: httpx.Client, query: str, **variables: Any
    ) -> dict[str, Any] | None:
        """The resource; None where nobody answered, or it was refused for now."""
        url = None
        while url is None:
            if self._ended.is_set():
                return None
            url = self._wait_for_url(noise, _LOOK_S)
        with self._answered:
            self.calls += 1
            self.under_way += 1
        try:
            response = http.post(f"{url}/graphql", json={"query": query, "variables": variables})
        except httpx.HTTPError as error:
            self._refused(type(error).__name__)
            return None
        finally:
            with self._answered:
                self.under_way -= 1
        answer = response.json()
        if answer.get("errors"):
            # A query has no union: its errors are these, and have a code too.
            first = answer["errors"][0]
            code = first.get("extensions", {}).get("code")
            if code is None:
                self._told("unclear", error=first)
            self._refused(str(code))
            return None
        (found,) = answer["data"].values()
        if "code" in found:
            self._refused(found["code"])
            return None
        with self._answered:
            self.answers += 1
        return dict(found)

    def _refused(self, why: str) -> None:
        with self._answered:
            self.refusals[why] = self.refusals.get(why, 0) + 1
        self._ended.wait(_LOOK_S)

    def _told(self, kind: str, **event: Any) -> None:
        with self._answered:
            self.history.events.append({"kind": kind, **event})
            if event.get("state") == "completed":
                self.results += 1
                self._answered.notify_all()
