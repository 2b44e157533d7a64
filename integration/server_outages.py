"""A database that is down, a disk that is full, one that refuses writes and one that is read-only.

    python -m integration.server_outages [--seconds 60] [--record FILE]

Meanwhile every call is answered within seconds, by an error that says what it is and that it may be
sent again; afterwards the same server does everything, what was under way included, and nothing
that was acknowledged is lost. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
from dspex_bridge.testing.scripted_lm import ScriptedLM

from integration.postgres import Postgres
from integration.server_faults import check_files, environment
from integration.server_process import ServerProcess, write_lms
from integration.server_work import (
    BATCH,
    DATASET,
    JOB,
    ROWS,
    WAIT_S,
    Gate,
    execute_batch,
    optimize,
    prepare,
    solve,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["database_down", "disk_full", "disk_mounted", "read_only_start", "writes_refused"]

# An error is told within this: a connection is waited for 5 s, a place in the pool 15 s.
ANSWER_S = 20.0
# Afterwards: jobs look for the database again after pauses that grow while it is away.
WELL_S = 150.0

_DISK_BYTES = 32 * 1024 * 1024
_BATCH = 12
_OUTAGE_S = 60.0

_EXECUTE = """
mutation { executeProgram(input: {program: "qa", inputs: {question: "1 + 1?"}}) {
  __typename ... on Execution { id state outputs } ... on Problem { code message retryable } } }
"""
_EXECUTE_BATCH = """
mutation ($input: BatchInput!) { executeBatch(input: $input) {
  __typename ... on Batch { id } ... on Problem { code message retryable } } }
"""


class _House:
    """A server with work under way: an execution and a batch, whose LM waits at a gate."""

    def __init__(self, stack: ExitStack, folder: Path, *arguments: str) -> None:
        self.lm = ScriptedLM()
        stack.callback(self.lm.close)
        self.lm.always(solve)
        lms = write_lms(folder, {"main": self.lm.lm})
        self.server = ServerProcess("--lms", str(lms), "--bridges", "1", *arguments)
        stack.callback(self.server.close)
        prepare(self.server)
        self.done = [self._execute()["id"]]
        self.gate = Gate(0)
        stack.callback(self.gate.opened.set)
        self.lm.always(self.gate)
        self.batch = execute_batch(self.server, _BATCH)
        assert self.gate.reached.wait(WAIT_S)
        self.answers: list[Any] = []
        self._asking = threading.Thread(target=self._ask)
        self._asking.start()
        self.server.wait_for_running(_BATCH + 1)

    def _ask(self) -> None:
        # Its client waits for longer than the outage: the answer comes when it is written.
        response = httpx.post(
            f"{self.server.url}/graphql",
            json={"query": _EXECUTE},
            timeout=_OUTAGE_S + WELL_S,
            trust_env=False,
        )
        self.answers.append(response.json()["data"]["executeProgram"])

    def _execute(self) -> dict[str, Any]:
        found: dict[str, Any] = self.server.graphql(_EXECUTE)["executeProgram"]
        assert found.get("state") == "COMPLETED", found
        return found

    def refuse(self, for_s: float) -> dict[str, Any]:
        """Asks for everything that is written, at least once each, for so long. Meanwhile the LM
        answers: what it said has to wait."""
        self.gate.opened.set()
        began = time.monotonic()
        slowest, count = 0.0, 0
        while count == 0 or time.monotonic() - began < for_s:
            for ask in (self._refused_execution, self._refused_batch, self._refused_dataset):
                at = time.monotonic()
                problem = ask()
                slowest = max(slowest, time.monotonic() - at)
                assert problem["code"] == "database_unavailable", problem
                assert problem["retryable"], problem
                assert "Traceback" not in problem["message"], problem
                count += 1
            at = time.monotonic()
            answer = self.server.http.post(
                "/v1/programs/qa/execute", json={"inputs": {"question": "1 + 1?"}}
            )
            slowest = max(slowest, time.monotonic() - at)
            assert answer.status_code == 503, answer.text
            assert answer.json()["error"]["code"] == "database_unavailable", answer.text
            count += 1
        assert slowest < ANSWER_S, slowest
        return {
            "away_s": round(time.monotonic() - began, 1),
            "refused": count,
            "slowest_refusal_s": round(slowest, 3),
        }

    def _refused_execution(self) -> Any:
        return self.server.graphql(_EXECUTE)["executeProgram"]

    def _refused_batch(self) -> Any:
        asked = {"program": "qa", "inputs": [{"question": "1 + 1?"}]}
        return self.server.graphql(_EXECUTE_BATCH, input=asked)["executeBatch"]

    def _refused_dataset(self) -> Any:
        query = DATASET.replace("{ message }", "{ code message retryable }")
        rows = [*ROWS, ROWS[0]]
        return self.server.graphql(query, rows=rows)["createDataset"]

    def recover(self) -> dict[str, Any]:
        """All that was under way ends well, and all that is new works, in the same process."""
        began = time.monotonic()
        self.gate.opened.set()
        self._asking.join(WELL_S)
        assert self.answers, "the execution under way was not answered"
        assert self.answers[0]["outputs"] == {"answer": "2"}, self.answers
        self.done.append(self.answers[0]["id"])
        batch = self.server.wait(BATCH, "COMPLETED", WELL_S, id=self.batch)
        assert (batch["completed"], batch["failed"]) == (_BATCH, 0), batch
        ended_s = time.monotonic() - began
        self.done.append(self._execute()["id"])
        batch = self.server.wait(BATCH, "COMPLETED", WELL_S, id=execute_batch(self.server, _BATCH))
        assert batch["completed"] == _BATCH, batch
        job = self.server.wait(JOB, "COMPLETED", WELL_S, id=optimize(self.server))
        assert job["resultRevision"] == 2, job
        assert self.server.http.get("/healthz").status_code == 200
        for execution_id in self.done:
            query = "query ($id: ID!) { execution(id: $id) { state outputs } }"
            kept = self.server.graphql(query, id=execution_id)["execution"]
            assert kept == {"state": "COMPLETED", "outputs": {"answer": "2"}}, kept
        assert self.server.process.poll() is None
        return {
            "under_way_ended_s": round(ended_s, 1),
            "new_jobs_ended_s": round(time.monotonic() - began - ended_s, 1),
        }


def database_down(folder: Path, postgres: Postgres, for_s: float) -> dict[str, Any]:
    """PostgreSQL is stopped, and started again."""
    with ExitStack() as stack:
        url = postgres.new_database()
        house = _House(stack, folder, "--data-dir", str(folder / "data"), "--database-url", url)
        postgres.stop("immediate")
        try:
            told = house.refuse(for_s)
            assert house.server.http.get("/healthz").status_code == 503
        finally:
            postgres.start_again()
        return {"outage": "database down", **told, **house.recover()}


def disk_full(folder: Path) -> dict[str, Any]:
    """On a small disk of its own, of which a file of somebody else's takes all that is left."""
    with disk_mounted(folder / "disk"), ExitStack() as stack:
        data = folder / "disk" / "data"
        house = _House(stack, folder, "--data-dir", str(data))
        filler = folder / "disk" / "filler"
        _fill(filler)
        told = house.refuse(0.0)
        # What is there can still be read.
        assert house.server.http.get("/healthz").status_code == 200
        filler.unlink()
        found = {"outage": "disk full", **told, **house.recover()}
        assert house.server.close() == 0
        assert all(said.endswith(": ok") for said in check_files(data))
        return found


