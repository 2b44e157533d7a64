"""Random SIGKILLs of servers, workers, bridges and PostgreSQL under load, and what must hold then.

    python -m integration.server_faults [--postgres] [--scale 1.0] [--seed N] [--record FILE]

Callers run executions, ask for batches and optimizations, cancel some, and make datasets and
programs, while processes are killed, up to six in a round: of a server on SQLite and its bridges;
of two servers, a worker, their bridges and PostgreSQL itself. Who is killed comes back, and may be
killed again while it still starts. Afterwards the servers settle and end, and an offline checker
(`server_history`) holds what the callers were told against the tables. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dspex_bridge.testing.scripted_lm import ScriptedLM

from integration.postgres import Postgres, postgres_version
from integration.server_history import count_open, faults_of, read_tables
from integration.server_load import Load
from integration.server_process import ServerProcess, write_lms
from integration.server_work import prepare, solve

__all__ = ["PLANS", "check_files", "environment", "run"]

#: The kills of a full run, by the database.
PLANS = {
    "sqlite": {"server": 120, "bridge": 180},
    "postgresql": {"server": 100, "worker": 60, "bridge": 140, "postgres": 20},
}

# A round begins when so many more executions were completed, and a moment later: while others are.
_RESULTS = (1, 60)
_MOMENT_S = 0.05
# Where nothing is answered, because all servers are starting, or a request waits for one of them.
_NO_RESULT_S = 20.0
# One after the other, without waiting: a server that is killed twice was still starting.
_MAX_AT_ONCE = 6

# For a process that is to be killed to be there.
_FIND_S = 60.0

# For the jobs and executions that are open to end; a dead server's are taken over after 15 s.
SETTLE_S = 240.0
_LOOK_S = 0.5


class _Host:
    """A place for one server or worker, which comes back whenever it ends."""

    def __init__(self, role: str, arguments: list[str]) -> None:
        self.role = role
        self.starts = 0
        self.refused_starts = 0
        self.tracebacks: list[str] = []
        self.process: ServerProcess | None = None
        self.is_ready = threading.Event()
        self._arguments = arguments
        self._is_ended = threading.Event()
        self._keeping = threading.Thread(target=self._keep, daemon=True)
        self._keeping.start()

    def _keep(self) -> None:
        command = "serve" if self.role == "server" else "worker"
        while not self._is_ended.is_set():
            process = ServerProcess(*self._arguments, command=command, awaited=False)
            self.process = process
            self.starts += 1
            try:
                process.wait_until_ready()
                self.is_ready.set()
                process.process.wait()
            except RuntimeError:
                # Killed while it started; or it refused to start, because PostgreSQL was away.
                self.refused_starts += process.process.returncode == 1
            finally:
                self.is_ready.clear()
                process.close()
                text = "".join(process.output)
                if "Traceback" in text:
                    self.tracebacks.append(text)

    @property
    def pid(self) -> int | None:
        process = self.process
        if process is None or process.process.poll() is not None:
            return None
        return process.process.pid

    def end(self) -> None:
        """Asks it to end, and waits."""
        self._is_ended.set()
        if self.process is not None and self.process.process.poll() is None:
            self.process.process.terminate()
        self._keeping.join(SETTLE_S)


class _Chaos:
    def __init__(self, seed: int, hosts: list[_Host], load: Load, postgres: Postgres | None):
        self.killed: dict[str, int] = {}
        self.rounds = 0
        self._noise = random.Random(seed)
        self._hosts = hosts
        self._load = load
        self._postgres = postgres

    def run(self, plan: dict[str, int]) -> None:
        victims = [name for name, count in plan.items() for _ in range(count)]
        self._noise.shuffle(victims)
        while victims:
            self._load.wait_for_results(self._noise.randint(*_RESULTS), _NO_RESULT_S)
            time.sleep(self._noise.uniform(0.0, _MOMENT_S))
            count = self._noise.randint(1, _MAX_AT_ONCE)
            # One of each at once, in the middle of answers; then those that have to come back
            # first. Bridges before their servers, with which they would end by themselves.
            chosen = Counter(victims[-count:])
            while chosen:
                for victim in sorted(chosen):
                    self._kill(victim)
                chosen -= Counter(set(chosen))
            del victims[-count:]
            self.rounds += 1
            if self.rounds % 10 == 0:
                print(f"{self.killed} killed, {self._load.results} results", flush=True)

    def _kill(self, victim: str) -> None:
        if victim == "postgres":
            assert self._postgres is not None
            self._postgres.kill()
            self._postgres.start_again()
        else:
            until = time.monotonic() + _FIND_S
            while not self._kill_one(victim):
                assert time.monotonic() < until, f"there is no {victim} to kill"
                self._load.wait_for_results(1, 0.2)
        self.killed[victim] = self.killed.get(victim, 0) + 1

    def _kill_one(self, victim: str) -> bool:
        if victim == "bridge":
            parents = [host.pid for host in self._hosts]
            pids = [child for pid in parents if pid is not None for child in _children(pid)]
        else:
            pids = [host.pid for host in self._hosts if host.role == victim and host.pid]
        if not pids:
            return False
        with suppress(ProcessLookupError):
            os.kill(self._noise.choice(pids), signal.SIGKILL)
            return True
        return False


def _children(pid: int) -> list[int]:
    """Of all of its threads: each starts processes of its own."""
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    return found


def run(
    *, plan: dict[str, int], seed: int, database: str, folder: Path, settle_s: float = SETTLE_S
) -> dict[str, Any]:
    """The counts; `faults` is empty where all is well. The history is kept in `folder`."""
    began = time.monotonic()
    with ExitStack() as stack:
        lm = ScriptedLM()
        stack.callback(lm.close)
        lm.always(solve)
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
        hosts = [_Host(role, arguments) for role in roles]
        for host in hosts:
            stack.callback(host.end)

        def find_url(noise: random.Random) -> str | None:
            ready = [host.process for host in hosts if host.is_ready.is_set()]
            urls = [process.url for process in ready if process is not None and process.url]
            return noise.choice(urls) if urls else None

        load = Load(seed, find_url)
        stack.callback(load.stop)
        load.start()
        chaos = _Chaos(seed, hosts, load, postgres)
        chaos.run(plan)
        load.stop()
        _settle(hosts, url, settle_s)
        for host in hosts:
            host.end()
        tables = read_tables(url)
    tracebacks = [text for host in hosts for text in host.tracebacks]
    if tracebacks:
        (folder / "traceback.log").write_text(tracebacks[-1])
    load.history.write(folder / "history.jsonl")
    faults = faults_of(load.history, tables, _answer)
    checked = [] if postgres is not None else check_files(folder / "data")
    faults += [said for said in checked if not said.endswith(": ok")]
    return {
        "seed": seed,
        "database": database,
        "kills": chaos.killed,
        "rounds": chaos.rounds,
        "starts": sum(host.starts for host in hosts),
        "refused_starts": sum(host.refused_starts for host in hosts),
        "tracebacks": len(tracebacks),
        "calls": load.calls,
        "acknowledged": len(load.history.events),
        "refusals": load.refusals,
        "rows": {name: len(rows) for name, rows in tables.items()},
        "executions": _states(tables["executions"]),
        "failures": _counted(
            [row["error"]["code"] for row in tables["executions"] if row["error"]]
        ),
        "batches": _states(tables["batches"]),
        "optimizations": _states(tables["optimization_jobs"]),
        "integrity_check": checked,
        "faults": faults,
        "seconds": round(time.monotonic() - began, 1),
    }


def _settle(hosts: list[_Host], url: str, bound_s: float) -> None:
    """Until nothing is open; the checker says what still is where that takes too long."""
    until = time.monotonic() + bound_s
    for host in hosts:
        host.is_ready.wait(_FIND_S)
    while count_open(url) and time.monotonic() < until:
        time.sleep(_LOOK_S)


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
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
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
    parser.add_argument("--scale", type=float, default=1.0, help="of the kills of a full run")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    database = "postgresql" if options.postgres else "sqlite"
    plan = {name: max(1, round(n * options.scale)) for name, n in PLANS[database].items()}
    with tempfile.TemporaryDirectory(prefix="dspex-faults-") as name:
        found = run(plan=plan, seed=options.seed, database=database, folder=Path(name))
        for path in sorted(Path(name).glob("*.log")):
            print(path.read_text(), flush=True)
    print(json.dumps(found))
    if found["faults"]:
        raise SystemExit("\n".join(found["faults"][:20]))
    if options.record is not None:
        records = json.loads(options.record.read_text()) if options.record.exists() else []
        records.append({**found, **environment()})
        options.record.write_text(json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
