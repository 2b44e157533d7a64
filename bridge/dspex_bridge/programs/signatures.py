"""What a signature looks like to others: annotations and hints to DSPy, JSON Schema to clients."""

from __future__ import annotations

import datetime
import typing
from copy import deepcopy
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import SignatureError
from dspex_protocol.signatures import MISSING
from dspex_protocol.types import (
    DSPY_TYPES,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    Null,
    Scalar,
    SetOf,
    TupleOf,
    Type,
    Union,
    allows_none,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_protocol.signatures import Field, SignatureSpec

__all__ = [
    "NO_DSPY_TYPES",
    "annotation",
    "dspy_class",
    "input_schema",
    "output_schema",
    "prompt_constraints",
]

#: Of an engine that offers none of DSPy's own types.
NO_DSPY_TYPES: Mapping[str, type] = {}

# Generic aliases made at run time are no types to a type checker.
_list_form: Any = list
_set_form: Any = set
_tuple_form: Any = tuple
_dict_form: Any = dict
_literal_form: Any = typing.Literal
_union_form: Any = typing.Union

_DRAFT = "https://json-schema.org/draft/2020-12/schema"


# JSON Schema's own format "time" is another one: it has an offset.
_TIME = "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,9})?)?$"
_NUMBER = "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"


@dataclass(frozen=True, slots=True)
class _Scalar:
    annotation: Any
    schema: dict[str, Any]


_SCALARS: dict[str, _Scalar] = {
    "str": _Scalar(str, {"type": "string"}),
    "int": _Scalar(int, {"type": "integer"}),
    "float": _Scalar(float, {"type": "number"}),
    "bool": _Scalar(bool, {"type": "boolean"}),
    "bytes": _Scalar(bytes, {"type": "string", "format": "binary"}),
    "any": _Scalar(Any, {}),
    "date": _Scalar(datetime.date, {"type": "string", "format": "date"}),
    "time": _Scalar(datetime.time, {"type": "string", "pattern": _TIME}),
    "datetime": _Scalar(datetime.datetime, {"type": "string", "format": "date-time"}),
    "decimal": _Scalar(Decimal, {"type": ["number", "string"], "pattern": _NUMBER}),
    "probability": _Scalar(float, {"type": "number", "minimum": 0, "maximum": 1}),
    "confidence_score": _Scalar(float, {"type": "number", "minimum": 0, "maximum": 1}),
    "token_count": _Scalar(int, {"type": "integer", "minimum": 0}),
    "reasoning_chain": _Scalar(list[str], {"type": "array", "items": {"type": "string"}}),
    "tensor": _Scalar(Any, {"type": "array"}),
}

# Keys travel as text.
_KEY_SCHEMAS: dict[str, dict[str, Any]] = {
    "int": {"pattern": "^-?(0|[1-9][0-9]*)$"},
    "float": {"pattern": _NUMBER},
    "decimal": {"pattern": _NUMBER},
    "bool": {"enum": ["true", "false"]},
    "date": {"format": "date"},
    "time": {"pattern": _TIME},
    "datetime": {"format": "date-time"},
}

_JSON_TYPES: dict[type, str] = {str: "string", int: "integer", bool: "boolean", type(None): "null"}

_SCHEMA_KEYS = {
    "min": "minimum",
    "max": "maximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
    "format": "format",
    "unique": "uniqueItems",
    "min_items": "minItems",
    "max_items": "maxItems",
}

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


def annotation(type_: Type, dspy_types: Mapping[str, type] = NO_DSPY_TYPES) -> Any:
    """The Python annotation of a type, as `dspy.Signature({name: (annotation, field)})` takes it.

    It carries no constraints: DSPy shall hand over what the LM said, and the output's converter
    judges it. `dspy_types` maps the names of DSPy's own types to classes; SignatureError for one
    that is not in it.
    """
    match type_:
        case Scalar(name) if name in DSPY_TYPES:
            return dspy_class(name, dspy_types)
        case Scalar(name):
            return _SCALARS[name].annotation
        case Embedding():
            return list[float]
        case ListOf(item):
            return _list_form[annotation(item, dspy_types)]
        case SetOf(item):
            return _set_form[annotation(item, dspy_types)]
        case TupleOf(items):
            return _tuple_form[tuple(annotation(item, dspy_types) for item in items)]
        case DictOf(key, value):
            return _dict_form[annotation(key, dspy_types), annotation(value, dspy_types)]
        case Literal(values):
            return _literal_form[values]
        case Union(members):
            return _union_form[tuple(annotation(member, dspy_types) for member in members)]
        case Null():
            return type(None)
    raise AssertionError(f"a type without an annotation: {type_!r}")


def dspy_class(name: str, dspy_types: Mapping[str, type]) -> type:
    """The class of one of DSPy's own types. Raises SignatureError where the engine has none."""
    try:
        return dspy_types[name]
    except KeyError:
        raise SignatureError(f"the type {name!r} is not supported by this version") from None


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
    schema: dict[str, Any] = {"$schema": _DRAFT, "type": "object"}
    if spec.name is not None:
        schema["title"] = spec.name
    if spec.instructions is not None:
        schema["description"] = spec.instructions
    schema["properties"] = {field.name: _field_schema(field) for field in fields}
    schema["required"] = required
    return schema


def _field_schema(field: Field) -> dict[str, Any]:
    schema = _schema(field.type, field.constraints)
    if field.description is not None:
        schema["description"] = field.description
    if field.default is not MISSING:
        schema["default"] = field.default
    return schema


def _schema(type_: Type, constraints: Mapping[str, Any]) -> dict[str, Any]:
    match type_:
        case Union(members):
            return {"anyOf": [_schema(member, constraints) for member in members]}
        case Null():
            return {"type": "null"}
        case Scalar(name) if name in DSPY_TYPES:
            return {"title": name}  # its forms are DSPy's own
        case Scalar(name):
            return {**deepcopy(_SCALARS[name].schema), **_constraint_schema(constraints)}
        case Embedding(dimensions):
            size = constraints.get("dimensions", dimensions)
            bounds = {} if size is None else {"minItems": size, "maxItems": size}
            return {"type": "array", "items": {"type": "number"}, **bounds}
        case ListOf(item):
            items = {} if item == Scalar("any") else {"items": _schema(item, {})}
            return {"type": "array", **items, **_constraint_schema(constraints)}
        case SetOf(item):
            bounds = _constraint_schema(constraints)
            return {"type": "array", "items": _schema(item, {}), "uniqueItems": True, **bounds}
        case TupleOf(items):
            prefix = [_schema(item, {}) for item in items]
            return {"type": "array", "prefixItems": prefix, "items": False, "minItems": len(items)}
        case DictOf(key, value):
            return _dict_schema(key, value, constraints)
        case Literal(values):
            kinds = {_JSON_TYPES[type(value)] for value in values}
            kind = {"type": kinds.pop()} if len(kinds) == 1 else {}
            return {**kind, "enum": list(values)}
    raise AssertionError(f"a type without a schema: {type_!r}")


def _dict_schema(key: Type, value: Type, constraints: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    if isinstance(key, Literal):
        schema["propertyNames"] = {"enum": [_key_text(v) for v in key.values]}
    elif isinstance(key, Scalar) and key.name in _KEY_SCHEMAS:
        schema["propertyNames"] = dict(_KEY_SCHEMAS[key.name])
    if value != Scalar("any"):
        schema["additionalProperties"] = _schema(value, {})
    for name, schema_key in (("min_items", "minProperties"), ("max_items", "maxProperties")):
        if name in constraints:
            schema[schema_key] = constraints[name]
    return schema


def _constraint_schema(constraints: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for name, value in constraints.items():
        if name == "one_of":
            schema["enum"] = list(value)
        elif name == "format" and value == "time":
            schema["allOf"] = [{"pattern": _TIME}]  # beside a pattern of the field's own
        elif name in ("min", "max", "multiple_of") and isinstance(value, str):
            schema[_SCHEMA_KEYS[name]] = float(value)  # a decimal's bound; JSON has no decimals
        else:
            schema[_SCHEMA_KEYS[name]] = value
    return schema


def _key_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _words(value: object) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)
