"""Objects as Pydantic models, as DSPy's adapters are given them."""

from __future__ import annotations

import datetime
import json
from typing import Any

import dspy
import pydantic
import pytest
from dspex_bridge.programs import annotations as annotations_module
from dspex_bridge.programs import object_models
from dspex_bridge.programs.annotations import annotation
from dspex_bridge.programs.converters import OutputConverter
from dspex_bridge.programs.wire_values import to_wire
from dspex_protocol.schema_reader import field_of_schema
from dspex_protocol.signatures import RESERVED_NAMES, signature_from_map
from dspy.adapters.baml_adapter import BAMLAdapter
from hypothesis import given, settings
from hypothesis import strategies as st

# A slow machine is no failure.
patient = settings(deadline=None)

ADDRESS = {
    "type": "object",
    "title": "Address!",
    "description": "Where somebody lives.",
    "properties": {
        "street": {"type": "string", "minLength": 1, "description": "with the number"},
        "since": {"type": "string", "format": "date"},
        "first-name": {"type": "string"},
    },
    "required": ["street"],
}


def made(schema: Any) -> Any:
    return annotation(field_of_schema(schema).type)


def test_a_model_has_the_schema_of_its_object() -> None:
    model = made(ADDRESS)
    assert model.__name__ == "Address"
    schema = pydantic.TypeAdapter(model).json_schema()
    assert {key: schema[key] for key in ADDRESS} == ADDRESS
    nested = pydantic.TypeAdapter(made({"type": "array", "items": ADDRESS})).json_schema()
    assert "minLength" in json.dumps(nested)
    numbers = made({"type": "array", "items": {"type": "integer", "minimum": 3}})
    schema = pydantic.TypeAdapter(numbers).json_schema()
    assert schema["items"] == {"type": "integer", "minimum": 3}


def test_what_was_not_given_stays_left_out_and_others_are_kept() -> None:
    value = pydantic.TypeAdapter(made(ADDRESS)).validate_python(
        {"street": "A 1", "first-name": "Ann", "other": [1]}
    )
    assert to_wire(value) == {"street": "A 1", "first-name": "Ann", "other": [1]}
    value = pydantic.TypeAdapter(made(ADDRESS)).validate_python(
        {"street": "A 1", "since": "2024-02-29"}
    )
    assert value.since == datetime.date(2024, 2, 29)
    assert to_wire(value) == {"street": "A 1", "since": "2024-02-29"}


names = st.text(max_size=8) | st.sampled_from(
    [*RESERVED_NAMES, "class", "names", "as_map", "schema_of_map", "_x", "x_", "__init__", "É", ""]
)


@patient
@given(st.dictionaries(names, st.none() | st.integers() | st.text(max_size=3), max_size=5))
def test_any_name_may_be_that_of_a_property(values: dict[str, Any]) -> None:
    schema = {
        "type": "object",
        "properties": dict.fromkeys(values, True),
        "required": list(values),
        "additionalProperties": False,
    }
    model = made(schema)
    value = pydantic.TypeAdapter(model).validate_python(values)
    assert to_wire(value) == values
    spec = signature_from_map(
        {"inputs": [{"name": "q", "type": "str"}], "outputs": [{"name": "a", "type": schema}]}
    )
    assert OutputConverter(spec).convert({"a": value}) == {"a": values}


@pytest.mark.parametrize(
    "adapter", [dspy.ChatAdapter(), dspy.JSONAdapter(), dspy.XMLAdapter(), BAMLAdapter()]
)
def test_every_adapter_prompts_with_objects(adapter: Any) -> None:
    schema = {"type": "object", "properties": {"one": ADDRESS, "two": ADDRESS}}
    signature = dspy.Signature(
        {"q": (made(ADDRESS), dspy.InputField()), "a": (made(schema), dspy.OutputField())}, "Do."
    )
    messages = adapter.format(signature, demos=[], inputs={"q": {"street": "A 1"}})
    assert "street" in str(messages)
    assert "A 1" in messages[-1]["content"]


@pytest.mark.parametrize("module", [annotations_module, object_models])
def test_everything_public_is_listed(module: Any) -> None:
    assert [name for name in module.__all__ if not hasattr(module, name)] == []
