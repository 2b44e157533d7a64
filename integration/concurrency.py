"""What a thousand executes at once cost, beside bare DSPy in the same run.

    python -m integration.concurrency               1,000 calls
    python -m integration.concurrency --calls 50    fewer

Two measurements:

- over HTTP: a bridge with all executes in flight, and a process that makes as many bare `dspy.LM`
  calls with the same prompt, against one server of 200 ms, by the processor time of each (the
  client's own is not counted);
- in process: a program of the bridge's engine against an LM of 200 ms that needs no time itself.

Processor time is what counts here: the time of day depends on who else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from integration.pipe import Pipe

__all__ = ["bare", "bridged", "in_process", "main"]

DELAY_MS = 200
KEY = "sk-local"
MODEL = "openai/gpt-4.1-mini"
SERVER = (sys.executable, "-m", "integration.openai_server", "--answer", "answer=Paris")

# Connections and imports are made before anything is measured.
WARM_UP = 20


@contextmanager
def server() -> Iterator[str]:
    """The address of a server in a process of its own."""
    process = subprocess.Popen(
        [*SERVER, "--delay-ms", str(DELAY_MS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.communicate()


def bridged(url: str, calls: int) -> dict[str, Any]:
    """All executes in flight on one bridge: how many succeed, and what they take."""
    with Pipe(stderr_to_null=True) as pipe:
        lm = {"model": MODEL, "api_base": url, "api_key": KEY}
        pipe.ask("configure", {"lms": {"main": lm}})
        pipe.ask("create", {"signature": "question -> answer", "program": "qa"})
        execute(pipe, WARM_UP)
        before, started = processor_s(pipe.process.pid), time.monotonic()
        done = execute(pipe, calls)
        return {
            "calls": done,
            "wall_s": time.monotonic() - started,
            "cpu_ms_a_call": (processor_s(pipe.process.pid) - before) / calls * 1000,
        }


def execute(pipe: Pipe, calls: int) -> int:
    """Executes at once; how many have the answer."""
    ids = [
        pipe.request("execute", {"program": "qa", "inputs": {"question": f"{number}?"}})
        for number in range(calls)
    ]
    answers = [pipe.response(request_id)[3] for request_id in ids]
    return sum(
        answer is not None and answer["outputs"] == {"answer": "Paris"} for answer in answers
    )


def processor_s(pid: int) -> float:
    """Seconds that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def bare(url: str, calls: int) -> dict[str, Any]:
    """The same prompts by `dspy.LM` alone, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "integration.concurrency", "--bare", url, "--calls", str(calls)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        # No price table from the network, and nothing said of the form of messages that DSPy's own
        # adapters use: as in the bridge.
        env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONWARNINGS": "ignore"},
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


async def bare_calls(url: str, calls: int) -> dict[str, Any]:
    import dspy

    dspy.configure_cache(enable_disk_cache=False)
    lm = dspy.LM(MODEL, api_base=url, api_key=KEY, cache=False, timeout=120)
    adapter, signature = dspy.ChatAdapter(), dspy.Signature("question -> answer")

    async def call(number: int) -> bool:
        messages = adapter.format(signature, [], {"question": f"{number}?"})
        (answer,) = await lm.acall(messages=messages)
        return "Paris" in answer

    with dspy.context(lm=lm, disable_history=True):
        await asyncio.gather(*map(call, range(WARM_UP)))
        before, started = own_processor_s(), time.monotonic()
        done = sum(await asyncio.gather(*map(call, range(calls))))
    return {
        "calls": done,
        "wall_s": time.monotonic() - started,
        "cpu_ms_a_call": (own_processor_s() - before) / calls * 1000,
    }


def own_processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


async def in_process(calls: int) -> dict[str, Any]:
    """Runs of the bridge's engine, all at once, against an LM that only waits."""
    from dspex_bridge.engine import Engine
    from dspex_bridge.logs import Log
    from dspex_bridge.programs.registry import Registry
    from dspex_bridge.redaction import Redactor
    from dspy.lm15 import Message, Request, Response, Usage

    class Waiting:
        async def complete(self, request: Request) -> Response:
            await asyncio.sleep(DELAY_MS / 1000)
            return Response(
                id=None,
                model=request.model,
                message=Message.assistant("[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"),
                finish_reason="stop",
                usage=Usage(input_tokens=1, output_tokens=1),
            )

    class Client:
        request_id = 0

        async def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
            raise NotImplementedError

        async def call_metric(self, *_: Any) -> Any:
            raise NotImplementedError

        async def run_job(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

    redactor = Redactor()
    engine = Engine(Log(redactor, "warning"), redactor)
    engine.configure({"lms": {"main": {"model": "demo/knn"}}})
    registry = Registry(engine)
    program = registry.create({"signature": "question -> answer", "program": "qa"})
    lm = engine.lm("main")
    lm._async_engine_spec = Waiting()

    async def run(number: int) -> bool:
        inputs = program.inputs.convert({"question": f"{number}?"})
        prepared = engine.run(
            program.module, inputs, lm=lm, adapter=None, config={}, client=Client()
        )
        return program.converted(await prepared.prediction()) == {"answer": "Paris"}

    await asyncio.gather(*map(run, range(WARM_UP)))
    before, started = own_processor_s(), time.monotonic()
    done = sum(await asyncio.gather(*map(run, range(calls))))
    return {
        "calls": done,
        "wall_s": time.monotonic() - started,
        "cpu_ms_a_call": (own_processor_s() - before) / calls * 1000,
    }


def main() -> int:
    parser = argparse.ArgumentParser("integration.concurrency")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--bare", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = sys.stdout  # what is printed beside an engine of the bridge's goes to its log
    if options.bare:
        print(json.dumps(asyncio.run(bare_calls(options.bare, options.calls))))
        return 0
    with server() as url:
        results = {"bare dspy.LM": bare(url, options.calls), "bridge": bridged(url, options.calls)}
    results["in process"] = asyncio.run(in_process(options.calls))
    for name, result in results.items():
        print(
            f"{name:13} {result['calls']:5} of {options.calls} answered, "
            f"{result['cpu_ms_a_call']:6.2f} ms of processor a call, {result['wall_s']:6.2f} s",
            file=out,
        )
    ratio = results["bridge"]["cpu_ms_a_call"] / results["bare dspy.LM"]["cpu_ms_a_call"]
    print(f"the bridge takes {ratio:.2f} of the bare calls' processor time", file=out)
    return 0 if all(result["calls"] == options.calls for result in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
