"""A program of several that answer the same question at the same time, and vote."""

from __future__ import annotations

import random
from asyncio import TaskGroup
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.codec import encode

from dspex_bridge.engine.adapters import ADAPTERS
from dspex_bridge.engine.comparisons import text_of
from dspex_bridge.engine.streaming import STREAM_SETTING
from dspex_bridge.programs.results import ResultConverter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from dspex_bridge.programs.spec import EnsembleSpec, ProgramSpec

    from .kinds import Resources

__all__ = ["Ensemble", "majority"]


class Ensemble(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """Each program is an attribute, `program_1` and so on, so that an optimizer sees all their
    predictors. It runs with its own LM, adapter and config where it has any. One that fails ends
    the others: a vote with fewer voices would be another program.
    """

    def __init__(
        self, spec: EnsembleSpec, modules: Sequence[dspy.Module], resources: Resources | None
    ) -> None:
        super().__init__()
        self._members = _Members(spec, resources)
        for index, module in enumerate(modules):
            setattr(self, _name(index), module)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        answers = []
        for index in self._members.drawn():
            with self._members.context(index):
                prediction = getattr(self, _name(index))(**inputs)
                answers.append(self._members.converted(index, prediction))
        return self._members.vote(answers)

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        async def run(index: int) -> dict[str, Any]:
            with self._members.context(index):
                prediction = await getattr(self, _name(index)).acall(**inputs)
                return self._members.converted(index, prediction)

        failure: BaseException
        try:
            async with TaskGroup() as group:
                running = [group.create_task(run(index)) for index in self._members.drawn()]
        except BaseExceptionGroup as failures:
            failure = failures.exceptions[0]
        else:
            return self._members.vote([task.result() for task in running])
        raise failure


class _Members:
    """What an ensemble knows of its programs. It never changes: copies of the module share it."""

    def __init__(self, spec: EnsembleSpec, resources: Resources | None) -> None:
        self._programs = spec.programs
        self._size = spec.size
        self._resources = resources
        self._outputs = [item.name for item in spec.programs[0].signature.outputs]
        self._results = [ResultConverter(program) for program in spec.programs]

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Members:
        return self

    def drawn(self) -> Iterable[int]:
        everyone = range(len(self._programs))
        return everyone if self._size is None else random.sample(everyone, self._size)

    def context(self, index: int) -> AbstractContextManager[None]:
        program = self._programs[index]
        settings: dict[str, Any] = {"send_stream": None, STREAM_SETTING: None}
        lm = self._lm(program)
        settings["lm"] = lm.copy(**program.config) if program.config else lm
        if program.adapter is not None:
            settings["adapter"] = ADAPTERS[program.adapter]()
        context: AbstractContextManager[None] = dspy.context(**settings)
        return context

    def _lm(self, program: ProgramSpec) -> Any:
        if program.lm is None or self._resources is None:
            return dspy.settings.lm
        return self._resources.lm(program.lm)

    def converted(self, index: int, prediction: dspy.Prediction) -> dict[str, Any]:
        return self._results[index].convert(dict(prediction.items()))

    def vote(self, answers: Sequence[dict[str, Any]]) -> dspy.Prediction:
        return dspy.Prediction(
            **{name: majority([answer[name] for answer in answers]) for name in self._outputs}
        )


def majority(values: Sequence[Any]) -> Any:
    """The value that most have, the earliest of those where several have as many. Texts that are
    the same but for case, punctuation, articles and space are one; it is the first of them that
    is given."""
    keys = [_key(value) for value in values]
    return values[max(range(len(keys)), key=lambda index: (keys.count(keys[index]), -index))]


def _key(value: Any) -> bytes:
    if isinstance(value, str):
        from dspy.evaluate import normalize_text

        return encode(normalize_text(text_of(value)) or value)
    return encode(value)


def _name(index: int) -> str:
    return f"program_{index + 1}"
