"""Patterns, literals, sessions and the page about them; integration/ plays them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dspex_bridge.conformance import client_cases, literals, patterns, player, sessions
from dspex_bridge.conformance.client_cases import CASES
from dspex_bridge.conformance.literals import from_json, is_same, to_json
from dspex_bridge.conformance.patterns import MismatchError, match
from dspex_bridge.conformance.sessions import STEPS, load_sessions
from dspex_protocol.codec import decode, encode
from dspex_protocol.errors import ERRORS
from dspex_protocol.tensor import Tensor

PAGE = Path(__file__).parents[2] / "protocol" / "CONFORMANCE.md"


# Literals


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ({"$int": "18446744073709551616"}, 2**64),
        ({"$float": "1.0"}, 1.0),
        ({"$float": "-inf"}, float("-inf")),
        ({"$bytes": "AP8="}, b"\0\xff"),
        ({"$power": [-2, 65]}, -(2**65)),
        ({"$decimal": "1.50"}, Decimal("1.50")),
        ({"$decimal": {"$text": ["1", 3]}}, Decimal(111)),
        ({"$timestamp": "2024-05-01T10:30:00Z"}, datetime(2024, 5, 1, 10, 30, tzinfo=UTC)),
        ({"$tensor": ["u8", [2], "AQI="]}, Tensor("u8", (2,), b"\1\2")),
        ({"$tensor": ["u8", [0, {"$int": "9"}], ""]}, Tensor("u8", (0, 9), b"")),
        ({"$map": [["$int", {"$float": "2.0"}]]}, {"$int": 2.0}),
        ({"$text": ["ab", 3]}, "ababab"),
        ({"$repeat": [{"$int": "1"}, 2]}, [1, 1]),
        ({"$zeros": 3}, b"\0\0\0"),
        ({"$nested": [2, {"$int": "1"}]}, [[1]]),
        ({"$nested_map": [2, "a", []]}, {"a": {"a": []}}),
        ({"a": [{"$bytes": ""}]}, {"a": [b""]}),
    ],
)
def test_a_literal_is_its_value_on_the_wire_too(literal: Any, value: Any) -> None:
    assert is_same(from_json(literal), value)
    assert is_same(from_json(to_json(value)), value)
    assert is_same(decode(encode(value)), value)


@pytest.mark.parametrize("literal", [{"$no": 1}, {"$int": "1", "b": 2}, {"a": {"$x": 1}}])
def test_what_stands_for_no_value_is_refused(literal: Any) -> None:
    with pytest.raises(ValueError, match="stands for no value"):
        from_json(literal)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (1, True),
        (0, False),
        (0.0, -0.0),
        ("a", b"a"),
        ([1], [1, 1]),
        ([1], [True]),
        ({"a": 1}, {"a": 1, "b": 1}),
        ({"a": 1}, {"a": 1.0}),
        (Decimal("1.0"), Decimal("1.00")),
        (Decimal(1), 1),
        (Tensor("u8", (1,), b"\1"), Tensor("i8", (1,), b"\1")),
        (Tensor("u8", (1,), b"\1"), [1]),
        (None, False),
    ],
)
def test_values_that_differ_on_the_wire_are_not_the_same(one: Any, other: Any) -> None:
    assert is_same(one, one)
    assert is_same(other, other)
    assert not is_same(one, other)
    assert not is_same(other, one)


def test_nan_is_the_same_as_nan() -> None:
    assert is_same([float("nan")], [float("nan")])


def test_the_literals_are_those_of_the_vectors() -> None:
    readme = PAGE.with_name("vectors") / "README.md"
    told = set(re.findall(r'^\| `\{"(\$\w+)"', readme.read_text(encoding="utf-8"), re.M))
    assert told == set(literals._TAGS)


# Patterns


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (1, 1),
        ({"$float": "nan"}, float("nan")),
        ([1, "a"], [1, "a"]),
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"a": {"b": {"$any": "nil"}}}, {"a": {"b": None}, "c": 1}),
        ({"$any": "value"}, None),
        ({"$any": "integer", "min": 1, "max": 1}, 1),
        ({"$any": "number", "min": 0}, 0.5),
        ({"$any": "string", "contains": "b"}, "abc"),
        ({"$any": "list", "items": {"$any": "integer"}, "includes": [2]}, [1, 2]),
        ({"$exactly": {"a": 1}}, {"a": 1}),
        ({"$one_of": [1, {"a": 2}]}, {"a": 2, "b": 3}),
        ({"$save": "x", "as": {"$any": "string"}}, "kept"),
    ],
)
def test_what_fits_a_pattern(pattern: Any, value: Any) -> None:
    match(pattern, value, {})


@pytest.mark.parametrize(
    ("pattern", "value", "said"),
    [
        (1, 2, "the message: expected 1, got 2"),
        (1, 1.0, "the message: expected 1, got 1.0"),
        ([1], [1, 2], "the message: expected a list of 1, got [1, 2]"),
        ([1, {"a": [2]}], [1, {"a": [3]}], "[1].a[0]: expected 2, got 3"),
        ({"a": 1}, {"b": 1}, "the message: expected the key 'a', got {\"b\": 1}"),
        ({"a": 1}, [], 'the message: expected a map with {"a": 1}, got []'),
        ({"$any": "integer"}, True, "the message: expected a value of the kind integer, got true"),
        ({"$any": "integer", "min": 3}, 2, "the message: expected min 3, got 2"),
        ({"$any": "string", "contains": "x"}, "a", 'the message: expected contains "x", got "a"'),
        ({"$any": "list", "items": 1}, [1, 2], "[1]: expected 1, got 2"),
        (
            {"$any": "list", "includes": [3]},
            [1],
            "the message: expected a list that includes 3, got [1]",
        ),
        (
            {"$exactly": {"a": 1}},
            {"a": 1, "b": 2},
            'the message: expected exactly {"a": 1}, got {"a": 1, "b": 2}',
        ),
        ({"$one_of": [1, 2]}, 3, "the message: expected one of [1, 2], got 3"),
        ({"$saved": "x"}, 2, "the message: expected 1, got 2"),
    ],
)
def test_what_does_not_fit_is_told_with_its_place(pattern: Any, value: Any, said: str) -> None:
    with pytest.raises(MismatchError) as mismatch:
        match(pattern, value, {"x": 1})
    assert str(mismatch.value) == said


def test_what_was_saved_is_the_value_that_came() -> None:
    saved: dict[str, Any] = {}
    match([{"$save": "x", "as": {"a": 1}}, {"$saved": "x"}], [{"a": 1, "b": 2}] * 2, saved)
    assert saved == {"x": {"a": 1, "b": 2}}


def test_a_long_value_is_cut_where_it_is_shown() -> None:
    with pytest.raises(MismatchError) as mismatch:
        match(1, "x" * 100_000, {})
    assert len(str(mismatch.value)) < 2000


# Sessions


def nested(value: Any) -> Iterator[Any]:
    yield value
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            yield from nested(item)


@pytest.mark.parametrize("session", load_sessions(), ids=lambda session: session.name)
def test_a_session_uses_no_word_that_nobody_knows(session: sessions.Session) -> None:
    known = {*patterns._MATCHERS, "$fill", "$int", "$float", "$bytes", "$decimal", "$timestamp"}
    known |= {"$tensor", "$map", "$text", "$repeat", "$zeros", "$nested", "$nested_map", "$power"}
    for value in nested(list(session.steps)):
        tags = [key for key in value if isinstance(value, dict) and key.startswith("$")]
        assert set(tags) <= known
        if "$any" in tags:
            assert value["$any"] in patterns._KINDS
            beside = set(value) - {"$any", "items", "includes"}
            assert beside <= set(patterns._CONDITIONS)


def test_a_step_that_is_none_is_refused() -> None:
    for step in ('{"sent": []}', '{"send": [], "expect": 1}', '{"send": [], "within_ms": 1}'):
        with pytest.raises(ValueError, match=r"session x, step 1: .* is no step"):
            sessions._session("x", f'{{"about": "", "steps": [{step}]}}')


@pytest.mark.parametrize("size", [30, 60, 61, 287, 288, 289, 65_600, 65_601, 70_000])
def test_a_sized_message_has_that_size(size: int) -> None:
    payload = player._sized([0, 1, "ping", {"payload": {"$fill": True}}], size)
    assert len(payload) == size
    assert decode(payload)[:3] == [0, 1, "ping"]


# Cases


def test_every_case_has_an_outcome_for_each_call() -> None:
    for case in CASES.values():
        assert len(case.calls) == len(case.expected) > 0
        assert set(case.needs) <= {"stream", "cancel", "timeout", "tools"}
    lasts = [case.is_last for case in CASES.values()]
    assert lasts == sorted(lasts), "those that end the bridge come at the end"


def test_the_errors_case_has_every_code() -> None:
    assert [call["inputs"]["code"] for call in CASES["errors"].calls] == list(ERRORS)


# The page


def rows(first: str) -> list[list[str]]:
    text = PAGE.read_text(encoding="utf-8") + "\n"
    start = text.index(f"| {first} |")
    table = text[start : text.index("\n\n", start)].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def test_the_page_has_every_step() -> None:
    assert [row[0].strip("`") for row in rows("step")] == list(STEPS)
    beside = {key for keys in STEPS.values() for key in keys}
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"`{key}`" in text for key in beside)


def test_the_page_has_every_pattern() -> None:
    told = " ".join(cell for row in rows("pattern") for cell in row)
    words = set(re.findall(r"\$\w+", told))
    assert words == set(patterns._MATCHERS)
    for word in (*patterns._KINDS, *patterns._CONDITIONS, "items", "includes"):
        assert f"`{word}`" in told


def test_the_page_has_every_case_and_need() -> None:
    assert [(row[0].strip("`"), row[1]) for row in rows("case")] == [
        (case.name, case.about) for case in CASES.values()
    ]
    needs = {need for case in CASES.values() for need in case.needs}
    assert {row[0].strip("`") for row in rows("need")} == needs


def test_the_page_has_every_tool_that_the_cases_call() -> None:
    source = Path(client_cases.__file__).read_text(encoding="utf-8")
    called = set(re.findall(r'_tool\(script, \w+, [^,]+, "(\w+)"', source)) - {"no_such_tool"}
    assert {row[0].strip("`") for row in rows("tool")} == called
