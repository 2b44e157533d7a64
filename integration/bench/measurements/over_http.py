"""Executes with an LM behind HTTP: what a call takes of the processor."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack

from integration import concurrency
from integration.bench.lines import WrongAnswerError
from integration.bench.measurement import Comparison, Contestant, Measurement
from integration.bench.workshop import Workshop
from integration.pipe import Pipe

__all__ = ["HTTP"]

_CALLS = 1000


def _over_http(workshop: Workshop, stack: ExitStack) -> Mapping[str, Contestant]:
    calls = workshop.count(_CALLS)
    url = stack.enter_context(concurrency.server())
    pipe = stack.enter_context(Pipe(stderr_to_null=True))

    def contestant(of: concurrency.Client | concurrency.Bridge) -> Contestant:
        def cost() -> float:
            told = of.round()
            if told["calls"] != calls:
                raise WrongAnswerError(f"{told['calls']} of {calls} calls were answered")
            return float(told["cpu_ms_a_call"])

        return cost

    return {
        "dspy.Predict": contestant(stack.enter_context(concurrency.Client("predict", url, calls))),
        "dspy.LM": contestant(stack.enter_context(concurrency.Client("lm", url, calls))),
        "bridge": contestant(concurrency.Bridge(pipe, url, calls)),
    }


HTTP = Measurement(
    "http",
    f"{_CALLS} executes at once with an LM of {concurrency.DELAY_MS} ms behind HTTP",
    "ms of processor a call",
    _over_http,
    (
        Comparison("bridge / dspy.Predict", "bridge", "dspy.Predict", bound=0.6),
        Comparison("bridge / dspy.LM", "bridge", "dspy.LM"),
    ),
    "A local server that speaks OpenAI's API. `dspy.Predict` with `dspy.LM` awaited in a process of"
    " its own, and bare `dspy.LM` with the same prompts, which runs no program; both have no"
    " history and no cache. Everything is at once, so the bridge has all 1,000 in flight.",
    rounds_share=0.34,
)
