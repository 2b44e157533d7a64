"""A short run of the faults; `python -m integration.server_faults` makes the long ones. And the
checker finds what it is there to find."""

from __future__ import annotations

import copy
import itertools
import random
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.server_faults import run
from integration.server_history import History, Tables, faults_of
from integration.server_hosts import Hosts, traceback_ends
from integration.server_work import WAIT_S
from integration.sigkill import kill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHORT = {
    "sqlite": {"server": 2, "bridge": 2},
    "postgresql": {"server": 1, "worker": 1, "bridge": 1, "postgres": 1},
}

# A dead server's work is taken over after 15 seconds; then it has to be done.
SETTLE_S = 90.0


@pytest.mark.timeout(400)
@pytest.mark.parametrize("database", list(SHORT))
def test_nothing_that_was_acknowledged_is_lost_to_sigkill(database: str, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    plan = SHORT[database]
    found = run(plan=plan, seed=seed, database=database, folder=tmp_path, settle_s=SETTLE_S)
    assert found["faults"] == [], found
    assert found["deaths"] == plan
    assert found["acknowledged"]["ended"] > 0


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_process_that_is_shot_twice_has_died_once(sleeper: subprocess.Popen[bytes]) -> None:
    # The second shot meets a zombie, as nobody has waited for it yet; the third meets nobody.
    assert [kill(sleeper.pid), kill(sleeper.pid)] == [True, False]
    assert sleeper.wait() == -signal.SIGKILL
    assert not kill(sleeper.pid)


def test_a_process_that_was_shot_is_dead_when_it_counts() -> None:
    # Some die at once; of so many, not all.
    for _ in range(50):
        process = subprocess.Popen(["sleep", "600"])
        try:
            assert kill(process.pid)
            state = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            assert state == "Z"
        finally:
            process.kill()
            process.wait()


@pytest.mark.timeout(200)
def test_deaths_of_servers_are_those_that_their_exit_statuses_tell(tmp_path: Path) -> None:
    hosts = Hosts(["server"], ["--data-dir", str(tmp_path / "data"), "--bridges", "1"])
    try:
        (host,) = hosts.wait_for("server", WAIT_S)
        first = host.pid
        assert first is not None
        assert kill(first)
        assert not kill(first)
        assert hosts.wait_for_starts(2, WAIT_S)
        assert hosts.wait_for_all(WAIT_S)
    finally:
        hosts.end()
    assert (hosts.starts, hosts.exits) == ({"server": 2}, {"server": {-signal.SIGKILL: 1, 0: 1}})
    assert hosts.faults({"server": 1}, may_refuse=False) == []
    assert hosts.faults({"server": 2}, may_refuse=False) != []


TRACEBACK = """\
dspex: listening
Traceback (most recent call last):
  File "a.py", line 1, in f
    g()
ValueError: first

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 2, in f
    h()
OSError: port 4711 of 0193ab-12
fine
  + Exception Group Traceback (most recent call last):
  |   File "a.py", line 2, in f
  | ExceptionGroup: two (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "a.py", line 2, in f
    | KeyError: 'b'
    +------------------------------------
ERROR: Traceback (most recent call last):
  File "a.py"
"""


def test_a_traceback_is_told_by_its_last_line() -> None:
    assert traceback_ends(TRACEBACK.splitlines(keepends=True)) == [
        "OSError: port # of #",
        "ExceptionGroup: two (# sub-exception)",
        "KeyError: 'b'",
        "(cut off by a kill)",
    ]


def _move(resource_id: str, *states: str | None) -> list[dict[str, Any]]:
    return [
        {"resource_id": resource_id, "source": source, "target": target}
        for source, target in itertools.pairwise(states)
    ]


def _right(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"answer": inputs["question"]}


def _execution(**values: Any) -> dict[str, Any]:
    return {
        "id": "e",
        "program_id": "p",
        "state": "completed",
        "inputs": {"question": "a"},
        "outputs": {"answer": "a"},
        "error": None,
        "batch_id": None,
        "batch_index": None,
        **values,
    }


HISTORY = History(
    [
        {"kind": "ended", "id": "e", "state": "completed", "outputs": {"answer": "a"}},
        {"kind": "job", "id": "b", "table": "batches", "key": "1"},
        {"kind": "job", "id": "o", "table": "optimization_jobs", "key": "2"},
        {"kind": "cancelled", "id": "c", "table": "batches"},
        {"kind": "made", "id": "d", "table": "datasets", "has": {"version": 1}},
        {"kind": "deployed", "id": "p", "reason": "revision 1"},
        {"kind": "deployed", "id": "p", "reason": "revision 2"},
    ]
)
TABLES: Tables = {
    "programs": [{"id": "p", "executions": 2, "failures": 0, "deployed_revision": 2}],
    "executions": [
        _execution(),
        _execution(id="i", batch_id="b", batch_index=0),
        _execution(id="j", batch_id="c", batch_index=0, state="cancelled", outputs=None),
    ],
    "batches": [
        {"id": "b", "state": "completed", "total": 1, "completed": 1, "failed": 0, "error": None},
        {"id": "c", "state": "cancelled", "total": 1, "completed": 0, "failed": 0, "error": None},
    ],
    "optimization_jobs": [{"id": "o", "state": "completed", "result_revision": 2, "error": None}],
    "revisions": [{"id": "r", "job_id": "o", "number": 2}],
    "datasets": [{"id": "d", "version": 1}],
    "transitions": [
        *(
            {
                "resource_id": "p",
                "source": "deployed",
                "target": "deployed",
                "reason": reason,
                "at": at,
            }
            for at, reason in enumerate(
                ("revision 1", "rolled back to revision 1", "revision 2"),
            )
        ),
        *_move("e", None, "pending", "running", "completed"),
        *_move("i", None, "pending", "running", "completed"),
        *_move("j", None, "pending", "cancelled"),
        *_move("b", None, "queued", "running", "completed"),
        *_move("c", None, "queued", "cancelled"),
        *_move("o", None, "queued", "running", "queued", "running", "completed"),
    ],
}


def test_the_checker_finds_nothing_where_all_is_well() -> None:
    assert faults_of(HISTORY, TABLES, _right) == []


def _set(table: str, index: int, **values: Any) -> Callable[[History, Tables], None]:
    return lambda _history, tables: tables[table][index].update(values)


def _drop(table: str, index: int) -> Callable[[History, Tables], object]:
    return lambda _history, tables: tables[table].pop(index)


def _moved(*moves: str | None) -> Callable[[History, Tables], None]:
    return lambda _history, tables: tables["transitions"].extend(_move("e", *moves))


def _event(**event: Any) -> Callable[[History, Tables], None]:
    return lambda history, _tables: history.events.append(event)


BREAKS: list[tuple[str, Callable[[History, Tables], object], str]] = [
    ("an answered execution is gone", _drop("executions", 0), "is not there"),
    ("an answered execution is another", _set("executions", 0, state="failed"), "was answered"),
    ("an acknowledged batch is gone", _drop("batches", 0), "is not there"),
    ("an acknowledged dataset is gone", _drop("datasets", 0), "was acknowledged with"),
    ("a dataset is another", _set("datasets", 0, version=2), "was acknowledged with"),
    ("a cancelled batch went on", _set("batches", 1, state="completed"), "was cancelled and is"),
    ("an execution is open", _set("executions", 1, state="running"), "has not ended"),
    ("an optimization is open", _set("optimization_jobs", 0, state="queued"), "has not ended"),
    ("a wrong answer", _set("executions", 1, outputs={"answer": "b"}), "gave"),
    (
        "a failure without an excuse",
        _set("executions", 1, state="failed", error={"code": "internal_error"}),
        "nothing killed excuses it",
    ),
    ("an end was left", _moved("completed", "running", "completed"), "moves that may not be"),
    ("two ends", _moved("running", "completed"), "ended 2 times"),
    ("a move is missing", _drop("transitions", 4), "no way to its state"),
    ("an item was counted twice", _set("batches", 0, completed=2), "counted (2, 0)"),
    ("an item is missing", _set("batches", 0, total=2), "has not each of its 2 items"),
    ("a batch failed", _set("batches", 0, state="failed"), "failed"),
    ("an optimization failed", _set("optimization_jobs", 0, state="failed"), "failed"),
    ("another revision", _set("optimization_jobs", 0, result_revision=3), "made the revisions"),
    ("a program counts one too many", _set("programs", 0, executions=4), "counted 4"),
    ("a program counts a failure", _set("programs", 0, failures=1), "counted 1 failures"),
    ("a deployment is gone", _drop("transitions", 0), "(revision 1), which is not recorded"),
    ("another one is in force", _set("programs", 0, deployed_revision=1), "not what was last"),
    ("two jobs of a key", _event(kind="job", id="c", table="batches", key="1"), "several jobs"),
    ("an error without a code", _event(kind="unclear", error="?"), "without a code"),
]


@pytest.mark.parametrize(("broken", "text"), [item[1:] for item in BREAKS], ids=lambda item: None)
def test_the_checker_finds_what_is_broken(
    broken: Callable[[History, Tables], object], text: str
) -> None:
    history, tables = copy.deepcopy((HISTORY, TABLES))
    broken(history, tables)
    assert any(text in fault for fault in faults_of(history, tables, _right))
