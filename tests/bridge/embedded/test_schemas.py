"""The type of a field, from what DSPy writes about it."""

import datetime
import re
import uuid
from decimal import Decimal
from typing import Any, Literal

import pytest
from dspex_bridge.engine.embedded.schemas import (
    MAX_DEPTH,
    UNKNOWN,
    allows_null,
    alternatives,
    constrain,
    described_range,
    from_expression,
    noted,
    read_expression,
    resolve,
    sound,
    stated_constraints,
)
from dspy.adapters.utils import get_annotation_name
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter


class Custom(BaseModel):
    part: int


@pytest.mark.parametrize(
    "annotation",
    [
        *(str, int, float, bool, list, dict, set, datetime.date, datetime.datetime, datetime.time),
        *(datetime.timedelta, uuid.UUID, bytes, Any, Decimal),
        *(list[str], set[int], frozenset[str], dict[str, list[int]], tuple[int, str]),
        *(tuple[int, ...], int | str, int | None, list[Literal["a", "b"] | None]),
    ],
)
def test_an_expression_has_the_schema_that_pydantic_gives_its_type(annotation: Any) -> None:
    def plain(schema: Any) -> Any:
        if isinstance(schema, list):
            return [plain(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        # Options have a type of their own in pydantic's; anything goes is said in several ways.
        kept = {key: value for key, value in schema.items() if value not in ({}, True)}
        return {k: plain(v) for k, v in kept.items() if not (k == "type" and "enum" in kept)}

    text = get_annotation_name(annotation)
    expression, end = read_expression(text)
    assert end == len(text)
    unique = {"uniqueItems": True} if annotation is set else {}
    assert plain(from_expression(expression)) | unique == (
        plain(sound(TypeAdapter(annotation).json_schema())) | unique
    )


AMBIGUOUS = re.compile(r"""\\.*['"]|['"].*\\|['"][],]""")


@settings(derandomize=True, deadline=None)
@given(
    st.lists(
        st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8)
        | st.sampled_from(["it's", '"', "a, 'b'", "x]", "", "\\"])
        | st.integers(),
        min_size=1,
        unique=True,
    )
)
def test_the_options_of_a_literal_are_read_as_they_are(options: list[Any]) -> None:
    # DSPy escapes no backslash, so with quotes beside one it cannot be told from an escape. Nor
    # does it escape a double quote, which may seem to end an option before a comma or bracket.
    options = [option for option in options if not AMBIGUOUS.search(str(option))] or [1]
    expression, _end = read_expression(get_annotation_name(Literal[tuple(options)]))
    assert list(expression.options) == options


def test_a_class_of_the_users_own_is_unknown() -> None:
    expression, _end = read_expression(get_annotation_name(list[Custom]))
    assert from_expression(expression) == {"type": "array", "items": UNKNOWN}


@pytest.mark.parametrize("text", ["", "[", "list[", "list[int", "list[,]", "Literal['a", "a[b c]"])
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # several of Python's own
        read_expression(text)


def test_expressions_nested_beyond_measure_are_refused() -> None:
    with pytest.raises(ValueError, match="no type expression"):
        read_expression("list[" * (MAX_DEPTH + 2) + "int" + "]" * (MAX_DEPTH + 2))


def test_verbatim_are_the_types_whose_text_dspy_takes_as_it_is() -> None:
    def verbatim(annotation: Any) -> bool:
        return read_expression(get_annotation_name(annotation))[0].verbatim

    assert verbatim(str)
    assert verbatim(Literal["a"])
    assert verbatim(str | None)
    assert verbatim(int | str | None)
    assert not verbatim(int | str)
    assert not verbatim(list[str])
    assert not verbatim(Literal["a"] | None)


def test_a_note_without_a_readable_schema_is_none() -> None:
    assert noted('must adhere to the JSON schema: {"type": "array"}') == {"type": "array"}
    for note in ("", "must be True or False", "must adhere to the JSON schema: [1]"):
        assert noted(note) is None
    assert noted("must adhere to the JSON schema: {" + '"a":{' * 5000) is None


def test_keywords_of_a_wrong_type_are_dropped() -> None:
    wrong = {
        "type": 3,
        "minimum": "0",
        "maximum": float("nan"),
        "minLength": -1,
        "enum": [],
        "anyOf": {},
        "properties": [],
        "items": "x",
        "required": [1],
        "pattern": None,
        "$ref": 7,
        "title": "kept",
    }
    assert sound(wrong) == {"items": {}, "title": "kept"}
    assert sound("no schema") == {}
    assert sound({"minimum": 10**400}) == {}


def test_a_schema_nested_beyond_measure_ends() -> None:
    schema: dict[str, Any] = {"type": "integer"}
    for _level in range(500):
        schema = {"type": "array", "items": schema}
    depth = 0
    checked = sound(schema)
    while "items" in checked:
        checked, depth = checked["items"], depth + 1
    assert depth == MAX_DEPTH + 1


def test_references_are_followed_within_the_schema_only() -> None:
    root = {
        "$defs": {"a/b": {"type": "integer"}, "Loop": {"$ref": "#/$defs/Loop"}},
        "properties": {"x": {"type": "string"}},
    }
    assert resolve({"$ref": "#/$defs/a~1b", "title": "T"}, root) == (
        {"type": "integer", "title": "T"},
        ("#/$defs/a~1b",),
    )
    assert resolve({"$ref": "#/properties/x"}, root)[0] == {"type": "string"}
    assert resolve({"$ref": "#/$defs/Loop"}, root)[0] == {}
    assert resolve({"$ref": "https://example.org/schema"}, root)[0] == {}
    assert resolve({"allOf": [{"$ref": "#/$defs/a~1b"}], "minimum": 1}, root)[0] == {
        "type": "integer",
        "minimum": 1,
    }
    assert resolve(True, root)[0] == {}


def test_a_list_of_types_is_a_union() -> None:
    assert alternatives({"type": ["integer", "null"]}) == [{"type": "integer"}, {"type": "null"}]
    assert allows_null({"type": ["integer", "null"]}, {})
    assert allows_null({"enum": ["a", None]}, {})
    assert not allows_null({}, {})


def test_a_union_of_itself_ends() -> None:
    root = {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]}}}
    assert not allows_null({"$ref": "#/$defs/A"}, root)


