"""The report of an optimization, as text and as a page."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest
from dspex_bridge.commands.charts import Point, front_chart, score_chart, ticks
from dspex_bridge.commands.html_report import html_report
from dspex_bridge.commands.report import text_report
from hypothesis import given
from hypothesis import strategies as st

HOSTILE = """</pre></td></script><script>alert('1')</script><img src="x" onerror=a>&amp;"""


def state(*demos: str, instructions: str = "Answer.") -> dict[str, Any]:
    made = [{"inputs": {"q": demo}, "outputs": {"a": [1, demo]}} for demo in demos]
    return {"predictors": {"self": {"instructions": instructions, "demos": made}}}


def result(**changed: Any) -> dict[str, Any]:
    return {
        "base_program": "qa",
        "program": "qa-2",
        "score": 0.75,
        "base_score": 0.5,
        "comparison": {
            "interval": [0.5, 1.0],
            "base_interval": [0.25, 0.75],
            "difference": 0.25,
            "difference_interval": [-0.125, 0.5],
            "won": [0, 2],
            "lost": [1],
            "examples": 4,
        },
        "changes": ["self: 0 -> 1 demonstrations (0 of them bootstrapped)"],
        "trials": [
            {"trial": 0, "score": 0.5, "examples": 4},
            {"trial": 1, "score": 1.0, "examples": 2},
            {"trial": 2, "score": 0.75, "examples": 4},
            {"trial": 3, "score": None, "examples": 0},
        ],
        "best_trial": 2,
        "metric_errors": [],
        "variables": None,
        "usage": {"total_tokens": 12345},
        "cost_usd": 0.5,
        "duration_ms": 1500.0,
        "stopped": None,
        "state": state("one"),
    } | changed


EXAMPLES = [{"inputs": {"q": f"question {n}"}, "outputs": {"a": n}} for n in range(4)]


def page(told: dict[str, Any], base: dict[str, Any] | None = None, **changed: Any) -> str:
    given = {"examples": EXAMPLES, "optimizer": "labeled_few_shot", **changed}
    return html_report(told, base=base or state(), **given)


def elements(html: str) -> ElementTree.Element:
    """Fails where it is not well-formed."""
    return ElementTree.fromstring(html.removeprefix("<!DOCTYPE html>"))  # noqa: S314 - our own


def texts(html: str) -> str:
    return "".join(elements(html).itertext())


def test_the_text_shows_scores_intervals_and_what_changed() -> None:
    assert text_report(result()) == (
        "                     base            best\n"
        "score on 4 examples  0.500           0.750\n"
        "95 % interval        0.250 to 0.750  0.500 to 1.000\n"
        "\n"
        "difference: +0.250 (95 %: -0.125 to +0.500); 2 examples won, 1 lost\n"
        "changed: self: 0 -> 1 demonstrations (0 of them bootstrapped)\n"
        "(4 candidates, 12,345 tokens, $0.5000, 1.5 s)\n"
    )


def test_the_text_of_a_run_that_was_stopped_says_so_and_what_is_not_known() -> None:
    errors = [{"code": "metric_error", "message": "it is broken"}] * 2
    told = result(stopped="cancelled", base_score=None, cost_usd=None, changes=[])
    told |= {"comparison": None, "variables": {"values": {}}, "metric_errors": errors}
    assert text_report(told) == (
        "       base  best\n"
        "score  -     0.750\n"
        "\n"
        "changed: nothing\n"
        "the metric failed 2 times, first: it is broken\n"
        "stopped early (cancelled): this is the best so far\n"
        "(4 candidates, 12,345 tokens, cost unknown, 1.5 s)\n"
    )
    assert "Stopped early (cancelled)" in texts(page(told))


def test_the_text_leaves_long_changes_to_the_page() -> None:
    told = text_report(
        result(changes=[f"+line {n}" for n in range(30)], variables={"values": {"k": 3}})
    )
    assert "changed: variable k = 3\n" in told
    assert "changed: +line 18\nand 11 lines more: --html shows them\n" in told


def test_the_page_shows_the_prompts_lines_that_went_and_came() -> None:
    html = page(result(state=state("one", instructions="Be brief.")))
    tree = elements(html)
    assert [item.text for item in tree.iter("del")] == ["-Answer."]
    added = [item.text for item in tree.iter("ins")]
    assert added == ["+Be brief.", "+  q: one", '+  a: [1, "one"]', "+"]


def test_the_page_shows_the_demonstrations_that_a_module_chooses_from() -> None:
    after = {**state(), "demos": [{"inputs": {"q": "far"}, "outputs": {}}]}
    added = [item.text for item in elements(page(result(state=after))).iter("ins")]
    assert added == ["+demonstrations:", "+  q: far", "+"]


def test_the_page_shows_the_examples_that_were_won_and_lost() -> None:
    told = texts(page(result()))
    assert "Won: 2 examples" in told
    assert '{"q": "question 2"}' in told
    assert "question 3" not in told


def test_the_curve_marks_trials_on_part_of_the_examples_and_the_best() -> None:
    kinds = [item.get("class") for item in elements(page(result())).iter("circle")]
    assert kinds == ["full", "partial", "best"]


def test_the_steps_rise_with_full_trials_alone() -> None:
    points = [Point(0, 0.5, ""), Point(1, 1.0, "", "partial"), Point(2, 0.25, "")]
    tree = ElementTree.fromstring(score_chart(points, None))  # noqa: S314 - our own
    [steps] = tree.iter("polyline")
    heights = {at.partition(",")[2] for at in (steps.get("points") or "").split()}
    [first, *_] = tree.iter("circle")
    assert heights == {first.get("cy")}


def test_a_front_is_shown_where_there_is_one() -> None:
    trials = [
        {"values": {"k": 1}, "score": 0.5, "tokens": 10.0},
        {"values": {"k": 2}, "score": 0.75, "tokens": 20.0},
        {"values": {"k": 3}, "score": 0.6, "tokens": 30.0},
        {"values": {"k": 4}, "score": 0.1, "pruned": True},
    ]
    html = page(result(variables={"values": {"k": 2}, "trials": trials, "pareto": trials[:2]}))
    _, chart = elements(html).iter("svg")
    assert [item.get("class") for item in chart.iter("circle")] == ["full", "front", "front"]
    assert "score 0.75, tokens 20" in texts(html)
    assert "Pareto" not in texts(page(result()))


def test_the_page_needs_nothing_else_and_knows_light_and_dark() -> None:
    html = page(result())
    for outside in ("http", "src=", "href=", "url(", "@import", "<script", "<link"):
        assert outside not in html
    assert "prefers-color-scheme: dark" in html


def hostile(text: str) -> str:
    trial = {"values": {text: text}, "score": 0.5, "tokens": 10.0}
    told = result(
        base_program=text,
        stopped=text,
        changes=[text],
        trials=[{"trial": 0, "score": 0.5, "examples": 4, "values": {text: text}}],
        variables={
            "values": {text: text},
            "trials": [trial, {**trial, "tokens": 5.0}],
            "pareto": [trial],
        },
        state={"predictors": {text: state(text, instructions=text)["predictors"]["self"]}},
    )
    return page(
        told, examples=[{"inputs": {text: text}, "outputs": {text: text}}] * 4, optimizer=text
    )


def test_nothing_that_stands_in_the_page_is_markup() -> None:
    plain, html = hostile("plain"), hostile(HOSTILE)
    assert [item.tag for item in elements(html).iter()] == [
        item.tag for item in elements(plain).iter()
    ]
    assert texts(html).count("<script>alert") >= texts(plain).count("plain")


# XML has no form for control characters; nor do prompts.
READABLE = st.text(
    st.characters(blacklist_categories=("Cs", "Cc"), blacklist_characters="\ufffe\uffff")
)


@given(READABLE)
def test_the_page_is_well_formed_whatever_stands_in_it(text: str) -> None:
    elements(hostile(text))


@pytest.mark.parametrize(
    "points", [[], [Point(0, 0.5, "")], [Point(0, 1e9, ""), Point(1, -1e9, "")]]
)
def test_a_chart_of_any_points_stays_within_its_picture(points: list[Point]) -> None:
    for chart in (score_chart(points, None), front_chart(points, ("a", "b"))):
        for dot in ElementTree.fromstring(chart).iter("circle"):  # noqa: S314 - our own
            assert 0 <= float(dot.get("cx", "")) <= 720
            assert 0 <= float(dot.get("cy", "")) <= 300


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (-0.05, 1.05, "0.0 0.2 0.4 0.6 0.8 1.0"),
        (0.4875, 0.7625, "0.50 0.55 0.60 0.65 0.70 0.75"),
        (0.45, 0.55, "0.46 0.48 0.50 0.52 0.54"),
        (0, 4, "0 1 2 3 4"),
        (0, 19, "0 5 10 15"),
        (812.5, 5437.5, "1,000 2,000 3,000 4,000 5,000"),
        (0.00012, 0.00031, "0.00015 0.00020 0.00025 0.00030"),
        (-3e3, 3e3, "-3,000 -2,000 -1,000 0 1,000 2,000 3,000"),
    ],
)
def test_the_ticks_of_an_axis_are_round(low: float, high: float, shown: str) -> None:
    assert " ".join(text for _, text in ticks(low, high)) == shown


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_the_ticks_of_any_axis_are_few_distinct_and_within_it(low: float, span: float) -> None:
    high = low + span
    if (high - low) / max(abs(low), abs(high)) < 1e-9:
        return  # an axis that floats cannot tell apart
    told = ticks(low, high)
    assert 2 <= len(told) <= 7
    assert len({text for _, text in told}) == len(told)
    assert all(low - span * 1e-6 <= value <= high + span * 1e-6 for value, _ in told)


def test_trials_are_marked_at_whole_numbers() -> None:
    for last in range(30):
        chart = score_chart([Point(n, 0.5, "") for n in range(last + 1)], None)
        tree = ElementTree.fromstring(chart)  # noqa: S314 - our own
        marks = [item.text or "" for item in tree.iter("text") if item.get("y") == "274"]
        assert all(text.isdigit() for text in marks), marks
        assert len(marks) >= 3
