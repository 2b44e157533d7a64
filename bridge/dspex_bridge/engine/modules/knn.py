"""knn: a module that is shown, of all its demonstrations, those nearest to its inputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from .calls import AT_ONCE, ON_LOOP, result_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .calls import Mode

__all__ = ["KNN"]


class KNN(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """`module` with the `k` nearest of its demonstrations at each call, the nearest first.

    DSPy's class of this name only looks them up; texts and scores are as there: inputs as
    `name: value`, and the dot product of their vectors.
    """

    def __init__(self, module: dspy.Module, k: int, embedder: Any) -> None:
        super().__init__()
        self.module = module
        self.k = k
        # A function, because a copy of the module need not copy what it gives.
        self._embedder: Callable[[], Any] = lambda: embedder
        self._known: tuple[tuple[str, ...], Any] = ((), None)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        return result_of(self._run(AT_ONCE, inputs))

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        return await self._run(ON_LOOP, inputs)

    async def _run(self, mode: Mode, inputs: dict[str, Any]) -> dspy.Prediction:
        (predictor,) = self.module.predictors()
        demos: Sequence[dspy.Example] = predictor.demos
        if len(demos) > self.k:
            names = list(predictor.signature.input_fields)
            vectors = await self._vectors(mode, tuple(_text(demo, names) for demo in demos))
            (wanted,) = await mode.call(self._embedder(), [_text(inputs, names)])
            scores = [float(vector @ wanted) for vector in vectors]
            order = sorted(range(len(demos)), key=lambda index: -scores[index])
            demos = [demos[index] for index in order[: self.k]]
        return await mode.call(self.module, **inputs, demos=demos)

    async def _vectors(self, mode: Mode, texts: tuple[str, ...]) -> Any:
        # An optimizer may have given the predictor other demonstrations.
        known, vectors = self._known
        if known != texts:
            vectors = await mode.call(self._embedder(), list(texts))
            self._known = (texts, vectors)
        return vectors


def _text(values: Mapping[str, Any], names: Sequence[str]) -> str:
    return " | ".join(f"{name}: {values[name]}" for name in names if name in values)
