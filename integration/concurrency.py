"""What a thousand executes at once cost, beside bare DSPy in the same run.

    python -m integration.concurrency               1,000 calls, medians of 3 rounds
    python -m integration.concurrency --calls 50    fewer

Three measurements:

- over HTTP, all calls in flight, against one server of 200 ms, by the processor time of each
  process: a bridge's executes, as many calls of `dspy.Predict` with `dspy.LM`, and of bare
  `dspy.LM` with the same prompts. The rounds take turns, and the first, which opens the
  connections, is not counted;
- in process, all in flight: a program of the bridge's engine with an LM that waits for 200 ms;
- in process, one after the other: the same with an LM that answers at once, beside `dspy.Predict`
  in the same settings and in DSPy's usual ones. They share what the bridge does for DSPy's speed.

Processor time is what counts here: the time of day depends on who else runs.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from integration.pipe import Pipe

__all__ = ["Bridge", "Client", "in_process", "main", "one_after_the_other", "over_http", "server"]

DELAY_MS = 200
KEY = "sk-local"
MODEL = "openai/gpt-4.1-mini"
SERVER = (sys.executable, "-m", "integration.openai_server", "--answer", "answer=Paris")
SIGNATURE = "question -> answer"

Round = dict[str, Any]


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


class Bridge:
    """Rounds of executes, all in flight, on one bridge."""

    def __init__(self, pipe: Pipe, url: str, calls: int) -> None:
        lm = {"model": MODEL, "api_base": url, "api_key": KEY}
        pipe.ask("configure", {"lms": {"main": lm}})
        pipe.ask("create", {"signature": SIGNATURE, "program": "qa"})
        self._pipe = pipe
        self._calls = calls

    def round(self) -> Round:
        """How many executes have the answer, and what they take."""
        before, started = processor_s(self._pipe.process.pid), time.monotonic()
        ids = [
            self._pipe.request("execute", {"program": "qa", "inputs": {"question": f"{number}?"}})
            for number in range(self._calls)
        ]
        answers = [self._pipe.response(request_id)[3] for request_id in ids]
        used = processor_s(self._pipe.process.pid) - before
        done = sum(
            answer is not None and answer["outputs"] == {"answer": "Paris"} for answer in answers
        )
        return told(done, self._calls, used, started)


class Client:
    """Rounds of calls of DSPy's own, all in flight, in a process that has nothing of the bridge."""

    def __init__(self, which: str, url: str, calls: int) -> None:
        """`which` is `lm` or `predict`."""
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "integration.concurrency"),
                *("--client", which, url, "--calls", str(calls)),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # No price table from the network, and nothing said of the form of messages that DSPy's
            # own adapters use: as in the bridge.
            env={
                **os.environ,
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "PYTHONWARNINGS": "ignore",
            },
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()

    def round(self) -> Round:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        line: Round = json.loads(self._process.stdout.readline())
        return line


async def client(which: str, url: str, calls: int) -> None:
    """A round for each line that comes."""
    import dspy

    dspy.configure_cache(enable_disk_cache=False)
    lm = dspy.LM(MODEL, api_base=url, api_key=KEY, cache=False, timeout=120)
    adapter, signature = dspy.ChatAdapter(), dspy.Signature(SIGNATURE)
    predict = dspy.Predict(SIGNATURE)

    async def by_lm(number: int) -> bool:
        messages = adapter.format(signature, [], {"question": f"{number}?"})
        (answer,) = await lm.acall(messages=messages)
        return "Paris" in answer

    async def by_predict(number: int) -> bool:
        answer = (await predict.acall(question=f"{number}?")).answer
        return bool(answer == "Paris")

    call = {"lm": by_lm, "predict": by_predict}[which]
    with dspy.context(lm=lm, adapter=adapter, disable_history=True):
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await at_once(call, calls)), flush=True)


def over_http(calls: int, rounds: int) -> dict[str, Round]:
    """The medians of all three."""
    with (
        server() as url,
        Pipe(stderr_to_null=True) as pipe,
        Client("lm", url, calls) as lm,
        Client("predict", url, calls) as predict,
    ):
        contestants: dict[str, Client | Bridge] = {
            "bare dspy.LM": lm,
            "dspy.Predict": predict,
            "bridge": Bridge(pipe, url, calls),
        }
        for contestant in contestants.values():
            contestant.round()
        counted: dict[str, list[Round]] = {name: [] for name in contestants}
        for _ in range(rounds):
            for name, contestant in contestants.items():
                counted[name].append(contestant.round())
    return {name: median(results) for name, results in counted.items()}


async def in_process(calls: int, rounds: int) -> Round:
    """Runs of the bridge's engine, all at once, with an LM that only waits."""
    run = program(DELAY_MS / 1000)
    await at_once(run, calls)
    settle()
    return median([await at_once(run, calls) for _ in range(rounds)])


