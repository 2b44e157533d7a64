"""What a signature looks like to others: hints to the LM, JSON Schema to clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_protocol.schema_writer import DRAFT, schema_of
from dspex_protocol.signatures import MISSING
from dspex_protocol.types import Embedding, Scalar, allows_none

if TYPE_CHECKING:
    from dspex_protocol.signatures import Field, SignatureSpec

__all__ = ["input_schema", "output_schema", "prompt_constraints"]

_PROMPTS = {
    "min": "at least {}",
    "max": "at most {}",
    "multiple_of": "a multiple of {}",
    "min_length": "at least {} long",
    "max_length": "at most {} long",
    "pattern": "matching the regular expression {}",
    "format": "in the format {}",
    "one_of": "one of: {}",
    "dimensions": "exactly {} numbers",
    "min_items": "at least {} items",
    "max_items": "at most {} items",
}


def prompt_constraints(field: Field) -> str | None:
    """What a field's type and constraints ask beyond the annotation, in words for a prompt."""
    asked = dict(field.constraints)
    match field.type:
        case Scalar("probability" | "confidence_score"):
            asked = {"min": 0, "max": 1} | asked
        case Scalar("token_count"):
            asked = {"min": 0} | asked
        case Embedding(int(dimensions)):
            asked["dimensions"] = dimensions
    words = [
        _PROMPTS[name].format(_words(value)) for name, value in asked.items() if name != "unique"
    ]
    if asked.get("unique"):
        words.append("no item twice")
    return ", ".join(words) or None


def input_schema(spec: SignatureSpec) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the inputs that a client sends."""
    required = [f.name for f in spec.inputs if f.default is MISSING and not allows_none(f.type)]
    return {**_object_schema(spec, spec.inputs, required), "additionalProperties": False}


def output_schema(spec: SignatureSpec) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of the outputs that a client gets.

    A module may add outputs of its own, such as `reasoning`: it does not close the object.
    """
    return _object_schema(spec, spec.outputs, [field.name for field in spec.outputs])


def _object_schema(
    spec: SignatureSpec, fields: tuple[Field, ...], required: list[str]
) -> dict[str, Any]:
    schema: dict[str, Any] = {"$schema": DRAFT, "type": "object"}
    if spec.name is not None:
        schema["title"] = spec.name
    if spec.instructions is not None:
        schema["description"] = spec.instructions
    schema["properties"] = {field.name: _field_schema(field) for field in fields}
    schema["required"] = required
    return schema


def _field_schema(field: Field) -> dict[str, Any]:
    schema = schema_of(field.type, field.constraints)
    if field.description is not None:
        schema["description"] = field.description
    if field.default is not MISSING:
        schema["default"] = field.default
    return schema


def _words(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
