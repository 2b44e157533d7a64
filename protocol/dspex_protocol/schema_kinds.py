"""JSON Schemas of one kind (`string`, `array`, …) to types.

A reader of a kind gets the schema, those of its keywords that say something of the kind, the place
of it all, and `read`, which makes the type of a schema inside this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from dspex_protocol.constraints import FORMATS, check_constraints
from dspex_protocol.errors import SignatureError
from dspex_protocol.grammar import LANGUAGE
from dspex_protocol.refusals import Path, kind_of, refused_at
from dspex_protocol.schema_writer import (
    CODE_MEDIA_TYPE,
    CONSTRAINT_KEYS,
    KEY_SCHEMAS,
    SCALAR_SCHEMAS,
    TIME_PATTERN,
)
from dspex_protocol.spelling import did_you_mean
from dspex_protocol.types import (
    DSPY_TYPES,
    MISSING,
    Code,
    Constrained,
    DictOf,
    ListOf,
    Literal,
    Null,
    Object,
    Property,
    Scalar,
    TupleOf,
    Type,
)

__all__ = [
    "KIND_READERS",
    "MAX_PROPERTIES",
    "MAX_PROPERTY_NAME_LENGTH",
    "constrained",
    "is_number",
    "limited",
]

# Of one object: as many as a signature has fields, in names as long.
MAX_PROPERTIES = 256
MAX_PROPERTY_NAME_LENGTH = 128

Schema = Mapping[str, Any]
Read = Callable[[Any, Path], Type]
KindReader = Callable[[Schema, Sequence[str], Path, Read], Type]

_CONSTRAINTS = {keyword: name for name, keyword in CONSTRAINT_KEYS.items()}
_FORMAT_TYPES = {"binary": "bytes", "date": "date", "date-time": "datetime"}


def _null(_schema: Schema, _own: Sequence[str], _path: Path, _read: Read) -> Type:
    return Null()


def _boolean(_schema: Schema, _own: Sequence[str], _path: Path, _read: Read) -> Type:
    return Scalar("bool")


def _integer(schema: Schema, own: Sequence[str], path: Path, _read: Read) -> Type:
    return limited(Scalar("int"), schema, own, "integer", path)


def _number(schema: Schema, own: Sequence[str], path: Path, _read: Read) -> Type:
    return limited(Scalar("float"), schema, own, "number", path)


def limited(type_: Scalar, schema: Schema, own: Sequence[str], kind: str, path: Path) -> Type:
    constraints: dict[str, Any] = {}
    for keyword in own:
        value = schema[keyword]
        if not is_number(value):
            raise refused_at([*path, keyword], f"expected a finite number, got {kind_of(value)}")
        name = _CONSTRAINTS.get(keyword)
        if name is None:
            name, value = _exclusive(keyword, value, kind, path)
        elif kind == "integer" and name != "multiple_of":
            value = math.ceil(value) if name == "min" else math.floor(value)
        tighter = max if name == "min" else min
        constraints[name] = tighter(constraints.get(name, value), value)
    return constrained(type_, constraints, path)


def _exclusive(keyword: str, value: Any, kind: str, path: Path) -> tuple[str, Any]:
    if kind != "integer":
        inclusive = "minimum" if keyword == "exclusiveMinimum" else "maximum"
        raise refused_at(
            [*path, keyword], f"{keyword!r} of a number has no type here: use {inclusive!r}"
        )
    if keyword == "exclusiveMinimum":
        return "min", math.floor(value) + 1
    return "max", math.ceil(value) - 1


def _string(schema: Schema, own: Sequence[str], path: Path, _read: Read) -> Type:
    format_ = schema.get("format")
    if "format" in own and not isinstance(format_, str):
        raise refused_at([*path, "format"], f"expected a string, got {kind_of(format_)}")
    type_: Type = Scalar("str")
    constraints = {_CONSTRAINTS[k]: schema[k] for k in own if k in _CONSTRAINTS}
    if "contentMediaType" in own and format_ != "code":
        raise refused_at(
            [*path, "contentMediaType"],
            "'contentMediaType' has no type here, but beside the format 'code'",
        )
    if format_ in _FORMAT_TYPES:
        type_ = Scalar(_FORMAT_TYPES[format_])
        del constraints["format"]
    elif format_ in DSPY_TYPES:
        type_ = _dspy_string(format_, schema, path)
        del constraints["format"]
    elif format_ == "time":
        raise refused_at(
            [*path, "format"],
            "a time of JSON Schema has an offset, a 'time' here has none: use the type string "
            "'time', or leave the format out",
        )
    elif format_ is not None and format_ not in FORMATS:
        known = sorted({*FORMATS, *_FORMAT_TYPES} - {"time"})
        raise refused_at(
            [*path, "format"],
            f"unknown format {format_!r}{did_you_mean(format_, known)}; "
            f"known are {', '.join(known)}",
        )
    elif constraints.get("pattern") == TIME_PATTERN:
        type_ = Scalar("time")
        del constraints["pattern"]
    if "allOf" in schema:
        constraints["format"] = "time"
    return constrained(type_, constraints, path)


def _dspy_string(name: str, schema: Schema, path: Path) -> Type:
    if SCALAR_SCHEMAS[name]["type"] != "string":
        raise refused_at([*path, "format"], f"{name!r} is the format of an array")
    media_type = schema.get("contentMediaType")
    if media_type is None:
        return Scalar(name)
    language = str(media_type).removeprefix(CODE_MEDIA_TYPE)
    if language == media_type or not LANGUAGE.fullmatch(language):
        raise refused_at(
            [*path, "contentMediaType"], f"of code it is '{CODE_MEDIA_TYPE}' and a language"
        )
    return Code(language)


def _array(schema: Schema, own: Sequence[str], path: Path, read: Read) -> Type:
    if "format" in own:
        name = schema["format"]
        shape = {key: schema[key] for key in ("type", *own)}
        if not isinstance(name, str) or name not in DSPY_TYPES or shape != SCALAR_SCHEMAS[name]:
            raise refused_at(
                [*path, "format"],
                "an array's format is 'history' or 'tool_calls', with the schema they have",
            )
        return Scalar(name)
    if "prefixItems" in own:
        return _tuple(schema, path, read)
    items = schema.get("items", True)
    if items is False:
        raise refused_at([*path, "items"], "an array without items has no type here")
    type_ = ListOf(read(items, [*path, "items"]))
    if isinstance(type_.item, Null):
        raise refused_at([*path, "items"], "a list of nulls has no type here")
    constraints = {_CONSTRAINTS[k]: schema[k] for k in own if k in _CONSTRAINTS}
    if constraints.get("unique") is False:
        del constraints["unique"]
    return constrained(type_, constraints, path)


def _tuple(schema: Schema, path: Path, read: Read) -> Type:
    prefix, place = schema["prefixItems"], [*path, "prefixItems"]
    if not isinstance(prefix, list) or not prefix:
        raise refused_at(place, "expected a list of at least one schema")
    size = len(prefix)
    closed = schema.get("items") is False or schema.get("maxItems") == size
    if not closed or schema.get("minItems") != size or schema.get("maxItems", size) != size:
        raise refused_at(
            place,
            f"a tuple here has a fixed length: say 'items': false and 'minItems': {size}",
        )
    if schema.get("uniqueItems", False) is not False:
        raise refused_at([*path, "uniqueItems"], "'uniqueItems' does not apply to a tuple")
    return TupleOf(tuple(_valued(read(item, [*place, i])) for i, item in enumerate(prefix)))


def _object(schema: Schema, own: Sequence[str], path: Path, read: Read) -> Type:
    additional = schema.get("additionalProperties", True)
    if "properties" not in own and additional is not False:
        return _dict(schema, own, path, read)
    for keyword in ("propertyNames", "minProperties", "maxProperties"):
        if keyword in own:
            raise refused_at(
                [*path, keyword], f"{keyword!r} applies to an object without 'properties'"
            )
    properties, required = schema.get("properties", {}), schema.get("required", [])
    if not isinstance(properties, Mapping) or len(properties) > MAX_PROPERTIES:
        raise refused_at(
            [*path, "properties"], f"expected a map of at most {MAX_PROPERTIES} schemas"
        )
    if (
        not isinstance(required, list)
        or len(required) > MAX_PROPERTIES
        or not all(isinstance(name, str) for name in required)
    ):
        raise refused_at([*path, "required"], f"expected a list of at most {MAX_PROPERTIES} names")
    for name in required:
        if name not in properties:
            raise refused_at([*path, "required"], f"{name!r} is none of the properties")
    return Object(
        tuple(
            _property(name, item, name in required, [*path, "properties", name], read)
            for name, item in properties.items()
        ),
        None if additional is False else _valued(read(additional, [*path, "additionalProperties"])),
        schema.get("title"),
        schema.get("description"),
    )


def _property(name: str, schema: Any, required: bool, path: Path, read: Read) -> Property:
    if len(name) > MAX_PROPERTY_NAME_LENGTH:
        raise refused_at(
            path, f"the name of a property has at most {MAX_PROPERTY_NAME_LENGTH} characters"
        )
    type_ = _valued(read(schema, path))
    said = schema if isinstance(schema, Mapping) else {}
    description = said.get("description")
    if isinstance(type_, Object):
        # They stand at the same place, so they are one; the nearer goes before that of a $ref.
        description = description or type_.description
        type_ = replace(type_, description=description)
    return Property(name, type_, required, description, said.get("default", MISSING))


def _dict(schema: Schema, own: Sequence[str], path: Path, read: Read) -> Type:
    if schema.get("required", []) != []:
        raise refused_at([*path, "required"], "'required' names what is in 'properties'")
    key: Type = Scalar("str")
    if "propertyNames" in own:
        key = _key(schema["propertyNames"], [*path, "propertyNames"], read)
    additional = schema.get("additionalProperties", True)
    value = _valued(read(additional, [*path, "additionalProperties"]))
    limits = (("minProperties", "min_items"), ("maxProperties", "max_items"))
    constraints = {name: schema[keyword] for keyword, name in limits if keyword in own}
    return constrained(DictOf(key, value), constraints, path)


def _key(schema: Any, path: Path, read: Read) -> Type:
    if schema is True or schema in ({}, {"type": "string"}):
        return Scalar("str")
    for name, form in KEY_SCHEMAS.items():
        if schema == form:
            return Scalar(name)
    if isinstance(schema, Mapping) and set(schema) <= {"enum", "type"}:
        key = read({"type": "string", **schema}, path)
        if isinstance(key, Literal):
            return key
    raise refused_at(path, "of the names of properties only an enum of strings has a type here")


def _valued(type_: Type) -> Type:
    """`None` stands only beside another type; a place that holds nothing else is a Literal."""
    return Literal((None,)) if isinstance(type_, Null) else type_


def constrained(type_: Type, constraints: Mapping[str, Any], path: Path) -> Type:
    if not constraints:
        return type_
    try:
        check_constraints(type_, constraints)
    except SignatureError as error:
        raise refused_at(path, error.message) from None
    return Constrained(
        type_,
        tuple(
            (name, tuple(value) if isinstance(value, list) else value)
            for name, value in constraints.items()
        ),
    )


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


KIND_READERS: Final[Mapping[str, KindReader]] = {
    "null": _null,
    "boolean": _boolean,
    "integer": _integer,
    "number": _number,
    "string": _string,
    "array": _array,
    "object": _object,
}
