"""How long an execute takes beside an optimizer: its 99th percentile, in ratio to an idle bridge's.

    python -m integration.measure_optimize [--seconds 10]

Both talk to the local OpenAI-compatible server, in a process of its own, which answers after some
milliseconds; executes come one after the other, as from one caller that waits.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from dspex_protocol.client import Client
from dspex_protocol.messages import Notification

from integration.optimizing import EXACT, ROWS, SIGNATURE

__all__ = ["measure"]

_ROUNDS = 5

# What the LM takes for an answer: little, so that what the bridge adds shows.
_LM_S = 0.02

_ROOT = Path(__file__).resolve().parent.parent


async def measure(seconds: float) -> dict[str, float]:
    """`{idle_p99_ms, busy_p99_ms, ratio, lm_calls_per_s}`; the last are the optimizer's."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "integration.measure_optimize", "--serve"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=_ROOT,
    )
    assert server.stdout is not None
    assert server.stdin is not None
    url, key = (await server.stdout.readline()).decode().split()
    try:
        async with await Client.spawn() as client:
            lm = {"model": "openai/gpt-4.1-mini", "api_base": url, "api_key": key}
            await client.configure(lms={"main": lm})
            await client.create(SIGNATURE, program="p")
            await client.optimize("p", "labeled_few_shot", ROWS)  # everything is imported
            await _executes(client, 1.0)
            idle: list[float] = []
            busy: list[float] = []
            calls = 0
            # In turns, so that what else the machine does falls on both.
            for _ in range(_ROUNDS):
                idle += await _executes(client, seconds / _ROUNDS)
                times, called = await _beside_an_optimizer(client, seconds / _ROUNDS)
                busy += times
                calls += called
    finally:
        server.stdin.close()
        await server.wait()
    first, second = _p99(idle), _p99(busy)
    return {
        "idle_p99_ms": round(first * 1000, 2),
        "busy_p99_ms": round(second * 1000, 2),
        "ratio": round(second / first, 2),
        "lm_calls_per_s": round(calls / seconds, 1),
    }


async def _beside_an_optimizer(client: Client, seconds: float) -> tuple[list[float], int]:
    heard: list[dict[str, Any]] = []
    compiles = asyncio.Event()

    def listen(told: Notification) -> None:
        heard.append(told.params)
        if told.params["phase"] == "compile":
            compiles.set()

    optimizer = {
        "name": "bootstrap_few_shot_random_search",
        "params": {"num_candidate_programs": 10_000},
    }
    running = asyncio.create_task(
        client.optimize("p", optimizer, ROWS[:12], valset=ROWS[12:], metric=EXACT, listener=listen)
    )
    await compiles.wait()
    before = heard[-1]["lm_calls"]
    times = await _executes(client, seconds)
    assert not running.done()
    running.cancel()
    await asyncio.wait({running})
    return times, heard[-1]["lm_calls"] - before


async def _executes(client: Client, seconds: float) -> list[float]:
    times = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        await client.execute("p", {"text": "apple, ripe"})
        times.append(time.monotonic() - began)
    return times


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def _serve() -> None:
    from integration.openai_server import Answer, OpenAIServer
    from integration.optimizing import answer

    with OpenAIServer(lambda asked: Answer(answer(asked).content, delay_s=_LM_S)) as server:
        print(server.url, server.api_key, flush=True)
        sys.stdin.read()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve()
    else:
        print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
        print(asyncio.run(measure(options.seconds)))


if __name__ == "__main__":
    main()
