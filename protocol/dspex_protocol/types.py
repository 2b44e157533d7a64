"""Types as a small tree of frozen nodes; `grammar.py` and `schema_reader.py` make it.

`str(type)` is the canonical text of a type. Where the grammar of type strings has the type
(`has_text`), that text parses to an equal type, two types are equal exactly when their texts are,
and it is what goes over the wire. An `Object` and a `Constrained` have no such text: they go over
the wire as JSON Schema, and their `str` is for people.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "DSPY_TYPES",
    "MAX_EMBEDDING_DIMENSIONS",
    "MAX_LITERAL_INTEGER",
    "MIN_LITERAL_INTEGER",
    "MISSING",
    "SCALARS",
    "SPELLINGS",
    "TYPE_NAMES",
    "Code",
    "Constrained",
    "DictOf",
    "Embedding",
    "ListOf",
    "Literal",
    "LiteralValue",
    "Missing",
    "Null",
    "Object",
    "Property",
    "Scalar",
    "SetOf",
    "TupleOf",
    "Type",
    "Union",
    "allows_none",
    "constraints_text",
    "has_text",
    "literal_text",
    "parts_of",
    "unfit_key",
    "unhashable",
    "union",
    "walk",
    "without_none",
]

# An order of magnitude above the largest embedding models.
MAX_EMBEDDING_DIMENSIONS = 65_536

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

# Of an object's properties, as many as a person takes in at a glance.
_SHOWN_PROPERTIES = 8

LiteralValue = str | int | bool | None


class Missing(enum.Enum):
    """The type of `MISSING`: no default, where None would be one."""

    MISSING = "MISSING"


MISSING: Final = Missing.MISSING


class Type:
    """A node of the tree. Nodes are frozen; `str(node)` is the canonical text."""

    __slots__ = ()


class _ByRepr(Type):
    """Equal by what is written: Python holds 1, 1.0 and True for equal, and cannot hash a list."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))


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
class Literal(_ByRepr):
    """One of these values, in the order in which they were written."""

    values: tuple[LiteralValue, ...]

    def __str__(self) -> str:
        return f"Literal[{', '.join(map(literal_text, self.values))}]"


@dataclass(frozen=True, slots=True)
class Union(Type):
    """Two or more members, none of them a union, no two alike, `None` last."""

    members: tuple[Type, ...]

    def __str__(self) -> str:
        return " | ".join(map(str, self.members))


@dataclass(frozen=True, slots=True)
class Code(Type):
    """Source text in a language of this name; one of DSPy's own types."""

    language: str

    def __str__(self) -> str:
        return f"code[{literal_text(self.language)}]"


@dataclass(frozen=True, slots=True, eq=False)
class Constrained(_ByRepr):
    """A type within another, with constraints of its own. A field's stand beside its type."""

    type: Type
    #: Names and values; a list among them stands as a tuple.
    pairs: tuple[tuple[str, Any], ...]

    @property
    def constraints(self) -> dict[str, Any]:
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in self.pairs
        }

    def __str__(self) -> str:
        return f"{self.type} ({constraints_text(self.constraints)})"


@dataclass(frozen=True, slots=True)
class Property:
    """One property of an `Object`. `default` is a wire value, not yet converted to the type."""

    name: str
    type: Type
    required: bool = True
    description: str | None = None
    default: Any = MISSING


@dataclass(frozen=True, slots=True, eq=False)
class Object(_ByRepr):
    """A map with known keys. `additional` is the type of all others, None where there are none."""

    properties: tuple[Property, ...]
    additional: Type | None = Scalar("any")
    title: str | None = None
    description: str | None = None

    def __str__(self) -> str:
        names = [p.name if p.required else f"{p.name}?" for p in self.properties]
        shown = names[:_SHOWN_PROPERTIES]
        if len(names) > len(shown) or self.additional is not None:
            shown.append("…")
        return f"{{{', '.join(shown)}}}"


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


def parts_of(type_: Type) -> tuple[Type, ...]:
    """The types that a type is directly made of."""
    match type_:
        case ListOf(item) | SetOf(item) | Constrained(item, _):
            return (item,)
        case TupleOf(parts) | Union(parts):
            return parts
        case DictOf(key, value):
            return (key, value)
        case Object(properties, additional):
            own = tuple(item.type for item in properties)
            return own if additional is None else (*own, additional)
    return ()


def walk(type_: Type) -> Iterator[Type]:
    """A type and all types in it."""
    yield type_
    for part in parts_of(type_):
        yield from walk(part)


def has_text(type_: Type) -> bool:
    """Whether the grammar of type strings has the type: else it is written as JSON Schema."""
    return not any(isinstance(part, Object | Constrained) for part in walk(type_))


def union(members: Iterable[Type]) -> Type:
    """The union of these: flat, no member twice, None last; a single member is itself."""
    flat: dict[Type, None] = {}
    for member in members:
        for leaf in member.members if isinstance(member, Union) else (member,):
            flat[leaf] = None
    none = flat.pop(Null(), Null) is None
    unique = (*flat, Null()) if none else tuple(flat)
    return unique[0] if len(unique) == 1 else Union(unique)


def unhashable(item: Type) -> str | None:
    """What in an item's type cannot be hashed, None where all can."""
    parts: tuple[Type, ...] = ()
    if isinstance(item, Union):
        parts = item.members
    elif isinstance(item, TupleOf):
        parts = item.items
    elif isinstance(item, Constrained):
        parts = (item.type,)
    elif isinstance(item, ListOf | SetOf | DictOf | Embedding | Object | Code):
        return str(item)
    elif isinstance(item, Scalar) and item.name in _UNHASHABLE_SCALARS:
        return item.name
    return next((wrong for part in parts if (wrong := unhashable(part)) is not None), None)


def unfit_key(key: Type) -> str | None:
    """What in a key's type cannot be a key, None where all can."""
    if isinstance(key, Scalar) and key.name in _KEY_SCALARS:
        return None
    if isinstance(key, Literal) and None not in key.values:
        return None
    return str(key)


_NAMED_ESCAPES = {"\\": "\\\\", '"': '\\"'} | dict(
    zip("\b\f\n\r\t", ("\\b", "\\f", "\\n", "\\r", "\\t"), strict=True)
)
_WRITTEN_ESCAPES = {
    **{chr(code): f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))},
    **_NAMED_ESCAPES,
}


def literal_text(value: LiteralValue) -> str:
    """A value as it stands in the canonical text of a `Literal`."""
    if isinstance(value, str):
        return '"' + "".join(_WRITTEN_ESCAPES.get(c, c) for c in value) + '"'
    return str(value)


def constraints_text(constraints: Mapping[str, Any]) -> str:
    """`min 0, max 10`."""
    return ", ".join(f"{name} {_constraint_text(value)}" for name, value in constraints.items())


def _constraint_text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_constraint_text, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
