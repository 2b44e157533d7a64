"""What the server adds to a bridge, and how many executions it does in a second.

    python -m integration.server_bench [--postgres] [--seconds N]

The LM answers at once (`demo/knn`, in the bridge's own process). `added_ms` is the median of
`executeProgram` less that of the bare bridge's `execute`, both one after another from a client of
their own; `per_second` is what several clients at once get. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from typing import Any

import httpx
from dspex_protocol.client import Client

from integration.postgres import Postgres
from integration.server_process import ServerProcess

_WARM_UP = 50
_CALLS = 500
_CLIENTS = 16
_INPUTS = {"question": "Where is Paris?"}
_CREATE = """
mutation { createProgram(input: {name: "qa", signature: "question -> answer"}) { __typename } }
"""
_EXECUTE = """
mutation ($input: ExecuteInput!) { executeProgram(input: $input) {
  __typename ... on Execution { id state outputs } } }
"""


async def bare() -> float:
    """The median of a call to a bridge, in ms."""
    async with await Client.spawn() as client:
        await client.configure(lms={"main": {"model": "demo/knn"}}, default_lm="main")
        await client.create("question -> answer", program="qa")
        times = []
        for _ in range(_WARM_UP + _CALLS):
            began = time.perf_counter()
            await client.execute("qa", _INPUTS)
            times.append(time.perf_counter() - began)
    return statistics.median(times[_WARM_UP:]) * 1000


def one_after_another(server: ServerProcess) -> float:
    body = {"query": _EXECUTE, "variables": {"input": {"program": "qa", "inputs": _INPUTS}}}
    times = []
    for _ in range(_WARM_UP + _CALLS):
        began = time.perf_counter()
        answer = server.http.post("/graphql", json=body).json()
        times.append(time.perf_counter() - began)
        assert answer["data"]["executeProgram"]["state"] == "COMPLETED", answer
    return statistics.median(times[_WARM_UP:]) * 1000


async def at_once(server: ServerProcess, seconds: float) -> float:
    body = {"query": _EXECUTE, "variables": {"input": {"program": "qa", "inputs": _INPUTS}}}
    done = 0
    until = time.perf_counter() + seconds

    async def call(http: httpx.AsyncClient) -> None:
        nonlocal done
        while time.perf_counter() < until:
            answer = (await http.post("/graphql", json=body)).json()
            assert answer["data"]["executeProgram"]["state"] == "COMPLETED", answer
            done += 1

    async with httpx.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as http:
        await asyncio.gather(*(call(http) for _ in range(_CLIENTS)))
    return done / seconds


def main() -> None:
    parser = argparse.ArgumentParser("server_bench", description=__doc__)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    postgres = Postgres() if options.postgres else None
    with tempfile.TemporaryDirectory(prefix="dspex-bench-") as folder:
        arguments = ["--data-dir", folder, "--lm", "demo/knn", "--bridges", "1"]
        if postgres is not None:
            arguments += ["--database-url", postgres.new_database()]
        server = ServerProcess(*arguments)
        server.graphql(_CREATE)
        alone = asyncio.run(bare())
        through = one_after_another(server)
        rate = asyncio.run(at_once(server, options.seconds))
        server.close()
    if postgres is not None:
        postgres.close()
    found: dict[str, Any] = {
        "database": "postgresql" if options.postgres else "sqlite",
        "bare_ms": round(alone, 2),
        "server_ms": round(through, 2),
        "added_ms": round(through - alone, 2),
        "per_second": round(rate, 1),
        "load_average_before": round(load, 1),
        "cores": os.cpu_count(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