def test_constraints_are_read_as_dspy_writes_them() -> None:
    assert stated_constraints(
        "greater than or equal to: 0, less than: 1.5, minimum length: 3, "
        "a multiple of the given number: 5, allow 'inf', '-inf', 'nan' values: False"
    ) == {"minimum": 0, "exclusiveMaximum": 1.5, "minLength": 3, "multipleOf": 5}
    assert stated_constraints("minimum length: 1.5, maximum length: -2, less than: 1e99999") == {}


def test_constraints_are_read_as_the_bridge_writes_them() -> None:
    assert stated_constraints("at least 2, at most 9.5, a multiple of 0.5") == {
        "minimum": 2,
        "maximum": 9.5,
        "multipleOf": 0.5,
    }
    assert stated_constraints("at least 2 long, at most 9 long, in the format uuid") == {
        "minLength": 2,
        "maxLength": 9,
        "format": "uuid",
    }
    assert stated_constraints("exactly 3 numbers, no item twice") == {
        "minLength": 3,
        "maxLength": 3,
        "uniqueItems": True,
    }
    assert stated_constraints(
        "matching the regular expression ^a{1, 2}, b$, at least 1 long, one of: a, b; at most c"
    ) == {"pattern": "^a{1, 2}, b$", "minLength": 1, "enum": ["a, b", "at most c"]}


@pytest.mark.parametrize(
    ("description", "bounds"),
    [
        ("between 0 and 1", {"minimum": 0, "maximum": 1}),
        ("stars, 1-5", {"minimum": 1, "maximum": 5}),
        ("from -10 to 2.5", {"minimum": -10, "maximum": 2.5}),
        ("5 to 1", {}),
        ("in version v1-2b", {}),
        ("a number", {}),
    ],
)
def test_a_range_in_a_description_is_read(description: str, bounds: dict[str, float]) -> None:
    assert described_range(description) == bounds


def test_constraints_go_where_they_apply() -> None:
    lengths = {"minLength": 2, "minimum": 3}
    assert constrain({"type": "array"}, lengths) == {"type": "array", "minItems": 2}
    assert constrain({"anyOf": [{"type": "integer"}, {"type": "null"}]}, lengths) == {
        "anyOf": [{"type": "integer", "minimum": 3}, {"type": "null"}]
    }
    bounded = {"type": "integer", "minimum": 0}
    assert constrain(bounded, {"minimum": 3}) == {"type": "integer", "minimum": 3}
    assert constrain(bounded, {"minimum": 3}, gently=True) == bounded
