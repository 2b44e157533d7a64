"""A bridge whose programs talk: every predictor prints, logs and warns, in every kind of thread."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import Any

import dspy
from dspex_bridge.cli import bridge

think = dspy.Predict.aforward


def in_a_thread_of_dspys(_item: Any) -> None:
    logging.getLogger("talker").warning("logged in a thread of DSPy's")


async def aforward(self: Any, **inputs: Any) -> Any:
    word = next(iter(inputs.values()))
    print(f"printed {word}")
    print("the beginning", end="")
    await asyncio.sleep(0)  # others print meanwhile
    print(f" and the end {word}")
    logging.getLogger("talker").warning("logged %s", word)
    await asyncio.to_thread(print, f"printed in a thread {word}")
    if word == "threads":
        two = [(in_a_thread_of_dspys, (number,)) for number in range(2)]
        dspy.Parallel(num_threads=2, disable_progress_bar=True)(two)
    if word == "flood":
        for number in range(5000):
            print(number)
    print("x" * 50_000 if word == "long" else "unfinished", end="")
    return await think(self, **inputs)


dspy.Predict.aforward = aforward

if __name__ == "__main__":
    bridge(sys.argv[1:])
