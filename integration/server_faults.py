"""Random SIGKILLs of a server and of its bridges under load, and what must hold afterwards.

    python -m integration.server_faults --kills 100 [--postgres] [--seed N] [--record FILE]

Callers run executions, and batches and optimizations are asked for, while servers (and, with
--postgres, workers and PostgreSQL itself) and bridges are killed. Afterwards: whatever was
acknowledged is in the database as it was told, no execution is open, every job has ended once, an
optimization has made one revision, and the SQLite files are whole. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from dspex_bridge.testing.scripted_lm import ScriptedLM

from integration.postgres import Postgres
from integration.server_process import ServerProcess, write_lms
from integration.test_server_jobs import EXECUTE_BATCH, OPTIMIZE, RANDOM_SEARCH, prepare, solve

__all__ = ["run"]

_CALLERS = 4
_SETTLE_S = 180.0
_PAUSE_S = (0.1, 1.5)

_EXECUTE = """
mutation ($input: ExecuteInput!) { executeProgram(input: $input) {
  __typename ... on Execution { id state outputs } ... on Problem { code } } }
"""


class _Load:
    """Callers that go on whatever happens, and remember what they were told."""

    def __init__(self, seed: int) -> None:
        self.executions: dict[str, dict[str, Any]] = {}
        self.jobs: dict[str, str] = {}
        self.calls = 0
        self.unanswered = 0
        self.url = ""
        self._seed = seed
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(number,)) for number in range(_CALLERS)
        ]
        self._threads.append(threading.Thread(target=self._ask_for_jobs))

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _graphql(self, query: str, **variables: Any) -> Any:
        """None where nobody answered, or the database was away."""
        try:
            response = httpx.post(
                f"{self.url}/graphql",
                json={"query": query, "variables": variables},
                timeout=60,
                trust_env=False,
            )
            (found,) = response.json()["data"].values()
        except (httpx.HTTPError, ValueError, KeyError, TypeError, AttributeError):
            self._ended.wait(0.05)
            return None
        return found

    def _call(self, number: int) -> None:
        noise = random.Random(f"{self._seed} {number}")
        while not self._ended.is_set():
            n = noise.randrange(100)
            asked = {"program": "qa", "inputs": {"question": f"{n} + {n}?"}}
            found = self._graphql(_EXECUTE, input=asked)
            with self._lock:
                self.calls += 1
                if found is None or found["__typename"] != "Execution":
                    self.unanswered += 1
                else:
                    self.executions[found["id"]] = found

    def _ask_for_jobs(self) -> None:
        number = 0
        while not self._ended.is_set():
            number += 1
            key = f"{self._seed}-{number}"
            if number % 4:
                inputs = [{"question": f"{n} + {n}?"} for n in range(10)]
                asked: dict[str, Any] = {"program": "qa", "inputs": inputs}
                query, kind = EXECUTE_BATCH, "batch"
            else:
                asked = dict(RANDOM_SEARCH)
                query, kind = OPTIMIZE, "optimizationJob"
            asked["idempotencyKey"] = key
            # Until it is acknowledged: the key makes one job of many requests.
            while not self._ended.is_set():
                found = self._graphql(query, input=asked)
                if found is not None and "id" in found:
                    with self._lock:
                        self.jobs[found["id"]] = kind
                    break
            self._ended.wait(2.0)


def _bridges(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            text = path.read_text().rpartition(")")[2].split()
            if int(text[1]) == pid:
                found.append(int(path.parent.name))
    return found


def run(*, kills: int, seed: int, on_postgres: bool) -> dict[str, Any]:
    """The counts. Raises AssertionError where something was lost."""
    noise = random.Random(seed)
    lm = ScriptedLM()
    lm.always(solve)
    counts = dict.fromkeys(("server", "bridge", "postgres"), 0)
    postgres = Postgres() if on_postgres else None
    load = _Load(seed)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dspex-faults-") as name:
        folder = Path(name)
        arguments = ["--data-dir", str(folder / "data"), "--bridges", "1"]
        arguments += ["--lms", str(write_lms(folder, {"main": lm.lm}))]
        if postgres is not None:
            arguments += ["--database-url", postgres.new_database()]
        server = ServerProcess(*arguments)
        try:
            prepare(server)
            load.url = server.url
            load.start()
            while sum(counts.values()) < kills:
                time.sleep(noise.uniform(*_PAUSE_S))
                bridges = _bridges(server.process.pid)
                if postgres is not None and noise.random() < 0.07:
                    postgres.kill()
                    counts["postgres"] += 1
                    _restart(postgres)
                elif bridges and noise.random() < 0.5:
                    with suppress(ProcessLookupError):
                        os.kill(noise.choice(bridges), signal.SIGKILL)
                    counts["bridge"] += 1
                else:
                    server.kill()
                    counts["server"] += 1
                    server = ServerProcess(*arguments)
                    load.url = server.url
            load.stop()
            found = _judge(server, load)
        finally:
            load.stop()
            server.close()
            lm.close()
            if postgres is not None:
                postgres.close()
        if postgres is None:
            _check_files(folder / "data")
    return {
        "seed": seed,
        "database": "postgresql" if on_postgres else "sqlite",
        "kills": counts,
        "calls": load.calls,
        "unanswered": load.unanswered,
        **found,
        "seconds": round(time.monotonic() - began, 1),
    }


def _restart(postgres: Postgres) -> None:
    """Its shared memory goes with its processes, some time after they are killed."""
    for _ in range(50):
        try:
            postgres.start()
        except RuntimeError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("PostgreSQL did not start again")


def _judge(server: ServerProcess, load: _Load) -> dict[str, Any]:
    deadline = time.monotonic() + _SETTLE_S
    jobs: dict[str, dict[str, Any]] = {}
    fields = "state transitions { target }"
    for job_id, kind in load.jobs.items():
        while True:
            more = "resultRevision" if kind == "optimizationJob" else "total completed failed"
            query = f"query ($id: ID!) {{ {kind}(id: $id) {{ {fields} {more} }} }}"
            job = server.graphql(query, id=job_id)[kind]
            if job["state"] in ("COMPLETED", "FAILED", "CANCELLED"):
                break
            assert time.monotonic() < deadline, (job_id, job, server.output[-20:])
            time.sleep(0.2)
        jobs[job_id] = job
        ends = [item["target"] for item in job["transitions"] if item["target"] == "completed"]
        assert len(ends) == 1, (job_id, job)
        if kind == "batch":
            assert job["completed"] + job["failed"] == job["total"], job
    for execution_id, told in load.executions.items():
        query = "query ($id: ID!) { execution(id: $id) { id state outputs } }"
        kept = server.graphql(query, id=execution_id)["execution"]
        assert kept == {key: told[key] for key in ("id", "state", "outputs")}, (told, kept)
    query = "{ executions(filter: {state: [PENDING, RUNNING]}) { totalCount } }"
    while server.graphql(query)["executions"]["totalCount"]:
        assert time.monotonic() < deadline, "executions are open for ever"
        time.sleep(0.2)
    revisions = server.graphql('{ program(id: "qa") { revisions { jobId } } }')["program"]
    made = [item["jobId"] for item in revisions["revisions"] if item["jobId"] is not None]
    assert len(made) == len(set(made)), made
    optimizations = [job_id for job_id, kind in load.jobs.items() if kind == "optimizationJob"]
    assert set(made) == set(optimizations), (made, optimizations)
    return {
        "acknowledged": len(load.executions),
        "batches": len(jobs) - len(optimizations),
        "optimizations": len(optimizations),
        "lost": 0,
    }


def _check_files(folder: Path) -> None:
    files = sorted(folder.glob("*.sqlite"))
    assert len(files) == 2, files
    for file in files:
        connection = sqlite3.connect(file)
        (found,) = connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()
        assert found == "ok", (file, found)


def main() -> None:
    parser = argparse.ArgumentParser("server_faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    found = run(kills=options.kills, seed=options.seed, on_postgres=options.postgres)
    print(json.dumps(found))
    if options.record is not None:
        records = json.loads(options.record.read_text()) if options.record.exists() else []
        options.record.write_text(json.dumps([*records, found], indent=2) + "\n")


if __name__ == "__main__":
    main()
