"""The built-in metrics, by their values; what a host's and a judge's may answer."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import dspy
import pytest
from dspex_bridge.catalog import METRICS as OFFERED
from dspex_bridge.engine.metrics import METRIC_SETTING, METRICS, Metric, Score, make_metric
from dspex_protocol.errors import InvalidParamsError, MetricError


def no_judge(_create: Any, _field: str) -> Any:
    raise AssertionError("no judge was asked for")


def score(
    spec: dict[str, Any], expected: Any, got: Any, outputs: tuple[str, ...] = ("answer",)
) -> Score:
    metric = make_metric(spec, outputs, no_judge)
    example = {"inputs": {"question": "?"}, "outputs": {"answer": expected}}
    return asyncio.run(call(metric, example, {"answer": got}))


async def call(metric: Metric, example: Any, prediction: Any) -> Score:
    return await metric(example, prediction)


def test_what_is_offered_is_what_there_is() -> None:
    assert tuple(METRICS) == OFFERED


@pytest.mark.parametrize(
    ("name", "expected", "got", "value"),
    [
        # Text as DSPy normalises it: case, punctuation, English articles, space.
        ("exact_match", "The Eiffel  Tower!", "eiffel tower", 1.0),
        ("exact_match", "Paris", "Paris, France", 0.0),
        ("exact_match", ["Eiffel Tower", "Louvre"], "the Louvre", 1.0),
        ("exact_match", ["a b", "C"], ["A b", "c."], 1.0),
        ("exact_match", ["a", "b"], ["b", "a"], 0.0),
        ("exact_match", [], "x", 0.0),
        ("exact_match", 3, 3.0, 1.0),
        ("exact_match", True, 1, 0.0),
        ("exact_match", True, True, 1.0),
        ("exact_match", None, None, 1.0),
        ("exact_match", "x", None, 0.0),
        ("exact_match", Decimal("1.50"), Decimal("1.5"), 1.0),
        ("f1", "Eiffel Tower is in Paris", "Paris", 1 / 3),
        ("f1", "the Eiffel Tower", "Eiffel Tower", 1.0),
        ("f1", ["x y", "paris"], "Paris", 1.0),
        ("f1", "x", "", 0.0),
        ("f1", "", "", 0.0),
        ("f1", "x", None, 0.0),
        ("contains", "Paris", "It is PARIS.", 1.0),
        ("contains", "Rome", "It is Paris.", 0.0),
        ("contains", ["Rome", "Paris"], "It is Paris.", 1.0),
        ("contains", "b", ["a", "B"], 1.0),
        ("contains", ["a", "c"], ["a", "b"], 0.0),
        ("numeric_close", 0.3, 0.1 + 0.2, 1.0),
        ("numeric_close", "42", " 42.0 ", 1.0),
        ("numeric_close", 42, "forty-two", 0.0),
        ("numeric_close", 42, None, 0.0),
        ("numeric_close", 1, True, 0.0),
        ("numeric_close", 1.0, 1.001, 0.0),
        ("numeric_close", 10**400, 1.0, MetricError),
        ("json_match", {"a": 1, "b": "X"}, {"a": 1, "b": "x"}, 1.0),
        ("json_match", {"a": 1, "b": 2}, {"a": 1, "b": 3}, 0.5),
        ("json_match", {"a": 1}, {"a": 1, "b": 2}, 0.5),
        ("json_match", {"a": [1, 2], "b": {}}, {"a": [1], "b": {}}, 2 / 3),
        ("json_match", {}, {}, 1.0),
        ("json_match", {"a": 1}, "a", 0.0),
    ],
)
def test_a_built_in_metric_says(name: str, expected: Any, got: Any, value: Any) -> None:
    if value is MetricError:
        with pytest.raises(MetricError):
            score({"name": name}, expected, got)
    else:
        assert score({"name": name}, expected, got).value == pytest.approx(value)


def test_what_is_not_perfect_has_feedback() -> None:
    assert score({"name": "exact_match"}, "a", "a") == Score(1.0, None)
    assert score({"name": "exact_match"}, "Paris", "Rome").feedback == (
        'answer: expected "Paris", got "Rome"'
    )


def test_tolerances_are_parameters() -> None:
    close = {"name": "numeric_close", "params": {"absolute_tolerance": 0.5}}
    assert score(close, 1, 1.4).value == 1.0
    exact = {"name": "numeric_close", "params": {"relative_tolerance": 0, "absolute_tolerance": 0}}
    assert score(exact, 0.3, 0.1 + 0.2).value == 0.0


def test_an_unknown_parameter_or_field_is_refused_with_those_there_are() -> None:
    with pytest.raises(InvalidParamsError, match="Did you mean 'absolute_tolerance'"):
        score({"name": "numeric_close", "params": {"absolute_tolerence": 1}}, 1, 1)
    with pytest.raises(InvalidParamsError, match="Valid: none"):
        score({"name": "f1", "params": {"x": 1}}, 1, 1)
    with pytest.raises(InvalidParamsError, match="Did you mean 'answer'"):
        score({"name": "f1", "field": "anwser"}, 1, 1)
    with pytest.raises(InvalidParamsError, match="several outputs"):
        score({"name": "f1"}, 1, 1, outputs=("answer", "reasoning"))


def test_an_example_without_the_field_is_refused_before_anything_runs() -> None:
    metric = make_metric({"name": "f1"}, ["answer"], no_judge)
    with pytest.raises(MetricError, match="no 'answer' to compare with"):
        metric.check({"inputs": {}, "outputs": {}})


def called_back(answer: Any) -> Score:
    async def call_metric(name: str, example: Any, prediction: Any, trace: Any) -> Any:
        assert (name, prediction, trace) == ("mine", {"answer": "x"}, None)
        return answer

    async def run() -> Score:
        with dspy.context(**{METRIC_SETTING: call_metric}):
            metric = make_metric({"callback": "mine"}, ["answer"], no_judge)
            return await metric({"inputs": {}, "outputs": {}}, {"answer": "x"})

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "scored"),
    [
        (True, Score(1.0)),
        (0, Score(0.0)),
        (7.5, Score(7.5)),
        ({"score": False, "feedback": "why"}, Score(0.0, "why")),
        ({"score": 1, "feedback": None, "more": 1}, Score(1.0)),
    ],
)
def test_a_host_answers_a_number_a_boolean_or_a_score_with_feedback(
    answer: Any, scored: Score
) -> None:
    assert called_back(answer) == scored


@pytest.mark.parametrize(
    "answer",
    [None, "1", [], {}, {"score": "1"}, {"score": 1, "feedback": 2}, float("nan"), 10**400],
)
def test_any_other_answer_of_a_host_is_a_metric_error(answer: Any) -> None:
    with pytest.raises(MetricError, match="the metric 'mine' answered"):
        called_back(answer)


def judged(outputs: dict[str, Any]) -> Score:
    def judge(create: Any, field: str) -> Any:
        assert (create, field) == ({"signature": "…"}, "good")

        async def ask(inputs: Any) -> Any:
            assert inputs == {"example": {"inputs": {}, "outputs": {}}, "prediction": {"a": 1}}
            return outputs

        return ask

    metric = make_metric({"judge": {"signature": "…"}, "field": "good"}, ["a"], judge)
    return asyncio.run(call(metric, {"inputs": {}, "outputs": {}}, {"a": 1}))


def test_a_judge_scores_by_its_field_and_says_why() -> None:
    assert judged({"good": True, "reasoning": "it fits"}) == Score(1.0, "it fits")
    assert judged({"good": 0.25, "feedback": "half", "reasoning": "x"}) == Score(0.25, "half")
    with pytest.raises(MetricError, match="the judge's 'good' is no finite number"):
        judged({"good": "yes"})