def writes_refused(folder: Path) -> dict[str, Any]:
    """The kernel refuses every write of the server to a file (RLIMIT_FSIZE), and then no more."""
    with ExitStack() as stack:
        house = _House(stack, folder, "--data-dir", str(folder / "data"))
        pid = house.server.process.pid
        soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
        told = house.refuse(0.0)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
        found = {"outage": "writes refused", **told, **house.recover()}
        assert house.server.close() == 0
        assert all(said.endswith(": ok") for said in check_files(folder / "data"))
        return found


def read_only_start(folder: Path) -> dict[str, Any]:
    """A server that is started on a read-only disk says so and ends; on the same disk, writable
    again, it has all that was there."""
    with disk_mounted(folder / "disk") as remount, ExitStack() as stack:
        house = _House(stack, folder, "--data-dir", str(folder / "disk" / "data"))
        house.recover()
        assert house.server.close() == 0
        remount("ro")
        arguments = ["--data-dir", str(folder / "disk" / "data")]
        arguments += ["--lms", str(folder / "lms.toml"), "--bridges", "1"]
        began = time.monotonic()
        try:
            ServerProcess(*arguments).close()
        except RuntimeError as error:
            said = str(error)
        else:
            raise AssertionError("it started on a read-only disk")
        told_s = time.monotonic() - began
        assert "Traceback" not in said, said
        assert "read-only" in said.lower() or "readonly" in said.lower(), said
        remount("rw")
        again = ServerProcess(*arguments)
        stack.callback(again.close)
        for execution_id in house.done:
            query = "query ($id: ID!) { execution(id: $id) { state outputs } }"
            kept = again.graphql(query, id=execution_id)["execution"]
            assert kept == {"state": "COMPLETED", "outputs": {"answer": "2"}}, kept
        return {
            "outage": "read-only at the start",
            "told_s": round(told_s, 1),
            "said": said.strip().splitlines()[-1].replace(str(folder), ""),
        }


@contextmanager
def disk_mounted(folder: Path) -> Iterator[Callable[[str], None]]:
    """A disk of a few megabytes in memory. Raises PermissionError where this is not root's, or
    a container's that may not mount. What it gives mounts it again, as `ro` or `rw`."""
    folder.mkdir()

    def mount(*arguments: str) -> None:
        done = subprocess.run(
            ["mount", *arguments, str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise PermissionError(f"mount failed: {done.stderr.strip()}")

    mount("-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs")
    try:
        yield lambda how: mount("-o", f"remount,{how}")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _fill(path: Path) -> None:
    block = b"\0" * 65536
    try:
        with path.open("wb", buffering=0) as file:
            while True:
                if file.write(block) < len(block):
                    block = block[: len(block) // 2] or b"\0"
    except OSError:
        return


def main() -> None:
    parser = argparse.ArgumentParser("server_outages", description=__doc__)
    parser.add_argument("--seconds", type=float, default=_OUTAGE_S, help="the database is down for")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    outages: list[dict[str, Any]] = []

    def one(work: Callable[..., dict[str, Any]], *arguments: Any) -> None:
        with tempfile.TemporaryDirectory(prefix="dspex-outage-") as name:
            outages.append(work(Path(name), *arguments))
        print(json.dumps(outages[-1]), flush=True)

    postgres = Postgres()
    try:
        one(database_down, postgres, options.seconds)
    finally:
        postgres.close()
    one(disk_full)
    one(writes_refused)
    one(read_only_start)
    if options.record is not None:
        found = {**environment(), "outages": outages}
        options.record.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
