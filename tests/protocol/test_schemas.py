"""JSON Schema as a field's type."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol import schema_kinds, schema_overlap, schema_reader, schema_writer
from dspex_protocol.errors import SignatureError
from dspex_protocol.grammar import MAX_TYPE_DEPTH, parse_type
from dspex_protocol.schema_keywords import KEYWORDS, UNSUPPORTED
from dspex_protocol.schema_reader import MAX_ALTERNATIVES, field_of_schema
from dspex_protocol.schema_writer import schema_of
from dspex_protocol.signature_size import MAX_CHARS, MAX_PATTERNS, MAX_TYPES, MAX_VALUES
from dspex_protocol.signatures import (
    Field,
    SignatureSpec,
    signature_from_map,
    signature_from_wire,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

# A slow machine is no failure.
patient = settings(deadline=None)

VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol" / "vectors" / "schemas.json").read_text(
        encoding="utf-8"
    )
)


def signature(type_: Any, **more: Any) -> SignatureSpec:
    field = {"name": "x", "type": type_, **more}
    return signature_from_map({"inputs": [field], "outputs": [{"name": "y", "type": "str"}]})


def field(type_: Any, **more: Any) -> Field:
    return signature(type_, **more).inputs[0]


def refusal(schema: Any, **more: Any) -> SignatureError:
    with pytest.raises(SignatureError) as caught:
        field(schema, **more)
    return caught.value


def _id(case: dict[str, Any]) -> str:
    return str(case.get("name") or ascii(json.dumps(case["schema"])))[:80]


@pytest.mark.parametrize("case", VECTORS["valid"], ids=_id)
def test_a_schema_is_the_field_that_the_vectors_say(case: dict[str, Any]) -> None:
    assert field(case["schema"]).to_map() == {"name": "x", **case["field"]}


@pytest.mark.parametrize("case", VECTORS["valid"], ids=_id)
def test_what_is_written_of_a_schema_is_read_as_the_same_field(case: dict[str, Any]) -> None:
    once = field(case["schema"])
    again = signature_from_map(signature(case["schema"]).to_map()).inputs[0]
    assert again == once
    assert hash(again.type) == hash(once.type)


@pytest.mark.parametrize("case", VECTORS["invalid"], ids=_id)
def test_what_has_no_type_is_refused_at_its_place(case: dict[str, Any]) -> None:
    error = refusal(case["schema"])
    assert error.data["path"] == ["inputs", 0, "type", *case["path"]]
    assert len(str(error).splitlines()) == 1


def test_the_vectors_have_every_keyword() -> None:
    text = json.dumps(VECTORS["valid"])
    assert [key for keys in KEYWORDS.values() for key in keys if f'"{key}"' not in text] == []


@pytest.mark.parametrize("keyword", sorted(UNSUPPORTED))
def test_a_keyword_that_no_type_can_stand_for_is_refused_everywhere(keyword: str) -> None:
    assert refusal({"type": "string", keyword: {}}).data["path"][-1] == keyword
    inside = {"type": "array", "items": {"type": "object", "properties": {"a": {keyword: {}}}}}
    assert refusal(inside).data["path"][-1] == keyword


def test_references_that_multiply_are_bounded() -> None:
    doubling = {
        f"l{i}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/l{i + 1}"}] * 4}
        | {"items": False, "minItems": 4}
        for i in range(12)
    }
    schema = {"$ref": "#/$defs/l0", "$defs": {**doubling, "l12": {"type": "string"}}}
    assert f"at most {MAX_TYPES} types" in str(refusal(schema))


def of_fields(count: int, type_: Any) -> dict[str, Any]:
    """A signature with so many inputs of a type."""
    fields = [{"name": f"f{i}", "type": type_} for i in range(count)]
    return {"inputs": fields, "outputs": [{"name": "y", "type": "str"}]}


def referred(count: int, leaf: Any) -> dict[str, Any]:
    """An object whose properties all refer to one schema."""
    properties = {f"p{i}": {"$ref": "#/$defs/leaf"} for i in range(count)}
    return {"type": "object", "properties": properties, "$defs": {"leaf": leaf}}


TEXTS = {"type": "array", "items": {"type": "string"}}
TAGGED = [
    {
        "type": "object",
        "required": ["same", "kind"],
        "properties": {
            **{f"p{i}": {"const": 1} for i in range(3)},
            "same": {"const": 1},
            "kind": {"const": kind},
        },
    }
    for kind in range(250)
]


@pytest.mark.parametrize(
    ("signature", "limit"),
    [
        (of_fields(8, referred(250, {"type": "string"})), f"{MAX_TYPES} types"),
        (of_fields(8, f"tuple[{', '.join(['int'] * 300)}]"), f"{MAX_TYPES} types"),
        (
            ", ".join(f"f{i}: tuple[{', '.join(['int'] * 20)}]" for i in range(250)),
            f"{MAX_TYPES} types",
        ),
        (
            of_fields(1, referred(250, {"enum": [str(i) for i in range(1000)]})),
            f"{MAX_VALUES} values",
        ),
        (of_fields(200, {"enum": [str(i) for i in range(1000)]}), f"{MAX_VALUES} values"),
        (of_fields(9, f"Literal[{', '.join(map(str, range(1500)))}]"), f"{MAX_VALUES} values"),
        (
            of_fields(1, referred(250, {"type": "string", "pattern": r"\w{1,100}"})),
            f"{MAX_PATTERNS} patterns",
        ),
        (
            {
                "inputs": [
                    {"name": f"f{i}", "type": "str", "constraints": {"pattern": r"\w{1,100}"}}
                    for i in range(200)
                ],
                "outputs": [{"name": "y", "type": "str"}],
            },
            f"{MAX_PATTERNS} patterns",
        ),
        (of_fields(1, referred(250, {"description": "x" * 10_000})), f"{MAX_CHARS} characters"),
        (of_fields(1, referred(250, {"default": [["x"] * 10] * 1000})), f"{MAX_CHARS} characters"),
        (of_fields(1, {"enum": ["x" * 1_000_000, "y"]}), f"{MAX_CHARS} characters"),
        (of_fields(1, {"default": [0] * 10_000_000}), f"{MAX_CHARS} characters"),
        (of_fields(1, {"$ref": "#/" + "$defs/" * 1_000_000}), f"{MAX_CHARS} characters"),
        (of_fields(1, {"anyOf": [TEXTS] * (MAX_ALTERNATIVES + 1)}), f"1 to {MAX_ALTERNATIVES}"),
        (of_fields(1, {"oneOf": TAGGED}), "takes too long"),
        (of_fields(1, {"type": ["string"] * 5_000_000}), "each once"),
        (
            of_fields(
                1, {"type": "object", "properties": {"a": True}, "required": ["a"] * 5_000_000}
            ),
            "at most 256 names",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 40 else "",
)
def test_what_one_signature_costs_is_bounded_and_refused_at_once(
    signature: Any, limit: str
) -> None:
    began = time.process_time()
    with pytest.raises(SignatureError, match=limit):
        signature_from_wire(signature if isinstance(signature, dict) else f"{signature} -> y")
    # On any machine: what is not bounded takes seconds.
    assert time.process_time() - began < 1


def test_a_signature_may_be_as_large_as_its_limits() -> None:
    # An object, its other properties, and 249 references to a schema each; the output.
    types = MAX_TYPES - 1 - 3 * 500
    fields = of_fields(3, referred(249, {"type": "string"}))
    last = {"name": "last", "type": f"tuple[{', '.join(['int'] * (types - 1))}]"}
    fields["inputs"].append(last)
    assert len(signature_from_map(fields).inputs) == 4
    last["type"] = f"tuple[{', '.join(['int'] * types)}]"
    with pytest.raises(SignatureError) as refused:
        signature_from_map(fields)
    assert refused.value.data["path"] in (["inputs", 3, "type"], ["outputs", 0, "type"])
    several = of_fields(5, {"enum": [str(i) for i in range(MAX_VALUES // 5)]})
    assert signature_from_map(several)
    several["outputs"][0]["constraints"] = {"one_of": ["one more"]}
    with pytest.raises(SignatureError, match="values"):
        signature_from_map(several)


def test_schemas_nest_as_deep_as_types_do() -> None:
    def nested(depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        for _ in range(depth):
            schema = {"type": "array", "items": schema}
        return schema

    assert str(field(nested(MAX_TYPE_DEPTH)).type).count("[") == MAX_TYPE_DEPTH
    assert f"at most {MAX_TYPE_DEPTH} deep" in str(refusal(nested(MAX_TYPE_DEPTH + 1)))
    assert "deep" in str(refusal(nested(400)))


def test_what_the_field_says_goes_before_what_its_schema_says() -> None:
    schema = {"type": "integer", "description": "of the schema", "default": 1, "minimum": 0}
    made = field(schema, description="of the field", default=2, constraints={"max": 5})
    assert made.description == "of the field"
    assert made.default == 2
    assert made.constraints == {"min": 0, "max": 5}
    assert "min stands here and in the type's JSON Schema" in str(
        refusal(schema, constraints={"min": 1})
    )


# Types and schemas at random

type_texts = st.recursive(
    st.sampled_from(
        [
            *("str", "int", "float", "bool", "bytes", "any", "date", "time", "datetime"),
            *("decimal", "image", "history", "code", "tool_calls", 'code["c"]'),
            *('Literal["a", 1, True]', "Literal[None]"),
        ]
    ),
    lambda inner: st.one_of(
        inner.map("list[{}]".format),
        st.lists(inner, min_size=1, max_size=2).map(lambda ts: f"tuple[{', '.join(ts)}]"),
        st.tuples(st.sampled_from(["str", "int", "bool", "date"]), inner).map(
            lambda kv: f"dict[{kv[0]}, {kv[1]}]"
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda ts: " | ".join([*ts, "None"])),
    ),
    max_leaves=5,
)


@patient
@given(type_texts)
def test_the_schema_of_a_type_is_read_as_that_type(text: str) -> None:
    type_ = parse_type(text)
    read = field_of_schema(schema_of(type_))
    # 12 and -12 are the text of an int's key and of a float's, whose schemas are alike.
    assert str(read.type) == str(type_)
    assert read.constraints == {}


plain = st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3)
words = st.sampled_from(
    sorted(
        {key for keys in KEYWORDS.values() for key in keys}
        | {"type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref", "$defs", "title", "default"}
        | {"description", "$schema", "not", "x"}
    )
)
values = st.sampled_from([*KEYWORDS, "#", "#/$defs/x", "#/items", "date", "email"])
schemas = st.recursive(
    plain | values,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(words, inner, max_size=4),
        st.fixed_dictionaries(
            {"type": st.sampled_from(sorted(KEYWORDS))}, optional={"items": inner}
        ),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(words, inner)}
        ),
    ),
    max_leaves=12,
)


@patient
@given(st.dictionaries(words, schemas, max_size=5))
@example({"type": [["string"]]})
@example({"type": {"a": 1}})
@example({"enum": [float("nan")], "type": "number"})
@example({"type": "integer", "minimum": float("inf")})
@example({"type": "string", "format": ["email"]})
@example({"type": "array", "format": ["history"]})
@example({"type": "object", "properties": {"a": {}}, "required": [["a"]]})
@example({"$ref": "#/" + "9" * 5000})
@example({"$ref": "#/enum/0", "enum": [{}]})
def test_any_map_is_a_type_or_is_refused_with_its_place(schema: dict[str, Any]) -> None:
    made = field_or_refusal(schema)
    if isinstance(made, SignatureError):
        assert made.data["path"][:2] == ["inputs", 0]
    else:
        assert signature_from_map(signature(schema).to_map()).inputs[0] == made


def field_or_refusal(schema: Any) -> Field | SignatureError:
    try:
        return field(schema)
    except SignatureError as error:
        return error


def test_everything_public_is_listed() -> None:
    for module in (schema_kinds, schema_overlap, schema_reader, schema_writer):
        assert [name for name in module.__all__ if not hasattr(module, name)] == []
