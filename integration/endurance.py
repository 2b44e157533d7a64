"""A long life: many executes of every kind on one bridge, whose memory stays as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

from integration.pipe import Pipe

__all__ = ["MAX_GROWTH_BYTES", "endurance"]

# What a bridge may grow by after its warm-up, however many executes there are.
MAX_GROWTH_BYTES = 16 * 1024 * 1024

# The share of the executes that is warm-up: caches fill, allocators take what they need.
_WARM_UP = 0.2

_IN_FLIGHT = 64

# So that one look at the memory is not one moment's.
_LOOKS = 10

_CREATE = {"signature": "question -> answer"}


def endurance(seed: int, executes: int) -> dict[str, Any]:
    """Runs `executes` programs: registered and inline, with answers that are new, cached and
    refused, streamed, traced, in batches. Raises where the bridge grew."""
    rng = random.Random(seed)
    with Pipe(stderr_to_null=True) as pipe:
        lms = {"main": {"model": "demo/knn"}, "cached": {"model": "demo/knn", "cache": True}}
        pipe.ask("configure", {"lms": lms, "default_lm": "main"})
        for module in ("predict", "chain_of_thought"):
            pipe.ask("create", {**_CREATE, "program": module, "module": module})
        kinds = _kinds(rng)
        warm_up = int(executes * _WARM_UP)
        _run(pipe, kinds, warm_up)
        before = _memory(pipe)
        looks: list[int] = []
        for _ in range(_LOOKS):
            _run(pipe, kinds, (executes - warm_up) // _LOOKS)
            looks.append(_memory(pipe))
        stats = pipe.ask("stats")
    growth = max(looks[-3:]) - before
    assert stats["stuck"] == 0
    assert growth < MAX_GROWTH_BYTES, f"the bridge grew by {growth} bytes: {looks} after {before}"
    return {
        "executes": executes,
        "errors": stats["requests"]["execute"]["errors"],
        "before_mib": round(before / 2**20, 1),
        "growth_mib": round(growth / 2**20, 1),
        "looks_mib": [round(look / 2**20, 1) for look in looks],
    }


def _run(pipe: Pipe, kinds: Iterator[tuple[str, dict[str, Any]]], count: int) -> None:
    """So many requests, a few of them at once; what they answer is forgotten."""
    open_requests = 0
    left = count
    while left or open_requests:
        while left and open_requests < _IN_FLIGHT:
            pipe.request(*next(kinds))
            open_requests += 1
            left -= 1
        if pipe.receive()[0] == 1:
            open_requests -= 1


def _kinds(rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    def question() -> dict[str, Any]:
        return {"question": f"{rng.getrandbits(64):x} {'x' * rng.randrange(2000)}"}

    kinds: list[Callable[[], tuple[str, dict[str, Any]]]] = [
        lambda: ("execute", {"program": "predict", "inputs": question()}),
        lambda: ("execute", {"program": "chain_of_thought", "inputs": question()}),
        lambda: ("execute", {"program": "predict", "inputs": question(), "lm": "cached"}),
        lambda: ("execute", {"program": "predict", "inputs": question(), "stream": {}}),
        lambda: ("execute", {"program": "predict", "inputs": {"qestion": "?"}}),
        lambda: (
            "execute",
            {"program": "predict", "inputs": question(), "config": {"temperature": 0.5}},
        ),
        lambda: (
            "execute",
            {"program": "predict", "inputs": question(), "include": ["trace", "prompt"]},
        ),
        lambda: (
            "execute",
            {"program": "predict", "inputs": question(), "timeout_ms": 1 + rng.randrange(20)},
        ),
        lambda: ("batch", {"program": "predict", "inputs": [question(), question()]}),
    ]
    while True:
        for kind in kinds:
            yield kind()
        if rng.random() < 0.1:  # compiling a signature costs as much as many executes
            inline = {**_CREATE, "instructions": f"Number {rng.getrandbits(64)}."}
            lm = {"model": "demo/knn", "api_key": f"sk-{rng.getrandbits(128):x}"}
            yield "execute", {"program": inline, "inputs": question(), "lm": lm}


def _memory(pipe: Pipe) -> int:
    return int(pipe.ask("stats")["memory_bytes"])
