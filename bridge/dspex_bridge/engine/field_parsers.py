"""Cuts an LM's answer, as it comes, into the text of its fields: free of markup and quoting.

One parser a form of answer. Each is fed the answer in pieces of any size and gives `Piece`s; the
texts of a field joined are what DSPy's adapter will parse out of the whole answer for a `str`
field, as far as that can be known before the end.
"""

from __future__ import annotations

import json
import re
from html import unescape
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ChatParser", "FieldParser", "JsonParser", "Piece", "XmlParser"]


class Piece(NamedTuple):
    field: str
    text: str
    is_last: bool


class FieldParser(Protocol):
    def __init__(self, fields: set[str]) -> None: ...

    def feed(self, text: str) -> list[Piece]: ...

    def close(self) -> list[Piece]:
        """The end of the answer."""
        ...


class _Field:
    """One field's text, without the white space around it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._gap = ""
        self._has_begun = False

    def add(self, text: str) -> list[Piece]:
        text = self._gap + text if self._has_begun else text.lstrip()
        kept = text.rstrip()
        self._gap = text[len(kept) :]
        if not kept:
            return []
        self._has_begun = True
        return [Piece(self.name, kept, False)]

    def end(self) -> list[Piece]:
        return [Piece(self.name, "", True)]


# What `str.splitlines` splits at, which is how DSPy's Chat adapter finds its headers.
_LINE_END = re.compile("\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_HEADER = re.compile(r"\[\[ ## (\w+) ## \]\]")


class ChatParser:
    """`[[ ## field ## ]]` headers, each at the beginning of a line."""

    def __init__(self, fields: set[str]) -> None:
        self._left = set(fields)
        self._field: _Field | None = None
        self._held = ""
        self._is_line_start = True

    def feed(self, text: str) -> list[Piece]:
        pieces: list[Piece] = []
        text = self._held + text
        self._held = ""
        while text:
            match = _LINE_END.search(text)
            if match is None:
                return pieces + self._unfinished_line(text)
            if match.group() == "\r" and match.end() == len(text):
                self._held = text  # perhaps the half of "\r\n"
                return pieces
            pieces += self._rest_of_line(text[: match.start()])
            pieces += self._content("\n")
            self._is_line_start = True
            text = text[match.end() :]
        return pieces

    def close(self) -> list[Piece]:
        pieces = self._rest_of_line(self._held)
        return pieces + self._end_field()

    def _unfinished_line(self, text: str) -> list[Piece]:
        if self._is_line_start and _may_become_header(text.lstrip()):
            self._held = text
            return []
        return self._rest_of_line(text)

    def _rest_of_line(self, text: str) -> list[Piece]:
        match = _HEADER.match(text.strip()) if self._is_line_start else None
        self._is_line_start = False
        if match is None:
            return self._content(text)
        pieces = self._end_field()
        if match.group(1) in self._left:
            # Of a field that comes twice the adapter takes the first.
            self._left.remove(match.group(1))
            self._field = _Field(match.group(1))
        return pieces + self._content(text.strip()[match.end() :])

    def _content(self, text: str) -> list[Piece]:
        return [] if self._field is None else self._field.add(text)

    def _end_field(self) -> list[Piece]:
        field, self._field = self._field, None
        return [] if field is None else field.end()


def _may_become_header(line: str) -> bool:
    """Whether more text could make this the beginning of a header, or it is one already."""
    opening, closing = "[[ ## ", " ## ]]"
    if len(line) <= len(opening):
        return opening.startswith(line)
    if not line.startswith(opening):
        return False
    name = re.match(r"\w*", line[len(opening) :])
    rest = line[len(opening) + (name.end() if name else 0) :]
    return closing.startswith(rest) or rest.startswith(closing)


class JsonParser:
    """A JSON object: the decoded text of values that are strings, the raw text of the others."""

    def __init__(self, fields: set[str]) -> None:
        self._left = set(fields)
        self._buffer = ""
        self._position = 0
        self._state: Callable[[], list[Piece] | None] = self._before_object
        self._name: str | None = None
        self._depth = 0
        self._in_string = False

    def feed(self, text: str) -> list[Piece]:
        self._buffer = self._buffer[self._position :] + text
        self._position = 0
        pieces: list[Piece] = []
        while (found := self._state()) is not None:
            pieces += found
        return pieces

    def close(self) -> list[Piece]:
        return []

    # Each state consumes what it can from the buffer and gives pieces, or None for "more, please".

    def _before_object(self) -> list[Piece] | None:
        found = self._buffer.find("{", self._position)
        if found < 0:
            self._position = len(self._buffer)
            return None
        self._position = found + 1
        self._state = self._before_key
        return []

    def _before_key(self) -> list[Piece] | None:
        end = _KEY.match(self._buffer, self._position)
        if end is None:
            return None
        name = _decoded(end.group(1))
        self._name = name if name in self._left else None
        self._left.discard(name)
        self._position = end.end()
        if self._buffer[self._position] == '"':
            self._position += 1
            self._state = self._in_text
        else:
            self._depth, self._in_string = 0, False
            self._state = self._in_value
        return []

    def _in_text(self) -> list[Piece] | None:
        """Inside a string value: whole characters and escapes only."""
        whole = _TEXT.match(self._buffer, self._position)
        assert whole is not None  # noqa: S101 - the pattern matches nothing as well
        text = whole.group()
        self._position = whole.end()
        pieces = self._piece(_decoded(text), is_last=False) if text else []
        if self._position < len(self._buffer) and self._buffer[self._position] == '"':
            self._position += 1
            self._state = self._before_key
            return pieces + self._piece("", is_last=True)
        if not pieces:
            return None
        return pieces

    def _in_value(self) -> list[Piece] | None:
        """Inside a number, a literal, an array or an object: its text, up to the end of it."""
        start = index = self._position
        while index < len(self._buffer):
            char = self._buffer[index]
            if self._in_string:
                if char == "\\":
                    index += 1
                    if index == len(self._buffer):
                        break
                elif char == '"':
                    self._in_string = False
            elif char == '"':
                self._in_string = True
            elif char in "[{":
                self._depth += 1
            elif char in "]}" and self._depth:
                self._depth -= 1
            elif char in ",}" and not self._depth:
                self._position = index
                self._state = self._before_key
                raw = self._buffer[start:index].rstrip()
                return self._piece(raw, is_last=False) + self._piece("", is_last=True)
            index += 1
        # The white space before its end is not known to be the last: the value waits whole.
        self._position = start
        self._depth, self._in_string = 0, False
        return None

    def _piece(self, text: str, *, is_last: bool) -> list[Piece]:
        if self._name is None or not (text or is_last):
            return []
        return [Piece(self._name, text, is_last)]


_KEY = re.compile(r'[\s,]*"((?:[^"\\]|\\.)*)"\s*:\s*(?=\S)', re.DOTALL)

# Characters and whole escapes; of a pair of surrogates both or none.
_TEXT = re.compile(
    r'(?:[^"\\]|\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*"
)


def _decoded(text: str) -> str:
    try:
        decoded: str = json.loads(f'"{text}"', strict=False)
    except ValueError:
        return text
    return decoded


class XmlParser:
    """`<field>text</field>` elements, one after another."""

    def __init__(self, fields: set[str]) -> None:
        self._left = set(fields)
        self._buffer = ""
        self._field: _Field | None = None

    def feed(self, text: str) -> list[Piece]:
        self._buffer += text
        pieces: list[Piece] = []
        while (found := self._step()) is not None:
            pieces += found
        return pieces

    def close(self) -> list[Piece]:
        return []

    def _step(self) -> list[Piece] | None:
        if self._field is None:
            return self._outside()
        return self._inside(self._field)

    def _outside(self) -> list[Piece] | None:
        match = re.search(r"<([A-Za-z_]\w*)>", self._buffer)
        if match is None:
            # The beginning of a tag stays.
            self._buffer = self._buffer[max(0, self._buffer.rfind("<")) :]
            return None
        self._buffer = self._buffer[match.end() :]
        if match.group(1) in self._left:
            self._left.remove(match.group(1))
            self._field = _Field(match.group(1))
        return []

    def _inside(self, field: _Field) -> list[Piece] | None:
        closing = f"</{field.name}>"
        end = self._buffer.find(closing)
        if end >= 0:
            text, self._buffer = self._buffer[:end], self._buffer[end + len(closing) :]
            self._field = None
            return field.add(unescape(text)) + field.end()
        # What could be the beginning of the closing tag, or half an entity, waits.
        cut = len(self._buffer)
        for opening in ("<", "&"):
            found = self._buffer.rfind(opening)
            if found >= 0 and len(self._buffer) - found < len(closing) + 10:
                cut = min(cut, found)
        text, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return field.add(unescape(text)) or None
