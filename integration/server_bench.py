"""What the server adds to a bridge, and how many executions it does in a second.

    python -m integration.server_bench [--database sqlite|postgresql] [--rounds N] [--seconds N]

The LM answers at once (`demo/knn`, in the bridge's own process). A round is a number of calls of
`execute` to a bare bridge and as many of `executeProgram` to the server, one after another, in
turns; `added_ms` is the median over the rounds of the difference of their medians. `per_second` is
what several clients at once get. The processor's time of a call is told by who spent it: that
depends less on what else the machine does. The clients are bare sockets: what they cost is little,
and told. A JSON line a database.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from dspex_protocol.client import Client

from integration.postgres import Postgres
from integration.server_process import ServerProcess

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["ServerBench", "measure"]

_WARM_UP = 50
_CALLS = 50
_CLIENTS = 16
_INPUTS = {"question": "Where is Paris?"}
_CREATE = """
mutation { createProgram(input: {name: "qa", signature: "question -> answer"}) { __typename } }
"""
_EXECUTE = """
mutation ($input: ExecuteInput!) { executeProgram(input: $input) {
  __typename ... on Execution { id state outputs } } }
"""
_TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class _Socket:
    """One connection that is kept open, and asks the same thing again and again."""

    def __init__(self, url: str) -> None:
        host, _, port = url.removeprefix("http://").partition(":")
        self._address = (host, int(port))
        variables = {"input": {"program": "qa", "inputs": _INPUTS}}
        body = json.dumps({"query": _EXECUTE, "variables": variables}).encode()
        head = (
            f"POST /graphql HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        self._request = head.encode() + body

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection(*self._address)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def execute(self) -> None:
        self._writer.write(self._request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        answer = json.loads(await self._reader.readexactly(length))
        assert answer["data"]["executeProgram"]["state"] == "COMPLETED", answer


class ServerBench:
    """A server with one program and one bridge, and a bridge beside it. `close` ends them."""

    def __init__(self, database: str) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="dspex-bench-"))
            arguments = ["--data-dir", folder, "--lm", "demo/knn", "--bridges", "1"]
            self._postgres: Postgres | None = None
            if database == "postgresql":
                self._postgres = Postgres()
                stack.callback(self._postgres.close)
                arguments += ["--database-url", self._postgres.new_database()]
            self._server = ServerProcess(*arguments)
            stack.callback(self._server.close)
            self._server.graphql(_CREATE)
            self._runner = stack.enter_context(asyncio.Runner())
            self._open = self._runner.run(self._connect())
            stack.callback(lambda: self._runner.run(self._open.aclose()))
            self.bare(_WARM_UP)
            self.served(_WARM_UP)
            self._stack = stack.pop_all()

    async def _connect(self) -> AsyncExitStack:
        async with AsyncExitStack() as stack:
            self._bridge = await stack.enter_async_context(await Client.spawn())
            await self._bridge.configure(lms={"main": {"model": "demo/knn"}}, default_lm="main")
            await self._bridge.create("question -> answer", program="qa")
            return stack.pop_all()

    def close(self) -> None:
        self._stack.close()

    def bare(self, calls: int = _CALLS) -> float:
        """The median of `execute` to the bridge, in ms."""

        async def run() -> list[float]:
            times = []
            for _ in range(calls):
                began = time.perf_counter()
                await self._bridge.execute("qa", _INPUTS)
                times.append(time.perf_counter() - began)
            return times

        return statistics.median(self._runner.run(run())) * 1000

    def served(self, calls: int = _CALLS) -> float:
        """The median of `executeProgram` to the server, in ms."""

        async def run() -> list[float]:
            times = []
            async with _Socket(self._server.url) as socket:
                for _ in range(calls):
                    began = time.perf_counter()
                    await socket.execute()
                    times.append(time.perf_counter() - began)
            return times

        return statistics.median(self._runner.run(run())) * 1000

    def at_once(self, seconds: float) -> dict[str, Any]:
        """Executions a second of several clients, and the processor's time of each in ms."""

        async def run() -> int:
            until = time.perf_counter() + seconds

            async def call() -> int:
                done = 0
                async with _Socket(self._server.url) as socket:
                    while time.perf_counter() < until:
                        await socket.execute()
                        done += 1
                return done

            return sum(await asyncio.gather(*(call() for _ in range(_CLIENTS))))

        before, began = self._spent(), time.perf_counter()
        done = self._runner.run(run())
        took, after = time.perf_counter() - began, self._spent()
        spent = {who: round((after[who] - before[who]) * 1000 / done, 2) for who in before}
        return {"per_second": round(done / took, 1), "cpu_ms": spent}

    def _spent(self) -> dict[str, float]:
        """Seconds of the processor, by who spent them."""
        server = self._server.process.pid
        found = {
            "server": _seconds(server),
            "bridge": sum(map(_seconds, _descendants(server))),
            "client": time.process_time(),
        }
        if self._postgres is not None:
            postmaster = (self._postgres.folder / "data" / "postmaster.pid").read_text()
            pid = int(postmaster.partition("\n")[0])
            found["postgresql"] = sum(map(_seconds, (pid, *_descendants(pid))))
        return found


def _stat(pid: int) -> list[str]:
    """What follows a process's name in /proc: its state first. Empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except FileNotFoundError:
        return []


def _seconds(pid: int) -> float:
    """Its own, and those of its children that have ended."""
    return sum(map(int, _stat(pid)[11:15])) / _TICKS_A_SECOND


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found = list(children.get(pid, ()))
    for each in found:
        found += children.get(each, ())
    return found


def measure(database: str, rounds: int, seconds: float) -> dict[str, Any]:
    """All of it. `database` is `sqlite` or `postgresql`."""
    load = os.getloadavg()[0]
    bench = ServerBench(database)
    try:
        pairs = [(bench.bare(), bench.served()) for _ in range(rounds)]
        rate = bench.at_once(seconds)
    finally:
        bench.close()
    return {
        "database": database,
        "bare_ms": round(statistics.median(bare for bare, _ in pairs), 2),
        "served_ms": round(statistics.median(served for _, served in pairs), 2),
        "added_ms": round(statistics.median(served - bare for bare, served in pairs), 2),
        "ratio": round(statistics.median(served / bare for bare, served in pairs), 2),
        **rate,
        "rounds": rounds,
        "cores": os.cpu_count(),
        "load_average_before": round(load, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser("server_bench", description=__doc__)
    parser.add_argument("--database", choices=("sqlite", "postgresql"), help="default: both")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    for database in [options.database] if options.database else ["sqlite", "postgresql"]:
        print(json.dumps(measure(database, options.rounds, options.seconds)), flush=True)


if __name__ == "__main__":
    main()
