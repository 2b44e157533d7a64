"""How good a prediction is: built-in metrics, the client's own, and a program as the judge."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import dspy
from dspex_protocol.errors import InvalidParamsError, MetricError
from dspy.evaluate.auto_evaluation import (
    DecompositionalSemanticRecallPrecision,
    SemanticRecallPrecision,
)
from dspy.evaluate.auto_evaluation import f1_score as f1_of_parts

from dspex_bridge.params import Check, boolean, number, one_of, record
from dspex_bridge.programs.wire_values import render, to_wire

from .comparisons import contains, exact_match, f1, json_match, numeric_close, text_of

__all__ = ["METRICS", "METRIC_SETTING", "Comparison", "Judge", "Metric", "Score", "make_metric"]

# The key in DSPy's settings under which a run's way to the client travels:
# `async call_metric(name, example, prediction, trace)`.
METRIC_SETTING = "dspex_call_metric"

Values: TypeAlias = Mapping[str, Any]
Comparison: TypeAlias = Callable[[Any, Any, Values], float]
#: Makes a judge of the map and the field in a metric: an async function from inputs to outputs.
Judge: TypeAlias = Callable[[Values, str], Callable[[dict[str, Any]], Awaitable[Values]]]


class Score(NamedTuple):
    """`value` is finite, 0 to 1 for the built-in metrics; `feedback` says why, in words."""

    value: float
    feedback: str | None = None


class Metric:
    """Scores a prediction, inside the context of a run (its LM, its way to the client).

    `example` is `{inputs, outputs}`, `prediction` the map of outputs, both in the form of the wire.
    """

    def check(self, example: Values) -> None:
        """Raises MetricError for an example that cannot be scored, before a program runs on it."""

    async def __call__(
        self, example: Values, prediction: Values, trace: list[Any] | None = None
    ) -> Score:
        """Raises MetricError, and what an LM or the client raises."""
        raise NotImplementedError


def make_metric(spec: Values, outputs: Sequence[str], judge: Judge) -> Metric:
    """A metric of its description, for programs with these outputs.

    Raises InvalidParamsError and, for a judge that cannot be made, what making a program raises.
    """
    if spec.get("callback") is not None:
        return _Callback(spec["callback"])
    if spec.get("judge") is not None:
        return _Judged(judge(spec["judge"], spec["field"]), spec["field"])
    kind, params = METRICS[spec["name"]], spec.get("params") or {}
    kind.params(params, f"metric: params of {spec['name']}")
    return kind.make(_field(spec.get("field"), outputs), params)


class _FieldMetric(Metric):
    """Compares one field of a prediction with that of its example."""

    def __init__(self, field: str, params: Values) -> None:
        self._field = field
        self._params = params

    def check(self, example: Values) -> None:
        if self._field not in example["outputs"]:
            raise MetricError(f"the example's outputs have no {self._field!r} to compare with")

    async def __call__(
        self,
        example: Values,
        prediction: Values,
        trace: list[Any] | None = None,  # noqa: ARG002 - for metrics that look at the way there
    ) -> Score:
        self.check(example)
        expected, got = to_wire(example["outputs"][self._field]), prediction.get(self._field)
        value = float(await self._score(example["inputs"], expected, got))
        if value == 1.0:
            return Score(value)
        return Score(value, f"{self._field}: expected {render(expected)}, got {render(got)}")

    async def _score(self, inputs: Values, expected: Any, got: Any) -> float:
        raise NotImplementedError


class _Compared(_FieldMetric):
    def __init__(self, compare: Comparison, field: str, params: Values) -> None:
        super().__init__(field, params)
        self._compare = compare

    async def _score(self, inputs: Values, expected: Any, got: Any) -> float:  # noqa: ARG002
        return self._compare(expected, got, self._params)


class _SemanticF1(_FieldMetric):
    """DSPy's: its LM says how much of each text is in the other."""

    def __init__(self, field: str, params: Values) -> None:
        super().__init__(field, params)
        self._module = dspy.ChainOfThought(
            DecompositionalSemanticRecallPrecision
            if params.get("decompositional")
            else SemanticRecallPrecision
        )

    async def _score(self, inputs: Values, expected: Any, got: Any) -> float:
        values = list(inputs.values())
        question = (
            text_of(values[0])
            if len(values) == 1
            else "\n".join(f"{name}: {text_of(value)}" for name, value in inputs.items())
        )
        parts = await self._module.acall(
            question=question, ground_truth=text_of(expected), system_response=text_of(got)
        )
        score: float = f1_of_parts(parts.precision, parts.recall)
        return score


class _Callback(Metric):
    """The client's own."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(
        self, example: Values, prediction: Values, trace: list[Any] | None = None
    ) -> Score:
        call_metric: Callable[..., Awaitable[Any]] = dspy.settings[METRIC_SETTING]
        answer: Any = await call_metric(self._name, example, prediction, trace)
        feedback = None
        if isinstance(answer, dict):
            answer, feedback = answer.get("score"), answer.get("feedback")
        value = _value(answer)
        if value is None or not (feedback is None or isinstance(feedback, str)):
            raise MetricError(
                f"the metric {self._name!r} answered {render(answer)}: a finite number, a boolean, "
                "or {score, feedback} with such a score and a text is wanted",
            )
        return Score(value, feedback)


class _Judged(Metric):
    def __init__(self, ask: Callable[[dict[str, Any]], Awaitable[Values]], field: str) -> None:
        self._ask = ask
        self._field = field

    async def __call__(
        self,
        example: Values,
        prediction: Values,
        trace: list[Any] | None = None,  # noqa: ARG002 - the judge sees the outcome
    ) -> Score:
        outputs = await self._ask({"example": dict(example), "prediction": dict(prediction)})
        value = _value(outputs.get(self._field))
        if value is None:
            got = render(outputs.get(self._field))
            raise MetricError(f"the judge's {self._field!r} is no finite number: {got}")
        feedback = outputs.get("feedback", outputs.get("reasoning"))
        return Score(value, feedback if isinstance(feedback, str) else None)


class _Kind(NamedTuple):
    make: Callable[[str, Values], Metric]
    params: Check = record()


METRICS: dict[str, _Kind] = {
    "exact_match": _Kind(partial(_Compared, exact_match)),
    "f1": _Kind(partial(_Compared, f1)),
    "contains": _Kind(partial(_Compared, contains)),
    "numeric_close": _Kind(
        partial(_Compared, numeric_close),
        record(optional={"relative_tolerance": number(0), "absolute_tolerance": number(0)}),
    ),
    "json_match": _Kind(partial(_Compared, json_match)),
    "semantic_f1": _Kind(_SemanticF1, record(optional={"decompositional": boolean})),
}


def _field(field: str | None, outputs: Sequence[str]) -> str:
    if field is not None:
        one_of(*outputs)(field, "metric: field")
        return field
    if len(outputs) == 1:
        return outputs[0]
    raise InvalidParamsError(
        f"metric: field: the program has several outputs ({', '.join(outputs)}): name one",
        data={"param": "metric.field"},
    )


def _value(answer: Any) -> float | None:
    if not isinstance(answer, (bool, int, float)):
        return None
    try:
        value = float(answer)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None