async def one_after_the_other(calls: int, rounds: int) -> dict[str, Round]:
    """The medians of runs of the bridge's engine and of DSPy's Predict, with an LM that answers at
    once."""
    import dspy

    lm = dspy.LM("demo/knn", engine=Engineless(), async_engine=Answering(0.0), cache=False)
    adapter, predict = dspy.ChatAdapter(), dspy.Predict(SIGNATURE)

    async def same(number: int) -> bool:
        with dspy.context(lm=lm, adapter=adapter, disable_history=True):
            return bool((await predict.acall(question=f"{number}?")).answer == "Paris")

    async def usual(number: int) -> bool:
        with dspy.context(lm=lm):
            return bool((await predict.acall(question=f"{number}?")).answer == "Paris")

    contestants = {"Predict": same, "Predict, usual settings": usual, "engine": program(0.0)}
    for call in contestants.values():
        await in_turn(call, calls)
    settle()
    counted: dict[str, list[Round]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            counted[name].append(await in_turn(call, calls))
    return {name: median(results) for name, results in counted.items()}


class Answering:
    """An engine for DSPy, whose answer is the same after a while."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    async def complete(self, request: Any) -> Any:
        from dspy.lm15 import Message, Response, Usage

        if self._wait_s:
            await asyncio.sleep(self._wait_s)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant("[[ ## answer ## ]]\nParis\n\n[[ ## completed ## ]]"),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1),
        )


class Engineless:
    """In place of DSPy's blocking engine, which nothing here calls."""

    def complete(self, request: Any) -> Any:
        raise NotImplementedError


def program(wait_s: float) -> Callable[[int], Awaitable[bool]]:
    """A program of the bridge's engine with an LM that takes so long, and no time itself."""
    from dspex_bridge.engine import Engine
    from dspex_bridge.logs import Log
    from dspex_bridge.programs.registry import Registry
    from dspex_bridge.redaction import Redactor

    class NoClient:
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
    made = Registry(engine).create({"signature": SIGNATURE, "program": "qa"})
    lm = engine.lm("main")
    lm._async_engine_spec = Answering(wait_s)

    async def run(number: int) -> bool:
        inputs = made.inputs.convert({"question": f"{number}?"})
        prepared = engine.run(
            made.module, inputs, lm=lm, adapter=None, config={}, client=NoClient()
        )
        return made.converted(await prepared.prediction()) == {"answer": "Paris"}

    return run


async def at_once(call: Callable[[int], Awaitable[bool]], calls: int) -> Round:
    before, started = own_processor_s(), time.monotonic()
    done = sum(await asyncio.gather(*map(call, range(calls))))
    return told(done, calls, own_processor_s() - before, started)


async def in_turn(call: Callable[[int], Awaitable[bool]], calls: int) -> Round:
    before, started = own_processor_s(), time.monotonic()
    done = sum([await call(number) for number in range(calls)])
    return told(done, calls, own_processor_s() - before, started)


def told(done: int, calls: int, used_s: float, started: float) -> Round:
    return {
        "calls": done,
        "cpu_ms_a_call": used_s / calls * 1000,
        "wall_s": time.monotonic() - started,
    }


def median(rounds: list[Round]) -> Round:
    """Of each number; of the calls that were answered, the least."""
    return {
        "calls": min(result["calls"] for result in rounds),
        **{
            key: statistics.median(result[key] for result in rounds)
            for key in ("cpu_ms_a_call", "wall_s")
        },
    }


def settle() -> None:
    """What was imported is not collected, as in the bridge."""
    gc.collect()
    gc.freeze()


def processor_s(pid: int) -> float:
    """Seconds that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def own_processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser("integration.concurrency")
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--client", nargs=2, metavar=("WHICH", "URL"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.client:
        which, url = options.client
        asyncio.run(client(which, url, options.calls))
        return 0
    out = sys.stdout  # what is printed beside an engine of the bridge's goes to its log
    measured = (options.calls, options.rounds)
    http = over_http(*measured)
    waiting = asyncio.run(in_process(*measured))
    quick = asyncio.run(one_after_the_other(*measured))

    def show(title: str, results: dict[str, Round], first: str) -> None:
        print(f"{title}, medians of {options.rounds} rounds", file=out)
        for name, result in results.items():
            ratio = results[first]["cpu_ms_a_call"] / result["cpu_ms_a_call"]
            compared = "" if name == first else f"; the {first} takes {ratio:.2f} of it"
            print(
                f"  {name:24}{result['calls']:5} of {options.calls} answered,"
                f" {result['cpu_ms_a_call']:6.3f} ms of processor a call,"
                f" {result['wall_s']:6.2f} s{compared}",
                file=out,
            )

    show("over HTTP", http, "bridge")
    show(f"in process, an LM of {DELAY_MS} ms, all at once", {"engine": waiting}, "engine")
    show("in process, an LM that answers at once, one after the other", quick, "engine")
    results = [*http.values(), waiting, *quick.values()]
    return 0 if all(result["calls"] == options.calls for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
