"""Random SIGKILLs of servers, workers, bridges and PostgreSQL under load, and what must hold then.

    python -m integration.server_faults [--database sqlite|postgresql] [--scale 1.0] [--seconds N]
                                        [--seed N] [--record FILE]

Callers run executions and cancel some, ask for batches and optimizations and cancel some, make
datasets and programs, deploy and roll back, while processes are killed: of a server on SQLite and
its bridges; of two servers, a worker, their bridges and PostgreSQL itself. Who is killed comes
back. Afterwards the servers settle and end, and an offline checker (`server_history`) holds what
the callers were told against the tables. A kill counts where a process that ran died of it, and
those of servers and workers must be what their exit statuses say. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_bridge.testing.scripted_lm import ScriptedLM

from integration import sigkill
from integration.postgres import Postgres, postgres_version
from integration.server_history import count_open, faults_of, read_tables
from integration.server_hosts import Hosts
from integration.server_load import Load
from integration.server_process import ServerProcess, write_lms
from integration.server_work import prepare, solve

if TYPE_CHECKING:
    from dspex_bridge.testing.scripted_lm import Prompt

__all__ = ["PLANS", "check_files", "environment", "run"]

#: The deaths of a full run, by the database.
PLANS = {
    "sqlite": {"server": 80, "bridge": 220},
    "postgresql": {"server": 60, "worker": 40, "bridge": 200, "postgres": 20},
}

# A kill comes when so many more executions were completed, and a moment later: while others are.
_RESULTS = (1, 10)
_MOMENT_S = 0.05
# Where nothing is answered, because all servers are starting, or a request waits for one of them.
_NO_RESULT_S = 20.0
_MAX_AT_ONCE = 3
# After every so many servers, and workers, one is killed while it starts: up to so much later.
_AGAIN_EVERY = 6
_AGAIN_S = 2.0

# For a process that is to be killed to be there.
_FIND_S = 120.0

# For the jobs and executions that are open to end; a dead server's are taken over after 15 s.
SETTLE_S = 240.0
_LOOK_S = 0.1

# Some answers of the LM take long, so that there are executions to be cancelled, and killed.
_SLOW_FROM = 80
_SLOW_S = 0.3


class _Chaos:
    """Kills until there were as many deaths as planned, or the time is over."""

    # Of processes that a place of theirs starts again.
    _places = frozenset({"server", "worker"})

    def __init__(self, seed: int, hosts: Hosts, load: Load, postgres: Postgres | None):
        self.deaths: Counter[str] = Counter()
        # Of those: of servers and workers that did not listen yet, and with calls under way.
        self.while_starting = 0
        self.under_load = 0
        self._noise = random.Random(seed)
        self._hosts = hosts
        self._load = load
        self._postgres = postgres

    def run(self, plan: dict[str, int], bound_s: float) -> None:
        victims = [role for role, count in plan.items() for _ in range(count)]
        self._noise.shuffle(victims)
        until = time.monotonic() + bound_s
        while victims and time.monotonic() < until:
            # In one moment. Bridges before their servers, with which they would end by themselves.
            count = self._noise.randint(1, _MAX_AT_ONCE)
            chosen = Counter(victims[-count:])
            roles = sorted(chosen)
            victims[-count:] = (chosen - Counter(roles)).elements()
            self._wait_for_work(roles)
            for role in roles:
                self._kill(role)
            for role in roles:
                if self.deaths[role] % _AGAIN_EVERY == 0 and role in self._places & set(victims):
                    time.sleep(self._noise.uniform(0.0, _AGAIN_S))
                    self._kill(role, is_ready=False)
                    victims.remove(role)
            if "postgres" in roles and self._postgres is not None:
                self._postgres.start_again()
            print(f"{dict(self.deaths)} dead, {self._load.results} results", flush=True)

    def _wait_for_work(self, roles: list[str]) -> None:
        for role in self._places.intersection(roles):
            self._hosts.wait_for(role, _FIND_S)
        self._load.wait_for_results(self._noise.randint(*_RESULTS), _NO_RESULT_S)
        time.sleep(self._noise.uniform(0.0, _MOMENT_S))

    def _kill(self, role: str, *, is_ready: bool = True) -> None:
        """One of those who are ready, or are not, where there are such."""
        until = time.monotonic() + _FIND_S
        while True:
            calls = self._load.under_way
            if self._kill_one(role, is_ready):
                break
            assert time.monotonic() < until, f"there is no {role} to kill"
            self._load.wait_for_results(1, _LOOK_S)
        self.deaths[role] += 1
        self.under_load += calls > 0

    def _kill_one(self, role: str, is_ready: bool) -> bool:
        if role == "postgres":
            assert self._postgres is not None
            return self._postgres.kill()
        if role == "bridge":
            pids = self._hosts.bridges
            return bool(pids) and sigkill.kill(self._noise.choice(pids))
        hosts = self._hosts.of(role)
        preferred = [host for host in hosts if host.is_ready == is_ready]
        host = self._noise.choice(preferred or hosts)
        was_ready = host.is_ready
        if host.pid is None or not sigkill.kill(host.pid):
            return False
        self.while_starting += not was_ready
        return True


def run(
    *,
    plan: dict[str, int],
    seed: int,
    database: str,
    folder: Path,
    bound_s: float = math.inf,
    settle_s: float = SETTLE_S,
) -> dict[str, Any]:
    """The counts; `faults` is empty where all is well. After `bound_s` nobody is killed any more.
    The history is kept in `folder`."""
    began = time.monotonic()
    with ExitStack() as stack:
        lm = ScriptedLM()
        stack.callback(lm.close)
        lm.always(_solve)
        arguments = ["--data-dir", str(folder / "data"), "--bridges", "1"]
        arguments += ["--lms", str(write_lms(folder, {"main": lm.lm}))]
        postgres = None
        url = f"sqlite:///{folder / 'data' / 'dspex.sqlite'}"
        if database == "postgresql":
            postgres = Postgres()
            stack.callback(postgres.close)
            url = postgres.new_database()
            arguments += ["--database-url", url]
        first = ServerProcess(*arguments)
        prepare(first)
        first.close()

        roles = ["server"] if postgres is None else ["server", "server", "worker"]
        hosts = Hosts(roles, arguments)
        stack.callback(hosts.end)
        load = Load(seed, hosts.wait_for_url)
        stack.callback(load.stop)
        load.start()
        chaos = _Chaos(seed, hosts, load, postgres)
        chaos.run(plan, bound_s)
        load.stop()
        _settle(hosts, url, settle_s)
        hosts.end()
        tables = read_tables(url)
    load.history.write(folder / "history.jsonl")
    faults = faults_of(load.history, tables, _answer)
    checked = [] if postgres is not None else check_files(folder / "data")
    faults += [said for said in checked if not said.endswith(": ok")]
    faults += hosts.faults(chaos.deaths, may_refuse=chaos.deaths["postgres"] > 0)
    executions = tables["executions"]
    interrupted = sum((row["error"] or {}).get("code") == "interrupted" for row in executions)
    return {
        "seed": seed,
        "database": database,
        "planned": plan,
        "deaths": dict(chaos.deaths),
        "deaths_while_starting": chaos.while_starting,
        "deaths_with_calls_under_way": chaos.under_load,
        "starts": hosts.starts,
        "exits": {role: dict(sorted(exits.items())) for role, exits in hosts.exits.items()},
        "tracebacks": hosts.tracebacks,
        "calls": load.calls,
        "acknowledged": _counted([event["kind"] for event in load.history.events]),
        "refusals": load.refusals,
        "rows": {name: len(rows) for name, rows in tables.items()},
        "executions": _states(executions),
        "interrupted_share": round(interrupted / len(executions), 3),
        "failures": _counted([row["error"]["code"] for row in executions if row["error"]]),
        "batches": _states(tables["batches"]),
        "optimizations": _states(tables["optimization_jobs"]),
        "integrity_check": checked,
        "faults": faults,
        "seconds": round(time.monotonic() - began, 1),
    }


def _settle(hosts: Hosts, url: str, bound_s: float) -> None:
    """Until nothing is open; the checker says what still is where that takes too long."""
    until = time.monotonic() + bound_s
    hosts.wait_for_all(_FIND_S)
    while count_open(url) and time.monotonic() < until:
        time.sleep(_LOOK_S)


def _solve(prompt: Prompt) -> dict[str, str]:
    answer = solve(prompt)
    if answer["answer"].isdigit() and int(answer["answer"]) >= 2 * _SLOW_FROM:
        time.sleep(_SLOW_S)
    return answer


def _answer(inputs: dict[str, Any]) -> dict[str, Any]:
    """What the scripted LM says, as `solve` does."""
    number = int(inputs["question"].partition(" ")[0])
    return {"answer": str(2 * number) if number != 7 else "wrong"}


def _states(rows: list[dict[str, Any]]) -> dict[str, int]:
    return _counted([row["state"] for row in rows])


def _counted(words: list[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))


def check_files(folder: Path) -> list[str]:
    found = []
    for file in sorted(folder.glob("*.sqlite")):
        connection = sqlite3.connect(file)
        (said,) = connection.execute("PRAGMA integrity_check").fetchone()
        connection.close()
        found.append(f"{file.name}: {said}")
    return found


def environment() -> dict[str, str]:
    names = ("sqlalchemy", "dbos", "psycopg", "dspy")
    # With "-dirty" where files differ from it.
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    commit = subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    return {
        "commit": commit,
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "postgresql": postgres_version(),
        "machine": f"{platform.system()} {platform.release()}, {os.cpu_count()} cores",
        **{name: version(name) for name in names},
    }


def main() -> None:
    parser = argparse.ArgumentParser("server_faults", description=__doc__)
    parser.add_argument("--database", choices=list(PLANS), help="(default: one after the other)")
    parser.add_argument("--scale", type=float, default=1.0, help="of the deaths of a full run")
    parser.add_argument("--seconds", type=float, default=math.inf, help="no kill after these")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--record", type=Path, help="takes the place of this database's last one")
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    for database in [options.database] if options.database else PLANS:
        plan = {role: max(1, round(n * options.scale)) for role, n in PLANS[database].items()}
        with tempfile.TemporaryDirectory(prefix="dspex-faults-") as name:
            found = run(
                plan=plan,
                seed=options.seed,
                database=database,
                folder=Path(name),
                bound_s=options.seconds,
            )
        print(json.dumps(found), flush=True)
        if found["faults"]:
            raise SystemExit("\n".join(found["faults"][:20]))
        if options.record is not None:
            _record(options.record, {**found, **environment()})


def _record(path: Path, found: dict[str, Any]) -> None:
    records = json.loads(path.read_text()) if path.exists() else []
    others = [item for item in records if item["database"] != found["database"]]
    path.write_text(json.dumps([*others, found], indent=2) + "\n")


if __name__ == "__main__":
    main()
