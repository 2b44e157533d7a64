from __future__ import annotations

import datetime
import json
import typing
from decimal import Decimal
from pathlib import Path
from typing import Any

import dspy
import jsonschema  # type: ignore[import-untyped]
import pydantic
import pytest
from dspex_bridge.programs import signatures
from dspex_bridge.programs.annotations import annotation
from dspex_bridge.programs.offered_types import DSPyType, no_dspy_types
from dspex_bridge.programs.signatures import input_schema, output_schema, prompt_constraints
from dspex_protocol.errors import SignatureError
from dspex_protocol.grammar import parse_type
from dspex_protocol.signatures import (
    RESERVED_NAMES,
    RESERVED_PREFIXES,
    parse_signature,
    signature_from_map,
)
from dspex_protocol.types import DSPY_TYPES, SCALARS

VECTORS = Path(__file__).parents[2] / "protocol" / "vectors"
TYPES = json.loads((VECTORS / "types.json").read_text(encoding="utf-8"))
VALIDATION = json.loads((VECTORS / "validation.json").read_text(encoding="utf-8"))

NUMBER = r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?$"
TIME = r"^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?$"

# Of the types in the vectors, those that need no class of DSPy's own.
USABLE = sorted(
    {
        case["canonical"]
        for case in TYPES["valid"]
        if not any(name in case["canonical"] for name in DSPY_TYPES)
    }
)

# What JSON can say and JSON Schema judges: no tags, and no defaults to be filled in.
JSON_CASES = [
    case
    for case in VALIDATION["cases"]
    if case["side"] == "inputs" and '"$' not in json.dumps(case["values"])
]


def judge(schema: dict[str, Any]) -> jsonschema.Draft202012Validator:
    jsonschema.Draft202012Validator.check_schema(schema)
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    return jsonschema.Draft202012Validator(schema, format_checker=checker)


def spec_of(type_: str, **more: Any) -> Any:
    one = {"name": "x", "type": type_, **more}
    return signature_from_map({"inputs": [one], "outputs": [{**one, "name": "y"}]})


# Annotations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("str", str),
        ("int", int),
        ("float", float),
        ("bool", bool),
        ("bytes", bytes),
        ("any", Any),
        ("date", datetime.date),
        ("time", datetime.time),
        ("datetime", datetime.datetime),
        ("decimal", Decimal),
        ("probability", float),
        ("confidence_score", float),
        ("token_count", int),
        ("reasoning_chain", list[str]),
        ("embedding[3]", list[float]),
        ("tensor", Any),
        ("list", list[Any]),
        ("dict", dict[str, Any]),
        ("list[int]", list[int]),
        ("set[str]", set[str]),
        ("tuple[int]", tuple[int]),
        ("tuple[int, list[str]]", tuple[int, list[str]]),
        ("dict[int, float]", dict[int, float]),
        ('Literal["a", 1, True]', typing.Literal["a", 1, True]),
        ("int | str", typing.Union[int, str]),  # noqa: UP007
        ("str | None", typing.Optional[str]),  # noqa: UP045
    ],
)
def test_a_type_has_its_python_annotation(text: str, expected: Any) -> None:
    assert annotation(parse_type(text)) == expected


def test_every_type_that_is_a_name_has_an_annotation() -> None:
    for name in SCALARS:
        pydantic.TypeAdapter(annotation(parse_type(name)))


def test_a_type_of_dspy_is_the_class_that_the_engine_has_for_it() -> None:
    assert annotation(parse_type("list[image]"), lambda _: DSPyType(Path, Path)) == list[Path]
    with pytest.raises(SignatureError, match="the type 'image' is not supported by this version"):
        annotation(parse_type("list[image] | None"), no_dspy_types)


@pytest.mark.parametrize("text", USABLE)
def test_dspy_takes_and_prompts_with_the_annotation(text: str) -> None:
    made = annotation(parse_type(text))
    signature = dspy.Signature(
        {"question": (made, dspy.InputField()), "answer": (made, dspy.OutputField())}, "Answer."
    )
    assert signature.input_fields["question"].annotation == made
    assert signature.output_fields["answer"].annotation == made
    for adapter in (dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter()):
        messages = adapter.format(signature, demos=[], inputs={"question": None})
        assert "answer" in str(messages)


