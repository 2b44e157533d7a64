r"""The type grammar: text to a small tree, and back. Nothing is evaluated or looked up by name.

    type     = member ("|" member)*
    member   = name | name "[" type ("," type)* "]"
             | "Optional" "[" type "]" | "Union" "[" type ("," type)* "]"
             | "Literal" "[" value ("," value)* "]" | "embedding" "[" integer "]" | "None"
    value    = string | ["-"] integer | "True" | "False" | "None"
    string   = "…" or '…' with the escapes \\ \' \" \b \f \n \r \t \xHH \uHHHH \UHHHHHHHH
    name     = [A-Za-z_][A-Za-z0-9_]*

`None` stands only beside another type. `str(type)` is the canonical text: it parses to an equal
type, two types are equal exactly when their canonical texts are, and it is what goes over the wire.
Positions in errors count characters (code points) from 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

from dspex_protocol.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DSPY_TYPES",
    "MAX_EMBEDDING_DIMENSIONS",
    "MAX_TYPE_DEPTH",
    "MAX_TYPE_LENGTH",
    "SCALARS",
    "SPELLINGS",
    "TYPE_NAMES",
    "DictOf",
    "Embedding",
    "ListOf",
    "Literal",
    "LiteralValue",
    "Null",
    "Parser",
    "Scalar",
    "SetOf",
    "TupleOf",
    "Type",
    "Union",
    "allows_none",
    "did_you_mean",
    "parse_type",
    "without_none",
]

# An order of magnitude above the largest embedding models.
MAX_EMBEDDING_DIMENSIONS = 65_536

# A longer name is nobody's misspelling, and comparing one of a frame's length takes seconds.
_MAX_MISSPELT_CHARS = 256

# The integers that every MessagePack and JSON reader of the vectors can hold.
MIN_LITERAL_INTEGER = -(2**63)
MAX_LITERAL_INTEGER = 2**63 - 1

#: Types that are a name alone, except DSPy's own.
SCALARS = frozenset(
    {
        *("str", "int", "float", "bool", "bytes", "any"),
        *("date", "time", "datetime", "decimal"),
        *("probability", "confidence_score", "token_count", "reasoning_chain", "tensor"),
    }
)

#: DSPy's own types: parsed here, usable where the engine has a class for them.
DSPY_TYPES = frozenset({"image", "audio", "file", "history", "code", "tool_calls"})

#: Other spellings of a name, read and never written.
SPELLINGS = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "object": "dict",
    "array": "list",
}

_GENERICS = ("list", "set", "tuple", "dict", "Literal", "Optional", "Union", "embedding")

#: Every name that may stand in a type, in the order of the documentation.
TYPE_NAMES: tuple[str, ...] = (
    *("str", "int", "float", "bool", "bytes", "any", "date", "time", "datetime", "decimal"),
    *("list", "set", "tuple", "dict", "Literal", "Optional", "Union", "None"),
    *("embedding", "probability", "confidence_score", "token_count", "reasoning_chain", "tensor"),
    *("image", "audio", "file", "history", "code", "tool_calls"),
    *SPELLINGS,
)

# A key travels as a string and must come back from it; an item of a set must be hashable.
_KEY_SCALARS = frozenset({"str", "int", "float", "bool", "date", "time", "datetime", "decimal"})
_UNHASHABLE_SCALARS = frozenset({"reasoning_chain", "tensor"}) | DSPY_TYPES

LiteralValue = str | int | bool | None


class Type:
    """A node of the tree. Nodes are frozen; `str(node)` is the canonical text."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Scalar(Type):
    """A type that is a name alone: one of `SCALARS` or `DSPY_TYPES`."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Null(Type):
    """`None`, only ever a member of a `Union`."""

    def __str__(self) -> str:
        return "None"


@dataclass(frozen=True, slots=True)
class Embedding(Type):
    """A vector of floats; `dimensions` is its length, None where any will do."""

    dimensions: int | None = None

    def __str__(self) -> str:
        return "embedding" if self.dimensions is None else f"embedding[{self.dimensions}]"


@dataclass(frozen=True, slots=True)
class ListOf(Type):
    item: Type

    def __str__(self) -> str:
        return "list" if self.item == Scalar("any") else f"list[{self.item}]"


@dataclass(frozen=True, slots=True)
class SetOf(Type):
    item: Type

    def __str__(self) -> str:
        return f"set[{self.item}]"


@dataclass(frozen=True, slots=True)
class TupleOf(Type):
    """A fixed number of items, each of its own type."""

    items: tuple[Type, ...]

    def __str__(self) -> str:
        return f"tuple[{', '.join(map(str, self.items))}]"


@dataclass(frozen=True, slots=True)
class DictOf(Type):
    key: Type
    value: Type

    def __str__(self) -> str:
        if self.key == Scalar("str") and self.value == Scalar("any"):
            return "dict"
        return f"dict[{self.key}, {self.value}]"


@dataclass(frozen=True, slots=True, eq=False)
class Literal(Type):
    """One of these values, in the order in which they were written."""

    values: tuple[LiteralValue, ...]

    def __str__(self) -> str:
        return f"Literal[{', '.join(map(_literal_text, self.values))}]"

    # By text, because Python holds 1 and True for equal and the grammar does not.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Literal) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


@dataclass(frozen=True, slots=True)
class Union(Type):
    """Two or more members, none of them a union, no two alike, `None` last."""

    members: tuple[Type, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.members))


def allows_none(type_: Type) -> bool:
    """Whether None is a value of the type by its own declaration (`any` declares nothing)."""
    if isinstance(type_, Union):
        return any(allows_none(member) for member in type_.members)
    return isinstance(type_, Null) or (isinstance(type_, Literal) and None in type_.values)


def without_none(type_: Type) -> tuple[Type, ...]:
    """The types that a value other than None may have: a union's members, or the type alone."""
    if isinstance(type_, Union):
        return tuple(member for member in type_.members if not isinstance(member, Null))
    return (type_,)


