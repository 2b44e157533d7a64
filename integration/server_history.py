"""What clients of a server were told, held against what its database holds in the end.

The checker asks no server: it reads the tables, and knows by itself which state may follow which,
so that a server which is wrong about its own rules is found too. A fault is a sentence.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from sqlalchemy import MetaData, create_engine, make_url, select, text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from sqlalchemy import Engine

__all__ = ["History", "Tables", "count_open", "faults_of", "read_tables"]

Row: TypeAlias = "dict[str, Any]"
Tables: TypeAlias = "dict[str, list[Row]]"

_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}
_TABLES = ("programs", "revisions", "executions", "batches", "optimization_jobs", "datasets")

_JOB_MOVES = {
    (None, "queued"),
    ("queued", "running"),
    ("running", "queued"),
    *((source, end) for source in ("queued", "running") for end in ("failed", "cancelled")),
    ("running", "completed"),
}
_MOVES: dict[str, set[tuple[str | None, str]]] = {
    "executions": {
        (None, "pending"),
        ("pending", "running"),
        *((source, end) for source in ("pending", "running") for end in ("failed", "cancelled")),
        ("running", "completed"),
    },
    "batches": _JOB_MOVES,
    "optimization_jobs": _JOB_MOVES,
}
_ENDS = ("completed", "failed", "cancelled")

# Why a run may fail where processes are killed: its server ended, or three bridges did under it.
_EXCUSES = frozenset({"interrupted", "connection_lost", "unavailable"})


@dataclass
class History:
    """What was acknowledged. Every event is a map of JSON, so that a history can be kept."""

    events: list[Row] = field(default_factory=list)

    def write(self, path: Path) -> None:
        path.write_text("".join(f"{json.dumps(event)}\n" for event in self.events))

    def of(self, kind: str) -> Iterator[Row]:
        return (event for event in self.events if event["kind"] == kind)


def read_tables(url: str) -> Tables:
    """All rows, with nobody else in between: the servers have ended."""
    engine = _engine(url)
    try:
        metadata = MetaData()
        metadata.reflect(engine, only=[*_TABLES, "transitions"])
        with engine.connect() as connection:
            return {
                name: [dict(row) for row in connection.execute(select(table)).mappings()]
                for name, table in metadata.tables.items()
            }
    finally:
        engine.dispose()


def count_open(url: str) -> int:
    """How many executions and jobs have not ended yet, also while servers run."""
    engine = _engine(url)
    try:
        with engine.connect() as connection:
            return sum(
                connection.execute(
                    text(f"SELECT count(*) FROM {name} WHERE state NOT IN {_ENDS}")  # noqa: S608
                ).scalar_one()
                for name in _MOVES
            )
    finally:
        engine.dispose()


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    return create_engine(parsed.set(drivername=_DRIVERS[parsed.get_backend_name()]))


def faults_of(history: History, tables: Tables, answer: Callable[[Row], Row]) -> list[str]:
    """Empty where all is well. `answer` makes the right outputs of an execution's inputs."""
    by_id = {name: {row["id"]: row for row in tables[name]} for name in _TABLES}
    return [
        *_lost(history, by_id),
        *_ends(tables, answer),
        *_transitions(tables),
        *_deployments(history, tables),
        *_batches(tables),
        *_optimizations(tables),
        *_counts(tables),
    ]


def _lost(history: History, by_id: dict[str, dict[str, Row]]) -> Iterator[str]:
    """Acknowledged, and not there, or there as something else."""
    for event in history.of("ended"):
        kept = by_id["executions"].get(event["id"])
        told = (event["state"], event["outputs"])
        if kept is None:
            yield f"execution {event['id']} was answered {told} and is not there"
        elif (kept["state"], kept["outputs"]) != told:
            yield f"execution {event['id']} was answered {told} and is {kept['state']}"
    keys: dict[str, set[str]] = defaultdict(set)
    for event in history.of("job"):
        keys[event["key"]].add(event["id"])
        if event["id"] not in by_id[event["table"]]:
            yield f"{event['table']} {event['id']} was acknowledged and is not there"
    for key, ids in keys.items():
        if len(ids) > 1:
            yield f"one idempotency key, {key}, made several jobs: {sorted(ids)}"
    for event in history.of("unclear"):
        yield f"a call was answered by an error without a code: {event['error']}"
    for event in history.of("cancelled"):
        kept = by_id[event["table"]].get(event["id"])
        if kept is None or kept["state"] != "cancelled":
            yield f"{event['table']} {event['id']} was cancelled and is {kept and kept['state']}"
    for event in history.of("made"):
        kept = by_id[event["table"]].get(event["id"])
        wrong = kept is None or any(kept[key] != value for key, value in event["has"].items())
        if wrong:
            yield f"{event['table']} {event['id']} was acknowledged with {event['has']}: {kept}"


