from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dspex_bridge.programs.function_schemas import function_schemas
from dspex_bridge.programs.signatures import input_schema
from dspex_protocol.signatures import signature_from_map, signature_from_wire
from hypothesis import given, settings
from hypothesis import strategies as st

# A slow machine is no failure.
patient = settings(deadline=None)

VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol" / "vectors" / "function_schemas.json").read_text()
)

# As OpenAI documents strict mode, written down apart from the code.
STRICT = {
    *("type", "enum", "anyOf", "description", "pattern", "format", "minimum", "maximum"),
    *("multipleOf", "items", "minItems", "maxItems", "properties", "required"),
    "additionalProperties",
}
FORMATS = {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"}


def check_strict(schema: dict[str, Any], depth: int = 0) -> None:
    assert set(schema) <= STRICT, schema
    assert schema.get("format", "date") in FORMATS
    assert "type" in schema or "anyOf" in schema or "enum" in schema
    for member in schema.get("anyOf", []):
        check_strict(member, depth)
    if schema.get("type") == "object":
        assert depth < 10
        assert schema["additionalProperties"] is False
        assert schema["required"] == list(schema["properties"])
        for item in schema["properties"].values():
            check_strict(item, depth + 1)
    if schema.get("type") == "array":
        check_strict(schema["items"], depth)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_a_signature_is_the_function_that_the_vectors_say(case: dict[str, Any]) -> None:
    made = function_schemas(signature_from_wire(case["signature"]), case["program"])
    assert made == case["schemas"]


def test_the_vectors_are_strict_and_not() -> None:
    strict = {case["schemas"]["openai"]["strict"] for case in VECTORS["cases"]}
    assert strict == {True, False}


def schema_of(item: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a field's type."""
    spec = signature_from_map(
        {"inputs": [{"name": "x", **item}], "outputs": [{"name": "y", "type": "str"}]}
    )
    properties: dict[str, Any] = input_schema(spec)["properties"]
    return dict(properties["x"])


types = st.recursive(
    st.sampled_from(
        [
            *("str", "int", "float", "bool", "bytes", "any", "date", "time", "datetime"),
            *("decimal", "image", "history", "code", "tool_calls", "dict", "embedding[3]"),
            *('Literal["a", 1, True]', "set[str]", "tuple[int, str]", "reasoning_chain"),
        ]
    ).map(lambda text: {"type": text}),
    lambda inner: st.one_of(
        st.dictionaries(st.sampled_from(["a", "b-c", "d"]), inner.map(schema_of), max_size=3).map(
            lambda properties: {"type": {"type": "object", "properties": properties}}
        ),
        inner.map(lambda item: {"type": {"type": "array", "items": schema_of(item)}}),
    ),
    max_leaves=6,
)


@patient
@given(st.lists(types, min_size=1, max_size=3))
def test_what_is_called_strict_keeps_to_the_rules_of_strict_mode(items: list[Any]) -> None:
    fields = [{"name": f"x{i}", **item} for i, item in enumerate(items)]
    spec = signature_from_map({"inputs": fields, "outputs": [{"name": "y", "type": "str"}]})
    made = function_schemas(spec, "p")
    assert made["openai_chat"]["function"] == {
        key: value for key, value in made["openai"].items() if key != "type"
    }
    assert made["anthropic"]["input_schema"]["required"] == [field["name"] for field in fields]
    if made["openai"]["strict"]:
        check_strict(made["openai"]["parameters"])
    else:
        assert made["openai"]["parameters"] == made["anthropic"]["input_schema"]


def test_deep_objects_are_not_strict() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(9):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    assert is_strict(schema)
    assert not is_strict({"type": "object", "properties": {"a": schema}, "required": ["a"]})


def test_many_values_are_not_strict() -> None:
    assert is_strict({"enum": list(range(1000))})
    enum = {"enum": list(range(501))}
    twice = {"type": "object", "properties": {"a": enum, "b": enum}}
    assert not is_strict(twice)


def is_strict(schema: dict[str, Any]) -> bool:
    fields = [{"name": "x", "type": schema}]
    spec = signature_from_map({"inputs": fields, "outputs": [{"name": "y", "type": "str"}]})
    return bool(function_schemas(spec, "p")["openai"]["strict"])
