"""Does a value satisfy a schema, and if nearly, what would."""

from typing import Any

import pytest
from dspex_bridge.engine.embedded.conform import MISSING, conform


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "integer"}, 4, 4),
        ({"type": "integer"}, "4", 4),
        ({"type": "integer"}, 4.0, 4),
        ({"type": "integer"}, 4.5, MISSING),
        ({"type": "integer"}, True, MISSING),
        ({"type": "integer"}, "9" * 5000, MISSING),
        ({"type": "number"}, "-1.5e3", -1500.0),
        ({"type": "number"}, float("inf"), MISSING),
        ({"type": "number"}, "1e999", MISSING),
        ({"type": "number", "format": "decimal"}, "1.50", "1.50"),
        ({"type": "number", "format": "decimal"}, "one", MISSING),
        ({"type": "number", "minimum": 0, "exclusiveMaximum": 1}, 1, MISSING),
        ({"type": "number", "multipleOf": 0.1}, 0.3, 0.3),
        ({"type": "integer", "multipleOf": 5}, 12, MISSING),
        ({"type": "integer", "multipleOf": 0.5}, 10**400, MISSING),
        ({"type": "boolean"}, "True", True),
        ({"type": "boolean"}, 1, MISSING),
        ({"type": "string"}, 3, MISSING),
        ({"type": "string", "maxLength": 2}, "abc", MISSING),
        ({"type": "string", "pattern": "^a+$"}, "aa", "aa"),
        ({"type": "string", "pattern": "^a+$"}, "ab", MISSING),
        ({"type": "string", "pattern": "(?=x)"}, "x", MISSING),
        ({"type": "string", "format": "date"}, "2024-02-29", "2024-02-29"),
        ({"type": "string", "format": "date"}, "2023-02-29", MISSING),
        ({"type": "string", "format": "date"}, "2024-W01-1", MISSING),
        ({"type": "string", "format": "duration"}, "P1DT2H", "P1DT2H"),
        ({"type": "string", "format": "duration"}, "0", MISSING),
        ({"type": "string", "format": "ipv4"}, "256.1.1.1", MISSING),
        ({"type": "string", "format": "ipv6"}, "::1", "::1"),
        ({"type": "string", "format": "hostname"}, "-a", MISSING),
        ({"type": "string", "format": "made-up"}, "anything", "anything"),
        ({"type": "null"}, None, None),
        ({"type": "null"}, "", MISSING),
        ({"const": 1}, True, MISSING),
        ({"enum": ["a", 1, None]}, " a ", "a"),
        ({"enum": ["a", 1, None]}, "1", 1),
        ({"enum": ["a", 1, None]}, None, None),
        ({"enum": ["a"]}, "b", MISSING),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, "5", "5"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "5", 5),
        ({"type": "array", "items": {"type": "integer"}}, ["1", 2], [1, 2]),
        ({"type": "array", "items": {"type": "integer"}}, ["x"], MISSING),
        ({"type": "array", "maxItems": 1}, [1, 2], MISSING),
        ({"type": "array", "uniqueItems": True}, [1, 1], MISSING),
        ({"type": "array", "prefixItems": [{"type": "integer"}, {}]}, ["1", "x"], [1, "x"]),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, {"a": "1", "b": 2}, None),
        ({"type": "object", "additionalProperties": False}, {"b": 2}, {}),
        ({"type": "object", "required": ["a"]}, {"a": None}, {"a": None}),
        ({"type": "object"}, [], MISSING),
        ({"x-unknown": True}, None, MISSING),
        ({}, {"any": "thing"}, {"any": "thing"}),
    ],
)
def test_values_and_schemas(schema: dict[str, Any], value: Any, expected: Any) -> None:
    if schema.get("properties"):
        expected = {"a": 1, "b": 2}
    found = conform(value, schema)
    assert found == expected
    assert type(found) is type(expected)


def test_a_property_that_is_only_required_by_a_strict_format_may_be_left_out() -> None:
    parts = {"a": {"type": "integer", "default": 3}, "b": {"type": ["string", "null"]}}
    schema = {"type": "object", "properties": parts, "required": ["a", "b"]}
    assert conform({}, schema) == {"b": None}
    assert conform({}, {**schema, "required": ["c"], "properties": {"c": {"type": "integer"}}}) is (
        MISSING
    )


def test_a_union_of_itself_ends_without_a_value() -> None:
    reference = {"$ref": "#/$defs/A"}
    schema = {"$defs": {"A": {"anyOf": [reference] * 3}}, **reference}
    assert conform(1, schema) is MISSING


def test_values_nested_beyond_measure_are_refused() -> None:
    value: Any = 1
    for _level in range(500):
        value = [value]
    nested = {"$defs": {"L": {"type": "array", "items": {"$ref": "#/$defs/L"}}}}
    assert conform(value, {}) is MISSING
    assert conform(value, {**nested, "$ref": "#/$defs/L"}) is MISSING


def test_references_are_followed_into_the_root() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]}},
        "required": ["next"],
    }
    schema = {"$defs": {"Node": node}, "$ref": "#/$defs/Node"}
    chain = {"next": {"next": None}}
    assert conform(chain, schema) == chain
    assert conform({"next": 3}, schema) is MISSING