def _ends(tables: Tables, answer: Callable[[Row], Row]) -> Iterator[str]:
    for table in _MOVES:
        for row in tables[table]:
            if row["state"] not in _ENDS:
                yield f"{table} {row['id']} has not ended: it is {row['state']}"
    for row in tables["executions"]:
        code = (row["error"] or {}).get("code")
        if row["state"] == "completed" and row["outputs"] != answer(row["inputs"]):
            yield f"execution {row['id']}: {row['inputs']} gave {row['outputs']}"
        elif row["state"] == "failed" and code not in _EXCUSES:
            yield f"execution {row['id']} failed, and nothing killed excuses it: {row['error']}"


def _transitions(tables: Tables) -> Iterator[str]:
    """A row's recorded moves are legal, make one way from nothing to its state, and end once."""
    moves: dict[str, list[tuple[str | None, str]]] = defaultdict(list)
    for item in tables["transitions"]:
        moves[item["resource_id"]].append((item["source"], item["target"]))
    for table, legal in _MOVES.items():
        for row in tables[table]:
            made = moves[row["id"]]
            where = f"{table} {row['id']} ({row['state']})"
            if illegal := set(made) - legal:
                yield f"{where} made moves that may not be: {sorted(map(str, illegal))}"
            entered: Counter[str | None] = Counter(target for _, target in made)
            left = Counter(source for source, _ in made)
            balance = {state: entered[state] - left[state] for state in {*entered, *left}}
            expected = dict.fromkeys(balance, 0) | {None: -1, row["state"]: 1}
            if balance != expected:
                yield f"{where}: its moves make no way to its state: {made}"
            if (ends := sum(entered[state] for state in _ENDS)) > 1:
                yield f"{where} ended {ends} times: {made}"


def _deployments(history: History, tables: Tables) -> Iterator[str]:
    """Each that was acknowledged is recorded, in their order; the last one recorded is in force."""
    told: dict[str, list[str]] = defaultdict(list)
    for event in history.of("deployed"):
        told[event["id"]].append(event["reason"])
    for program in tables["programs"]:
        moves = [
            item
            for item in tables["transitions"]
            if (item["resource_id"], item["target"]) == (program["id"], "deployed")
        ]
        reasons = [item["reason"] for item in sorted(moves, key=lambda item: item["at"])]
        where = f"program {program['id']}"
        # One that was made, and whose answer was lost, may stand between them.
        left = iter(reasons)
        if lost := next((reason for reason in told[program["id"]] if reason not in left), None):
            yield f"{where} was deployed ({lost}), which is not recorded there: {reasons}"
        expected = int(reasons[-1].rpartition(" ")[2]) if reasons else None
        if expected is not None and program["deployed_revision"] != expected:
            yield f"{where} runs {program['deployed_revision']}, not what was last: {reasons[-1]}"


def _batches(tables: Tables) -> Iterator[str]:
    items: dict[str, list[Row]] = defaultdict(list)
    for row in tables["executions"]:
        if row["batch_id"] is not None:
            items[row["batch_id"]].append(row)
    for batch in tables["batches"]:
        mine = items[batch["id"]]
        where = f"batch {batch['id']} ({batch['state']})"
        if batch["state"] == "failed":
            yield f"{where} failed: {batch['error']}"
        if sorted(row["batch_index"] for row in mine) != list(range(batch["total"])):
            yield f"{where} has not each of its {batch['total']} items once"
        states = Counter(row["state"] for row in mine)
        counted = (batch["completed"], batch["failed"])
        if counted != (states["completed"], states["failed"]):
            yield f"{where} counted {counted} completed and failed, and has {dict(states)}"
        if batch["state"] == "completed" and states["cancelled"]:
            yield f"{where} has {states['cancelled']} cancelled items"


def _optimizations(tables: Tables) -> Iterator[str]:
    made: dict[str, list[int]] = defaultdict(list)
    for revision in tables["revisions"]:
        if revision["job_id"] is not None:
            made[revision["job_id"]].append(revision["number"])
    for job in tables["optimization_jobs"]:
        where = f"optimization job {job['id']} ({job['state']})"
        if job["state"] == "failed":
            yield f"{where} failed: {job['error']}"
        expected = [job["result_revision"]] if job["state"] == "completed" else []
        if made.get(job["id"], []) != expected:
            yield f"{where} made the revisions {made.get(job['id'])}, and says {expected}"


def _counts(tables: Tables) -> Iterator[str]:
    """A program's counters move in the transactions in which its executions end."""
    states: dict[str, Counter[str]] = defaultdict(Counter)
    for row in tables["executions"]:
        states[row["program_id"]][row["state"]] += 1
    for program in tables["programs"]:
        found = states[program["id"]]
        least = found["completed"] + found["failed"]
        # Cancelled by a caller that went away, it was run, and counts; by hand, it may not have.
        if not least <= program["executions"] <= least + found["cancelled"]:
            yield f"program {program['id']} counted {program['executions']} of {dict(found)}"
        if program["failures"] != found["failed"]:
            yield f"program {program['id']} counted {program['failures']} failures: {dict(found)}"
