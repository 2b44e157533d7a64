"""A process with DSPy and nothing of the bridge, which runs a Predict as often as a line says.

    one N        one at a time, in the settings that the bridge runs it in
    default N    one at a time, called as in DSPy's tutorials, with its default settings
    together N   all at once

The answer is a line: the microseconds of one call, for the first two the median.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import dspy

from integration.bench.constant_lm import SIGNATURE, AsyncConstant, Constant

__all__ = ["main"]

_LM = dspy.LM("demo/knn", engine=Constant(), async_engine=AsyncConstant(), cache=False)
_PREDICT = dspy.Predict(SIGNATURE)
_ADAPTER = dspy.ChatAdapter()


async def _one(question: str) -> None:
    with dspy.context(lm=_LM, adapter=_ADAPTER, disable_history=True, track_usage=True):
        assert (await _PREDICT.acall(question=question)).answer == "Paris"


async def _one_at_a_time(number: int) -> float:
    times = []
    for at in range(number):
        began = time.perf_counter()
        await _one(f"{at}?")
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def _by_default(number: int) -> float:
    times = []
    for at in range(number):
        began = time.perf_counter()
        assert _PREDICT(question=f"{at}?").answer == "Paris"
        times.append(time.perf_counter() - began)
    return statistics.median(times)


async def _together(number: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(_one(f"{at}?") for at in range(number)))
    return (time.perf_counter() - began) / number


def main() -> None:
    dspy.configure_cache(enable_disk_cache=False, enable_memory_cache=False)
    dspy.configure(lm=_LM)
    for line in sys.stdin:
        how, number = line.split()
        if how == "default":
            seconds = _by_default(int(number))
        else:
            seconds = asyncio.run({"one": _one_at_a_time, "together": _together}[how](int(number)))
        print(seconds * 1e6, flush=True)


if __name__ == "__main__":
    main()