def _union(members: list[Type]) -> Type:
    flat: dict[Type, None] = {}
    for member in members:
        for leaf in member.members if isinstance(member, Union) else (member,):
            flat[leaf] = None
    none = flat.pop(Null(), Null) is None
    unique = (*flat, Null()) if none else tuple(flat)
    return unique[0] if len(unique) == 1 else Union(unique)


def _unhashable(item: Type) -> str | None:
    """What in an item's type cannot be hashed, None where all can."""
    parts: tuple[Type, ...] = ()
    if isinstance(item, Union):
        parts = item.members
    elif isinstance(item, TupleOf):
        parts = item.items
    elif isinstance(item, ListOf | SetOf | DictOf | Embedding):
        return str(item)
    elif isinstance(item, Scalar) and item.name in _UNHASHABLE_SCALARS:
        return item.name
    return next((wrong for part in parts if (wrong := _unhashable(part)) is not None), None)


def _no_key(key: Type) -> str | None:
    """What in a key's type cannot be a key, None where all can."""
    if isinstance(key, Scalar) and key.name in _KEY_SCALARS:
        return None
    if isinstance(key, Literal) and None not in key.values:
        return None
    return str(key)


_WRITTEN_ESCAPES = {
    **{character: f"\\{letter}" for letter, character in _ESCAPES.items() if letter != "'"},
    **{
        chr(c): f"\\x{c:02x}"
        for c in (*range(0x20), *range(0x7F, 0xA0))
        if chr(c) not in "\b\f\n\r\t"
    },
}
def _literal_text(value: LiteralValue) -> str:
    if isinstance(value, str):
        return '"' + "".join(_WRITTEN_ESCAPES.get(c, c) for c in value) + '"'
    return str(value)
