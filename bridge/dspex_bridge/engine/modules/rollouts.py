"""Several attempts of one module at one input, each of which asks the LM anew."""

from __future__ import annotations

from typing import Any

import dspy

__all__ = ["Rollout", "add_trace"]


class Rollout:
    """A copy of `module` whose LM calls differ from those of the other attempts: by `index` in
    the cache's key, and by chance."""

    def __init__(self, module: dspy.Module, index: int, temperature: float) -> None:
        lm = module.get_lm() or dspy.settings.lm
        first = lm.kwargs.get("rollout_id") or 0
        self.module = module.deepcopy()
        self.module.set_lm(lm.copy(rollout_id=first + index, temperature=temperature))
        self._originals = {
            id(copy): original
            for copy, original in zip(self.module.predictors(), module.predictors(), strict=True)
        }

    def trace(self) -> list[Any]:
        """The trace so far, with the module's own predictors: an optimizer does not know copies."""
        return [
            (self._originals.get(id(predictor), predictor), inputs, prediction)
            for predictor, inputs, prediction in dspy.settings.trace
        ]


def add_trace(trace: list[Any]) -> None:
    """Appends to the trace of the run, where somebody wants one."""
    if dspy.settings.trace is not None:
        dspy.settings.trace.extend(trace)