# Reserved names, against the DSPy and the Pydantic that are installed


def test_every_name_that_dspy_and_pydantic_keep_is_reserved() -> None:
    kept = {*dir(dspy.Signature), *dir(type(dspy.Signature)), *dir(pydantic.BaseModel)}
    assert sorted(name for name in kept if name[0] != "_" and name not in RESERVED_NAMES) == []


def test_every_argument_of_a_call_is_reserved() -> None:
    code = [dspy.Predict.acall, dspy.Predict._forward_postprocess, dspy.Module.acall]
    arguments = {name for function in code for name in _arguments(function)}
    assert {"self", "completions", "instance"} <= arguments
    taken = arguments - {"args", "kwargs", "signature"}
    assert sorted(name for name in taken if name not in RESERVED_NAMES) == []


def _arguments(function: Any) -> list[str]:
    code = function.__code__
    return list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])


@pytest.mark.parametrize("name", ["base", "augmented"])
def test_what_examples_of_dspy_cannot_hold_is_reserved(name: str) -> None:
    assert name in RESERVED_NAMES
    try:
        kept = dict(dspy.Example(augmented=True, **{name: "value"}))
    except TypeError:
        kept = {}
    assert kept.get(name) != "value"


def test_examples_of_dspy_hide_the_reserved_prefix() -> None:
    assert "dspy_" in RESERVED_PREFIXES
    assert dict(dspy.Example(dspy_x=1, x=1).items()) == {"x": 1}


# Hints in the prompt


@pytest.mark.parametrize(
    ("type_", "constraints", "words"),
    [
        ("str", {}, None),
        ("list[probability]", {}, None),
        ("probability", {}, "at least 0, at most 1"),
        ("probability", {"min": 0.5}, "at least 0.5, at most 1"),
        ("token_count", {}, "at least 0"),
        ("embedding[3]", {}, "exactly 3 numbers"),
        ("embedding", {"dimensions": 3}, "exactly 3 numbers"),
        ("int", {"multiple_of": 5, "one_of": [5, 10]}, "a multiple of 5, one of: 5; 10"),
        ("str", {"min_length": 1, "max_length": 9}, "at least 1 long, at most 9 long"),
        (
            "str",
            {"pattern": "^a", "format": "email"},
            "matching the regular expression ^a, in the format email",
        ),
        (
            "list",
            {"min_items": 1, "max_items": 2, "unique": True},
            "at least 1 items, at most 2 items, no item twice",
        ),
        ("list", {"unique": False}, None),
    ],
)
def test_a_prompt_says_what_the_annotation_cannot(
    type_: str, constraints: dict[str, Any], words: str | None
) -> None:
    spec = spec_of(type_, constraints=constraints)
    assert prompt_constraints(spec.outputs[0]) == words


# JSON Schema


@pytest.mark.parametrize("case", JSON_CASES, ids=lambda c: ascii(json.dumps(c["values"]))[:60])
def test_what_needs_no_conversion_fits_the_schema_and_what_is_refused_does_not(
    case: dict[str, Any],
) -> None:
    spec = signature_from_map(
        {"inputs": case["fields"], "outputs": [{"name": "other_side", "type": "str"}]}
    )
    schema = input_schema(spec)
    fits = judge(schema).is_valid(case["values"])
    if "errors" in case:
        assert not fits or _is_beyond_schema(case)
    elif json.dumps(case["values"]) == json.dumps(case["converted"]):
        # JSON Schema knows no rounding: to it 0.3 is no multiple of 0.1.
        assert fits or "multiple_of" in case["fields"][0]["constraints"]


def _is_beyond_schema(case: dict[str, Any]) -> bool:
    """Whether JSON Schema, or its validator here, cannot say why the values are refused."""
    made = case["fields"][0]
    return (
        # bin and rectangles; items that cannot be hashed; keys that mean the same number
        made["type"] in ("bytes", "tensor", "set[any]", "dict[float, str]")
        # formats that the validator knows with further packages only
        or made["type"] == "datetime"
        or case["errors"][0]["type"] == "format"
        # numbers as text, and what a float cannot hold
        or (made["type"] == "decimal" and "constraints" in made)
        or case["values"] == {"x": 2**53 + 1}
    )


