"""Types as JSON Schema (draft 2020-12)."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from dspex_protocol.types import (
    MISSING,
    Code,
    Constrained,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    Null,
    Object,
    Scalar,
    SetOf,
    TupleOf,
    Type,
    Union,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_protocol.types import Property

__all__ = [
    "CODE_MEDIA_TYPE",
    "CONSTRAINT_KEYS",
    "DRAFT",
    "KEY_SCHEMAS",
    "NUMBER_PATTERN",
    "SCALAR_SCHEMAS",
    "TIME_PATTERN",
    "schema_of",
]

DRAFT = "https://json-schema.org/draft/2020-12/schema"

#: JSON Schema's own format "time" is another one: it has an offset.
TIME_PATTERN = "^([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,9})?)?$"
NUMBER_PATTERN = "^-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"

#: Before the name of a language.
CODE_MEDIA_TYPE = "text/x-"

_TOOL_CALL: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "args": {"type": "object"}},
    "required": ["name", "args"],
}

#: The schema of every type that is a name alone. Of DSPy's own types it is the form in which the
#: bridge sends them; `format` says which one it is.
SCALAR_SCHEMAS: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "bytes": {"type": "string", "format": "binary"},
    "any": {},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "pattern": TIME_PATTERN},
    "datetime": {"type": "string", "format": "date-time"},
    "decimal": {"type": ["number", "string"], "pattern": NUMBER_PATTERN},
    "probability": {"type": "number", "minimum": 0, "maximum": 1},
    "confidence_score": {"type": "number", "minimum": 0, "maximum": 1},
    "token_count": {"type": "integer", "minimum": 0},
    "reasoning_chain": {"type": "array", "items": {"type": "string"}},
    "tensor": {"type": "array"},
    "image": {"type": "string", "format": "image"},
    "audio": {"type": "string", "format": "audio"},
    "file": {"type": "string", "format": "file"},
    "history": {"type": "array", "items": {"type": "object"}, "format": "history"},
    "code": {"type": "string", "format": "code"},
    "tool_calls": {"type": "array", "items": _TOOL_CALL, "format": "tool_calls"},
}

#: Keys travel as text: what is said of it for each type of key other than str.
KEY_SCHEMAS: dict[str, dict[str, Any]] = {
    "int": {"pattern": "^-?(0|[1-9][0-9]*)$"},
    "float": {"pattern": NUMBER_PATTERN},
    "decimal": {"pattern": NUMBER_PATTERN},
    "bool": {"enum": ["true", "false"]},
    "date": {"format": "date"},
    "time": {"pattern": TIME_PATTERN},
    "datetime": {"format": "date-time"},
}

#: Constraints whose value is the keyword's. The others: `one_of`, `dimensions`, and `min_items` and
#: `max_items` of a dict.
CONSTRAINT_KEYS = {
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

_JSON_TYPES: dict[type, str] = {str: "string", int: "integer", bool: "boolean", type(None): "null"}


def schema_of(type_: Type, constraints: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON Schema of the values of a type, as a client sends or gets them."""
    constraints = constraints or {}
    match type_:
        case Constrained(inner):
            return schema_of(inner, type_.constraints | dict(constraints))
        case Union(members):
            return {"anyOf": [schema_of(member, constraints) for member in members]}
        case Null():
            return {"type": "null"}
        case Scalar(name):
            # Of a bound that the type has, too, the constraint's is the narrower one.
            own = deepcopy(SCALAR_SCHEMAS[name])
            stated = _constraint_schema(constraints)
            return {**own, **stated}
        case Code(language):
            return {
                "type": "string",
                "format": "code",
                "contentMediaType": CODE_MEDIA_TYPE + language,
            }
        case Embedding(dimensions):
            size = constraints.get("dimensions", dimensions)
            bounds = {} if size is None else {"minItems": size, "maxItems": size}
            return {"type": "array", "items": {"type": "number"}, **bounds}
        case ListOf(item):
            items = {} if item == Scalar("any") else {"items": schema_of(item)}
            return {"type": "array", **items, **_constraint_schema(constraints)}
        case SetOf(item):
            bounds = _constraint_schema(constraints)
            return {"type": "array", "items": schema_of(item), "uniqueItems": True, **bounds}
        case TupleOf(items):
            prefix = [schema_of(item) for item in items]
            return {"type": "array", "prefixItems": prefix, "items": False, "minItems": len(items)}
        case DictOf(key, value):
            return _dict_schema(key, value, constraints)
        case Literal(values):
            kinds = {_JSON_TYPES[type(value)] for value in values}
            kind = {"type": kinds.pop()} if len(kinds) == 1 else {}
            return {**kind, "enum": list(values)}
        case Object():
            return _object_schema(type_)
    raise AssertionError(f"a type without a schema: {type_!r}")


def _object_schema(type_: Object) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    if type_.title is not None:
        schema["title"] = type_.title
    if type_.description is not None:
        schema["description"] = type_.description
    schema["properties"] = {item.name: _property_schema(item) for item in type_.properties}
    schema["required"] = [item.name for item in type_.properties if item.required]
    if type_.additional is None:
        schema["additionalProperties"] = False
    elif type_.additional != Scalar("any"):
        schema["additionalProperties"] = schema_of(type_.additional)
    return schema


def _property_schema(item: Property) -> dict[str, Any]:
    schema = schema_of(item.type)
    if item.description is not None:
        schema["description"] = item.description
    if item.default is not MISSING:
        schema["default"] = deepcopy(item.default)
    return schema


def _dict_schema(key: Type, value: Type, constraints: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    if isinstance(key, Literal):
        schema["propertyNames"] = {"enum": [_key_text(v) for v in key.values]}
    elif isinstance(key, Scalar) and key.name in KEY_SCHEMAS:
        schema["propertyNames"] = deepcopy(KEY_SCHEMAS[key.name])
    if value != Scalar("any"):
        schema["additionalProperties"] = schema_of(value)
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
            schema["allOf"] = [{"pattern": TIME_PATTERN}]  # beside a pattern of the field's own
        elif name in ("min", "max", "multiple_of") and isinstance(value, str):
            schema[CONSTRAINT_KEYS[name]] = float(value)  # a decimal's bound; JSON has no decimals
        else:
            schema[CONSTRAINT_KEYS[name]] = value
    return schema


def _key_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
