r"""The type grammar: text to the tree of `types.py`. Nothing is evaluated or looked up by name.

    type     = member ("|" member)*
    member   = name | name "[" type ("," type)* "]"
             | "Optional" "[" type "]" | "Union" "[" type ("," type)* "]"
             | "Literal" "[" value ("," value)* "]" | "embedding" "[" integer "]"
             | "code" "[" string "]" | "None"
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
from types import MappingProxyType
from typing import TYPE_CHECKING

from dspex_protocol.errors import SignatureError
from dspex_protocol.spelling import did_you_mean
from dspex_protocol.types import (
    DSPY_TYPES,
    MAX_EMBEDDING_DIMENSIONS,
    MAX_LITERAL_INTEGER,
    SCALARS,
    SPELLINGS,
    TYPE_NAMES,
    Code,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    LiteralValue,
    Null,
    Scalar,
    SetOf,
    TupleOf,
    Type,
    literal_text,
    unfit_key,
    unhashable,
    union,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["LANGUAGE", "MAX_TYPE_DEPTH", "MAX_TYPE_LENGTH", "Parser", "parse_type"]

# A type written by a person has some tens of characters; a generated Literal may have hundreds of
# members. The limit keeps a parse under a few milliseconds.
MAX_TYPE_LENGTH = 10_000

# Deeper brackets than anybody reads, and far from the recursion limits of this parser, of Pydantic
# and of the JSON Schema that is made from a type.
MAX_TYPE_DEPTH = 32

#: A language's name: it stands in prompts, in a class's name and in a media type.
LANGUAGE = re.compile(r"[A-Za-z0-9#+._-]{1,40}")

_GENERICS = ("list", "set", "tuple", "dict", "Literal", "Optional", "Union", "embedding", "code")


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
_NO_NAMES: Mapping[str, Type] = MappingProxyType({})
_VALUE_WORDS: dict[str, LiteralValue] = {"True": True, "False": False, "None": None}


class Parser:
    """A recursive-descent parser over one text. `dspex_protocol.signatures` uses it for fields.

    Text is looked at no earlier than needed: the error reported is the first in reading order.
    `names` are types that the text may name beside those of the grammar.
    """

    def __init__(self, text: str, names: Mapping[str, Type] = _NO_NAMES) -> None:
        self.text = text
        self._names = names
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
        return union(members)

    def _member(self) -> Type:
        if self.token.kind != "name":
            raise self.error(f"expected a type, found {self.found()}")
        token = self.advance()
        if token.text in self._names and self.token.kind != "[":
            return self._names[token.text]
        name = SPELLINGS.get(token.text, token.text)
        if name == "None":
            return Null()
        if name in SCALARS or name in DSPY_TYPES:
            if self.token.kind == "[" and name != "code":
                raise self.error(f"{token.text} takes nothing in brackets")
            if self.token.kind != "[":
                return Scalar(name)
        elif name not in _GENERICS:
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
        elif name == "code":
            result = Code(self._language())
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
            result = union(members)
            if isinstance(result, Null):
                raise self.error(
                    "None stands only beside another type, as in 'str | None'", position
                )
            return result
        if name == "list":
            return ListOf(self.type())
        if name == "set":
            item = self.type()
            if (wrong := unhashable(item)) is not None:
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
        if (wrong := unfit_key(key)) is not None:
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

    def _language(self) -> str:
        token = self.expect("string", 'the name of a language in quotes, as in code["python"]')
        if not LANGUAGE.fullmatch(token.text):
            raise self.error(
                "the name of a language has 1 to 40 letters, digits and '#', '+', '-', '.', '_'",
                token.position,
            )
        return token.text

    def _literal(self) -> Literal:
        values = [self._literal_value()]
        while self.accept(","):
            values.append(self._literal_value())
        # The dict keeps the order; the text keeps 1 and True apart.
        return Literal(tuple({literal_text(value): value for value in values}.values()))

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


def _at_most(digits: str, limit: int) -> bool:
    # By length first: int() of thousands of digits is slow, and refused by Python.
    return len(digits) <= len(str(limit)) and int(digits) <= limit
