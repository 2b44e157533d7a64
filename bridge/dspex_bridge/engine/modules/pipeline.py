"""A program of several modules: steps that run as soon as what they need is there."""

from __future__ import annotations

from asyncio import Task, TaskGroup
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import DSPexError, SignatureError

from dspex_bridge.engine.errors import translate
from dspex_bridge.engine.streaming import STREAM_SETTING, FieldStream
from dspex_bridge.programs.converters import InputConverter
from dspex_bridge.programs.results import ResultConverter

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from dspex_bridge.programs.spec import PipelineSpec, Step

__all__ = ["Pipeline"]


class Pipeline(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """Each step is an attribute of its own name, so that its predictors are `step` or
    `step.predictor`, and an optimizer sees all of them.

    A value goes from step to step as it would over the wire: converted and judged by the outputs
    of the one and by the inputs of the other.
    """

    def __init__(self, spec: PipelineSpec, modules: Mapping[str, dspy.Module]) -> None:
        super().__init__()
        self._steps = _Steps(spec)
        for name, module in modules.items():
            if hasattr(self, name):
                raise SignatureError(
                    f"the step name {name!r} is reserved (DSPy's modules have an attribute of that "
                    f"name); choose another, such as '{name}_step'",
                    data={"step": name},
                )
            setattr(self, name, module)

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """The steps one after the other, as an optimizer calls them."""
        results: dict[str, dict[str, Any]] = {}
        for step in self._steps.in_order:
            results[step.name] = self._steps.run_now(
                step, getattr(self, step.name), inputs, results
            )
        return self._steps.prediction(results)

    async def aforward(self, **inputs: Any) -> dspy.Prediction:
        """Steps that do not need one another run at the same time; one that fails ends the rest."""
        running: dict[str, Task[dict[str, Any]]] = {}

        async def run(step: Step) -> dict[str, Any]:
            results = {name: await running[name] for name in step.needs}
            return await self._steps.run(step, getattr(self, step.name), inputs, results)

        failure: BaseException
        try:
            async with TaskGroup() as group:
                for step in self._steps.in_order:
                    running[step.name] = group.create_task(run(step))
        except BaseExceptionGroup as failures:
            failure = failures.exceptions[0]
        else:
            return self._steps.prediction({name: task.result() for name, task in running.items()})
        raise failure


class _Steps:
    """What a pipeline knows of its steps. It never changes: copies of the module share it."""

    def __init__(self, spec: PipelineSpec) -> None:
        self.in_order = spec.steps
        self._outputs = [output.split(".", 1) for output in spec.outputs]
        self._inputs = {step.name: InputConverter(step.program.signature) for step in spec.steps}
        self._results = {step.name: ResultConverter(step.program) for step in spec.steps}

    def __deepcopy__(self, _memo: dict[int, Any]) -> Self:
        return self

    def prediction(self, results: Mapping[str, Mapping[str, Any]]) -> dspy.Prediction:
        return dspy.Prediction(**{field: results[step][field] for step, field in self._outputs})

    def run_now(
        self,
        step: Step,
        module: dspy.Module,
        inputs: Mapping[str, Any],
        results: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        try:
            prediction = module(**self._taken(step, inputs, results))
            return self._results[step.name].convert(dict(prediction.items()))
        except Exception as error:
            raise _in_step(step, error) from error

    async def run(
        self,
        step: Step,
        module: dspy.Module,
        inputs: Mapping[str, Any],
        results: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        try:
            taken = self._taken(step, inputs, results)
            stream = self._stream(step)
            with dspy.context(send_stream=stream, **{STREAM_SETTING: stream}):
                prediction = dict((await module.acall(**taken)).items())
            if stream is not None:
                stream.settle(prediction)
            return self._results[step.name].convert(prediction)
        except Exception as error:
            raise _in_step(step, error) from error

    def _taken(
        self,
        step: Step,
        inputs: Mapping[str, Any],
        results: Mapping[str, Mapping[str, Any]],
    ) -> dict[str, Any]:
        taken = {}
        for name, source in step.sources.items():
            earlier, dot, field = source.partition(".")
            taken[name] = results[earlier][field] if dot else inputs[source]
        return self._inputs[step.name].convert(taken)

    def _stream(self, step: Step) -> FieldStream | None:
        whole: FieldStream | None = dspy.settings.get(STREAM_SETTING)
        if whole is None:
            return None
        names = {field: [f"{step.name}.{field}"] for field in step.program.output_types}
        for owner, field in self._outputs:
            if owner == step.name:
                names[field].append(field)
        return whole.part(names)


def _in_step(step: Step, error: Exception) -> Exception:
    """The error with the step that it happened in."""
    known = error if isinstance(error, DSPexError) else translate(error)
    if known is None:
        error.add_note(f"in the step {step.name!r}")
        return error
    return type(known)(
        f"step {step.name!r}: {known.message}",
        data={**known.data, "step": step.name},
        retryable=known.retryable,
    )
