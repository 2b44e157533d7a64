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

# A type written by a person has some tens of characters; a generated Literal may have hundreds of
# members. The limit keeps a parse under a few milliseconds.
MAX_TYPE_LENGTH = 10_000

# Deeper brackets than anybody reads, and far from the recursion limits of this parser, of Pydantic
# and of the JSON Schema that is made from a type.
MAX_TYPE_DEPTH = 32

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


def parse_type(text: str) -> Type:
    """The type that `text` describes.

    Raises `SignatureError` with `data.position` where it describes none.
    """
    if not isinstance(text, str):
        raise SignatureError(f"a type is a string such as 'list[str]', not {type(text).__name__}")
    if len(text) > MAX_TYPE_LENGTH:
        raise SignatureError(
            f"a type has at most {MAX_TYPE_LENGTH} characters, this one has {len(text)}",
            data={"position": MAX_TYPE_LENGTH},
        )
    parser = Parser(text)
    result = parser.type()
    parser.expect("end", "the end of the type")
    return result


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` where a known name is close in spelling or begins so, else empty."""
    if len(name) > _MAX_MISSPELT_CHARS:
        return ""
    wanted = name.lower()
    folded = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(wanted, folded, n=1, cutoff=0.6)
    close += [c for c in folded if len(wanted) > 2 and c.startswith(wanted)]
    return f", did you mean {folded[close[0]]!r}?" if close else ""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str  # "name", "integer", "string", "end", or the punctuation itself
    text: str
    position: int


_SPACE = re.compile(r"[ \t\r\n]*")
_WORD = re.compile(r"(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<integer>[0-9]+)|->|\.\.\.|[\[\],:|\-]")
_STRING_PART = re.compile(r"""[^"'\\\x00-\x1f\ud800-\udfff]+""")
_ESCAPES = {"\\": "\\", "'": "'", '"': '"', "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HEX_ESCAPES = {"x": 2, "u": 4, "U": 8}
_WRITTEN_ESCAPES = {
    **{character: f"\\{letter}" for letter, character in _ESCAPES.items() if letter != "'"},
    **{
        chr(c): f"\\x{c:02x}"
        for c in (*range(0x20), *range(0x7F, 0xA0))
        if chr(c) not in "\b\f\n\r\t"
    },
}
_VALUE_WORDS: dict[str, LiteralValue] = {"True": True, "False": False, "None": None}


class Parser:
    """A recursive-descent parser over one text. `dspex_protocol.signatures` uses it for fields.

    Text is looked at no earlier than needed: the error reported is the first in reading order.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._end = 0
        self._depth = 0
        self._peeked: _Token | None = None

    # Tokens

    @property
    def token(self) -> _Token:
        """The next token, not yet taken."""
        if self._peeked is None:
            self._peeked = self._scan()
        return self._peeked

    def advance(self) -> _Token:
        """Take the next token."""
        taken = self.token
        self._peeked = None
        return taken

    def accept(self, kind: str) -> bool:
        """Take the next token if it is of this kind."""
        if self.token.kind != kind:
            return False
        self.advance()
        return True

    def expect(self, kind: str, what: str) -> _Token:
        """Take the next token, which has to be of this kind."""
        if self.token.kind != kind:
            raise self.error(f"expected {what}, found {self.found()}")
        return self.advance()

    def found(self) -> str:
        """The next token in words."""
        if self.token.kind == "end":
            return "the end of the text"
        return "a string" if self.token.kind == "string" else repr(self.token.text)

    def error(self, message: str, position: int | None = None) -> SignatureError:
        """The error to raise for a position, by default that of the next token."""
        at = self.token.position if position is None else position
        return SignatureError(f"{message} (at character {at})", data={"position": at})

    def _scan(self) -> _Token:
        space = _SPACE.match(self.text, self._end)
        start = self._end if space is None else space.end()
        if start == len(self.text):
            self._end = start
            return _Token("end", "", start)
        if self.text[start] in "\"'":
            return self._scan_string(start)
        match = _WORD.match(self.text, start)
        if match is None:
            raise self.error(f"unexpected character {self.text[start]!r}", start)
        self._end = match.end()
        return _Token(match.lastgroup or match[0], match[0], start)

    def _scan_string(self, start: int) -> _Token:
        text, quote, i = self.text, self.text[start], start + 1
        parts: list[str] = []
        while i < len(text):
            if text[i] == quote:
                self._end = i + 1
                return _Token("string", "".join(parts), start)
            if text[i] == "\\":
                character, i = self._scan_escape(i)
                parts.append(character)
            elif plain := _STRING_PART.match(text, i):
                parts.append(plain[0])
                i = plain.end()
            elif text[i] in "\"'":
                parts.append(text[i])
                i += 1
            else:
                raise self.error(
                    "a string holds no control character and no lone surrogate; write an escape", i
                )
        raise self.error(f"this string has no closing {quote}", start)

    def _scan_escape(self, start: int) -> tuple[str, int]:
        letter = self.text[start + 1 : start + 2]
        if letter in _ESCAPES:
            return _ESCAPES[letter], start + 2
        if letter not in _HEX_ESCAPES:
            raise self.error(
                "unknown escape; known are \\\\ \\' \\\" \\b \\f \\n \\r \\t \\x \\u \\U", start
            )
        end = start + 2 + _HEX_ESCAPES[letter]
        digits = self.text[start + 2 : end]
        if not re.fullmatch(rf"[0-9A-Fa-f]{{{_HEX_ESCAPES[letter]}}}", digits):
            raise self.error(f"\\{letter} takes {_HEX_ESCAPES[letter]} hexadecimal digits", start)
        code = int(digits, 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise self.error(f"\\{letter}{digits} is no character", start)
        return chr(code), end

    # Types

    def type(self) -> Type:
        """Parse a type, alternatives included."""
        position = self.token.position
        result = self._alternatives()
        if isinstance(result, Null):
            raise self.error("None stands only beside another type, as in 'str | None'", position)
        return result

    def _alternatives(self) -> Type:
        members = [self._member()]
        while self.accept("|"):
            members.append(self._member())
        return _union(members)

    def _member(self) -> Type:
        if self.token.kind != "name":
            raise self.error(f"expected a type, found {self.found()}")
        token = self.advance()
        name = SPELLINGS.get(token.text, token.text)
        if name == "None":
            return Null()
        if name in SCALARS or name in DSPY_TYPES:
            if self.token.kind == "[":
                raise self.error(f"{token.text} takes nothing in brackets")
            return Scalar(name)
        if name not in _GENERICS:
            raise self.error(
                f"unknown type {token.text!r}{did_you_mean(token.text, TYPE_NAMES)}"
                f"; the types are {', '.join(TYPE_NAMES)}",
                token.position,
            )
        if self.token.kind != "[":
            return self._bare(name, token)
        return self._generic(name, token)

    def _bare(self, name: str, token: _Token) -> Type:
        if name == "list":
            return ListOf(Scalar("any"))
        if name == "dict":
            return DictOf(Scalar("str"), Scalar("any"))
        if name == "embedding":
            return Embedding()
        example = {"Literal": 'Literal["a", "b"]', "tuple": "tuple[str, int]"}
        raise self.error(
            f"{name} needs brackets, as in {example.get(name, f'{name}[str]')}", token.position
        )

    def _generic(self, name: str, token: _Token) -> Type:
        if self._depth == MAX_TYPE_DEPTH:
            raise self.error(f"a type nests at most {MAX_TYPE_DEPTH} brackets")
        self._depth += 1
        self.advance()
        if name == "Literal":
            result: Type = self._literal()
        elif name == "embedding":
            result = Embedding(self._dimensions())
        else:
            result = self._applied(name, token)
        if self.token.kind == ",":
            raise self.error(f"{token.text} takes no more than this; expected ']'")
        self.expect("]", f"']' to close {token.text}")
        self._depth -= 1
        return result

    def _applied(self, name: str, token: _Token) -> Type:
        position = self.token.position
        if name in ("Optional", "Union"):
            members = [self._alternatives()]
            while name == "Union" and self.accept(","):
                members.append(self._alternatives())
            if name == "Optional":
                members.append(Null())
            result = _union(members)
            if isinstance(result, Null):
                raise self.error(
                    "None stands only beside another type, as in 'str | None'", position
                )
            return result
        if name == "list":
            return ListOf(self.type())
        if name == "set":
            item = self.type()
            if (wrong := _unhashable(item)) is not None:
                raise self.error(f"a set cannot hold {wrong}; use list[{item}]", position)
            return SetOf(item)
        if name == "tuple":
            items = [self.type()]
            while self.accept(","):
                if self.token.kind == "...":
                    raise self.error(f"a tuple has a fixed length; use list[{items[0]}]")
                items.append(self.type())
            return TupleOf(tuple(items))
        key = self.type()
        if (wrong := _no_key(key)) is not None:
            raise self.error(f"{wrong} cannot be the key of a dict; use str", position)
        self.expect(",", f"',' and the type of the values of {token.text}")
        return DictOf(key, self.type())

    def _dimensions(self) -> int:
        token = self.expect("integer", "a number of dimensions, as in embedding[768]")
        if token.text[0] == "0" or not _at_most(token.text, MAX_EMBEDDING_DIMENSIONS):
            raise self.error(
                f"an embedding has 1 to {MAX_EMBEDDING_DIMENSIONS} dimensions", token.position
            )
        return int(token.text)

    def _literal(self) -> Literal:
        values = [self._literal_value()]
        while self.accept(","):
            values.append(self._literal_value())
        # The dict keeps the order; the text keeps 1 and True apart.
        return Literal(tuple({_literal_text(value): value for value in values}.values()))

    def _literal_value(self) -> LiteralValue:
        position, negative = self.token.position, self.accept("-")
        token = self.token
        if token.kind == "integer":
            self.advance()
            if token.text != "0" and token.text[0] == "0":
                raise self.error("an integer has no leading zero", token.position)
            if not _at_most(token.text, MAX_LITERAL_INTEGER + negative):
                raise self.error("an integer in a Literal has at most 64 bits, signed", position)
            return -int(token.text) if negative else int(token.text)
        if negative:
            raise self.error(f"expected an integer after '-', found {self.found()}")
        if token.kind == "string":
            return self.advance().text
        if token.kind == "name" and token.text in _VALUE_WORDS:
            return _VALUE_WORDS[self.advance().text]
        hint = did_you_mean(token.text, _VALUE_WORDS) if token.kind == "name" else ""
        raise self.error(
            "expected a string in quotes, an integer, True, False or None, "
            f"found {self.found()}{hint}"
        )


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


def _at_most(digits: str, limit: int) -> bool:
    # By length first: int() of thousands of digits is slow, and refused by Python.
    return len(digits) <= len(str(limit)) and int(digits) <= limit


def _literal_text(value: LiteralValue) -> str:
    if isinstance(value, str):
        return '"' + "".join(_WRITTEN_ESCAPES.get(c, c) for c in value) + '"'
    return str(value)