def test_the_schema_of_the_inputs_says_all_that_the_signature_says() -> None:
    spec = signature_from_map(
        {
            "name": "Shop.Answer",
            "instructions": "Answer.",
            "inputs": [
                {"name": "question", "type": "str", "description": "what is asked"},
                {"name": "limit", "type": "int", "default": 5, "constraints": {"min": 1}},
                {"name": "hint", "type": "str | None", "constraints": {"max_length": 9}},
            ],
            "outputs": [{"name": "answer", "type": "str"}],
        }
    )
    assert input_schema(spec) == {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "title": "Shop.Answer",
        "description": "Answer.",
        "properties": {
            "question": {"type": "string", "description": "what is asked"},
            "limit": {"type": "integer", "minimum": 1, "default": 5},
            "hint": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]},
        },
        "required": ["question"],
        "additionalProperties": False,
    }


def test_the_schema_of_the_outputs_requires_all_and_is_open() -> None:
    schema = output_schema(parse_signature("question -> answer: str | None, score: probability"))
    assert schema["required"] == ["answer", "score"]
    assert "additionalProperties" not in schema


@pytest.mark.parametrize(
    ("type_", "constraints", "schema"),
    [
        ("any", {}, {}),
        ("bytes", {}, {"type": "string", "format": "binary"}),
        (
            "decimal",
            {"min": "0.5"},
            {"type": ["number", "string"], "pattern": NUMBER, "minimum": 0.5},
        ),
        ("time", {}, {"type": "string", "pattern": TIME}),
        (
            "str",
            {"format": "time", "pattern": "0"},
            {"type": "string", "allOf": [{"pattern": TIME}], "pattern": "0"},
        ),
        ("int", {"one_of": [1, 2]}, {"type": "integer", "enum": [1, 2]}),
        ("float", {"multiple_of": 0.5}, {"type": "number", "multipleOf": 0.5}),
        (
            "str",
            {"pattern": "^a", "format": "uri"},
            {"type": "string", "pattern": "^a", "format": "uri"},
        ),
        (
            "list",
            {"unique": True, "min_items": 1},
            {"type": "array", "uniqueItems": True, "minItems": 1},
        ),
        ("set[int]", {}, {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}),
        (
            "reasoning_chain",
            {"max_items": 3},
            {"type": "array", "items": {"type": "string"}, "maxItems": 3},
        ),
        ("dict", {"max_items": 3}, {"type": "object", "maxProperties": 3}),
        (
            "dict[date, int]",
            {},
            {
                "type": "object",
                "propertyNames": {"format": "date"},
                "additionalProperties": {"type": "integer"},
            },
        ),
        (
            'dict[Literal["a", 1, True], any]',
            {},
            {"type": "object", "propertyNames": {"enum": ["a", "1", "true"]}},
        ),
        (
            "embedding",
            {"dimensions": 3},
            {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
        ),
        ('Literal["a", "b"]', {}, {"type": "string", "enum": ["a", "b"]}),
        ('Literal["a", 1, None]', {}, {"enum": ["a", 1, None]}),
        (
            "tuple[int, str]",
            {},
            {
                "type": "array",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "items": False,
                "minItems": 2,
            },
        ),
        ("image", {}, {"type": "string", "format": "image"}),
        (
            'code["c++"]',
            {},
            {"type": "string", "format": "code", "contentMediaType": "text/x-c++"},
        ),
    ],
)
def test_a_field_has_its_schema(
    type_: str, constraints: dict[str, Any], schema: dict[str, Any]
) -> None:
    made = input_schema(spec_of(type_, constraints=constraints))
    assert made["properties"]["x"] == schema
    judge(made)


def test_schemas_share_nothing_with_one_another() -> None:
    first = input_schema(spec_of("list[str]"))
    first["properties"]["x"]["items"]["type"] = "changed"
    first["properties"]["x"]["type"] = "changed"
    second = input_schema(spec_of("reasoning_chain"))
    second["properties"]["x"]["items"]["type"] = "changed"
    for type_ in ("list[str]", "reasoning_chain"):
        made = input_schema(spec_of(type_))["properties"]["x"]
        assert made == {"type": "array", "items": {"type": "string"}}


def test_everything_public_is_listed() -> None:
    assert [name for name in signatures.__all__ if not hasattr(signatures, name)] == []
