"""multi_chain_comparison: several chains of thought at once, and one answer that compares them.

DSPy's module of this name takes the chains as an argument. A program has inputs only, so this one
makes them, too.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import dspy

from dspex_bridge.engine.streaming import STREAM_SETTING

from .calls import AT_ONCE, ON_LOOP, result_of
from .rollouts import Rollout, add_trace

if TYPE_CHECKING:
    from .calls import Mode

__all__ = ["MultiChainComparison"]


class MultiChainComparison(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """Its outputs are those of the comparison, and `rationale`, which is its reasoning."""

    def __init__(self, signature: type[dspy.Signature], chains: int, temperature: float) -> None:
        super().__init__()
        self.chains = chains
        self.temperature = temperature
        self.attempt = dspy.ChainOfThought(signature)
        with warnings.catch_warnings():
            # DSPy's module uses what DSPy has deprecated.
            warnings.simplefilter("ignore", DeprecationWarning)
            self.compare = dspy.MultiChainComparison(signature, M=chains, temperature=temperature)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return result_of(self._run(AT_ONCE, inputs))

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        return await self._run(ON_LOOP, inputs)

    async def _run(self, mode: Mode, inputs: dict[str, Any]) -> dspy.Prediction:
        chains = await mode.all([self._chain(mode, index, inputs) for index in range(self.chains)])
        attempts = {}
        for index, (chain, trace) in enumerate(chains):
            add_trace(trace)
            attempts[f"reasoning_attempt_{index + 1}"] = self._words(chain)
        return await mode.call(self.compare.predict, **inputs, **attempts)

    async def _chain(
        self, mode: Mode, index: int, inputs: dict[str, Any]
    ) -> tuple[dspy.Prediction, list[Any]]:
        rollout = Rollout(self.attempt, index, self.temperature)
        # What is streamed is the answer: the chains are written at the same time.
        with dspy.context(trace=[], send_stream=None, **{STREAM_SETTING: None}):
            prediction = await mode.call(rollout.module, **inputs)
            return prediction, rollout.trace()

    def _words(self, chain: dspy.Prediction) -> str:
        """As DSPy words it: the first lines of the reasoning and of the last output."""
        reasoning, answer = (
            str(text).strip().split("\n")[0].strip()
            for text in (chain["reasoning"], chain[self.compare.last_key])
        )
        return f"«I'm trying to {reasoning} I'm not sure but my prediction is {answer}»"
