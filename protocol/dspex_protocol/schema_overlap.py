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

__all__ = ["MAX_COMPARISONS", "Overlap"]

# Enough to tell a hundred members apart by one property; a few microseconds each.
MAX_COMPARISONS = 20_000

# Of JSON; what is not named is a string.
_JSON_KINDS = {
    **dict.fromkeys(("int", "float", "token_count", "probability", "confidence_score"), "number"),
    **dict.fromkeys(("reasoning_chain", "tensor", "history", "tool_calls"), "array"),
    "bool": "boolean",
}

_ALL_KINDS = ("null", "boolean", "number", "string", "array", "object")
_VALUE_KINDS = {str: "string", bool: "boolean", int: "number", type(None): "null"}


class Overlap:
    """Compares the members of one oneOf, each with each.

    `comparisons` is how many were made, of types within the members too: whoever compares many
    members looks at it.
    """

    def __init__(self) -> None:
        self.comparisons = 0
        self._texts: dict[int, frozenset[str]] = {}

    def may_share_a_value(self, one: Type, other: Type) -> bool:
        """False where it is certain that there is none: by their kind, their values or, of objects,
        by a property that both require. Beyond `MAX_COMPARISONS` it says False."""
        self.comparisons += 1
        if self.comparisons > MAX_COMPARISONS:
            return False
        one, other = (t.type if isinstance(t, Constrained) else t for t in (one, other))
        if isinstance(one, Union):
            return any(self.may_share_a_value(member, other) for member in one.members)
        if isinstance(other, Union):
            return self.may_share_a_value(other, one)
        if isinstance(one, Literal) and isinstance(other, Literal):
            return not self._texts_of(one).isdisjoint(self._texts_of(other))
        if isinstance(one, Object) and isinstance(other, Object):
            return not self._told_apart(one, other)
        return not _json_kinds(one).isdisjoint(_json_kinds(other))

    def _told_apart(self, one: Object, other: Object) -> bool:
        """Whether a property that both require has no value in common."""
        theirs = {item.name: item.type for item in other.properties if item.required}
        return any(
            item.required
            and item.name in theirs
            and not self.may_share_a_value(item.type, theirs[item.name])
            for item in one.properties
        )

    def _texts_of(self, literal: Literal) -> frozenset[str]:
        texts = self._texts.get(id(literal))
        if texts is None:
            texts = self._texts[id(literal)] = frozenset(map(literal_text, literal.values))
        return texts


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
