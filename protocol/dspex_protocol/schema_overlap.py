"""Whether two types may have a value in common: what a oneOf of JSON Schema forbids."""

from __future__ import annotations

from dspex_protocol.types import (
    Code,
    Constrained,
    DictOf,
    Literal,
    Null,
    Object,
    Scalar,
    Type,
    Union,
    literal_text,
)

__all__ = ["may_share_a_value"]

# Of JSON; what is not named is a string.
_JSON_KINDS = {
    **dict.fromkeys(("int", "float", "token_count", "probability", "confidence_score"), "number"),
    **dict.fromkeys(("reasoning_chain", "tensor", "history", "tool_calls"), "array"),
    "bool": "boolean",
}

_ALL_KINDS = ("null", "boolean", "number", "string", "array", "object")
_VALUE_KINDS = {str: "string", bool: "boolean", int: "number", type(None): "null"}


def may_share_a_value(one: Type, other: Type) -> bool:
    """False where it is certain that there is none: by their kind, their values or, of objects, by
    a property that both require."""
    one, other = (t.type if isinstance(t, Constrained) else t for t in (one, other))
    if isinstance(one, Union):
        return any(may_share_a_value(member, other) for member in one.members)
    if isinstance(other, Union):
        return may_share_a_value(other, one)
    if isinstance(one, Literal) and isinstance(other, Literal):
        return not set(map(literal_text, one.values)).isdisjoint(map(literal_text, other.values))
    if isinstance(one, Object) and isinstance(other, Object):
        return not _told_apart(one, other)
    return not _json_kinds(one).isdisjoint(_json_kinds(other))


def _told_apart(one: Object, other: Object) -> bool:
    """Whether a property that both require has no value in common."""
    theirs = {item.name: item.type for item in other.properties if item.required}
    return any(
        item.required
        and item.name in theirs
        and not may_share_a_value(item.type, theirs[item.name])
        for item in one.properties
    )


def _json_kinds(type_: Type) -> set[str]:
    match type_:
        case Scalar("any"):
            return set(_ALL_KINDS)
        case Scalar("decimal"):
            return {"number", "string"}
        case Scalar(name):
            return {_JSON_KINDS.get(name, "string")}
        case Literal(values):
            return {_VALUE_KINDS[type(value)] for value in values}
        case Null():
            return {"null"}
        case Object() | DictOf():
            return {"object"}
        case Code():
            return {"string"}
    return {"array"}
