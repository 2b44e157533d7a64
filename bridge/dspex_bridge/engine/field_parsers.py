"""Cuts an LM's answer, as it comes, into the text of its fields: free of markup and quoting.

One parser a form of answer. Each is fed the answer in pieces of any size and gives `Piece`s; the
texts of a field joined are what DSPy's adapter will parse out of the whole answer for a `str`
field, as far as that can be known before the end. The work is linear in the length of the answer
however it is cut: parsers run on the event loop.
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
        self._gap: list[str] = []
        self._has_begun = False

    def add(self, text: str) -> list[Piece]:
        if not self._has_begun:
            text = text.lstrip()
        kept = text.rstrip()
        if not kept:
            self._gap.append(text)
            return []
        whole = "".join([*self._gap, kept]) if self._gap else kept
        self._gap = [text[len(kept) :]] if len(text) > len(kept) else []
        self._has_begun = True
        return [Piece(self.name, whole, False)]

    def drop_gap(self) -> None:
        """Forget the white space that the text ends with so far."""
        self._gap = []

    def end(self) -> list[Piece]:
        return [Piece(self.name, "", True)]


class _Scanner:
    """Runs a parser's states over the text.

    A state consumes what it can from the buffer and gives pieces, or None for "more, please". What
    it leaves unconsumed then is short, whatever the text: the next feed copies and rescans it.
    """

    def __init__(self, state: Callable[[], list[Piece] | None]) -> None:
        self._buffer = ""
        self._position = 0
        self._state = state

    def feed(self, text: str) -> list[Piece]:
        self._buffer = self._buffer[self._position :] + text
        self._position = 0
        pieces: list[Piece] = []
        while self._position < len(self._buffer) and (found := self._state()) is not None:
            pieces += found
        return pieces

    def close(self) -> list[Piece]:
        return []

    def _take(self, pattern: re.Pattern[str]) -> str:
        """Consume what the pattern, which matches nothing as well, matches here."""
        match = pattern.match(self._buffer, self._position)
        assert match is not None  # noqa: S101 - see above
        self._position = match.end()
        return match.group()

    def _ahead(self, length: int) -> str:
        """At most this many characters that come next."""
        return self._buffer[self._position : self._position + length]


# What `str.splitlines` splits at, which is how DSPy's Chat adapter finds its headers.
_LINE_END = re.compile("\r\n|[\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]")
_INDENT = re.compile("[^\\S\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029]*")
_WORD = re.compile(r"\w*")
_OPENING, _CLOSING = "[[ ## ", " ## ]]"


class ChatParser(_Scanner):
    """`[[ ## field ## ]]` headers, each at the beginning of a line."""

    def __init__(self, fields: set[str]) -> None:
        super().__init__(self._before_line)
        self._left = set(fields)
        self._field: _Field | None = None
        self._name: list[str] = []
        self._is_header_line = False

    def close(self) -> list[Piece]:
        # A header that was not finished is text.
        begun = self._begun_header() if self._state == self._in_name else ""
        return self._content(begun + self._buffer[self._position :]) + self._end_field()

    def _before_line(self) -> list[Piece] | None:
        # Before a header this is the end of a field, which drops it.
        pieces = self._content(self._take(_INDENT))
        ahead = self._ahead(len(_OPENING))
        if ahead == _OPENING:
            self._position += len(_OPENING)
            self._name = []
            self._state = self._in_name
        elif _OPENING.startswith(ahead):
            return pieces or None
        else:
            self._is_header_line = False
            self._state = self._in_line
        return pieces

    def _in_name(self) -> list[Piece] | None:
        # However long: a header of no field of ours ends the field before it, too.
        self._name.append(self._take(_WORD))
        ahead = self._ahead(len(_CLOSING))
        if ahead != _CLOSING and _CLOSING.startswith(ahead):
            return None
        name = "".join(self._name)
        self._is_header_line = ahead == _CLOSING and name != ""
        self._state = self._in_line
        if not self._is_header_line:
            return self._content(self._begun_header())
        self._position += len(_CLOSING)
        pieces = self._end_field()
        if name in self._left:
            # Of a field that comes twice the adapter takes the first.
            self._left.remove(name)
            self._field = _Field(name)
        return pieces

    def _in_line(self) -> list[Piece] | None:
        end = _LINE_END.search(self._buffer, self._position)
        stop = len(self._buffer) if end is None else end.start()
        pieces = self._content(self._buffer[self._position : stop])
        self._position = stop
        if end is None or (end.group() == "\r" and end.end() == len(self._buffer)):
            return pieces or None  # a "\r" is perhaps the half of "\r\n"
        self._position = end.end()
        self._state = self._before_line
        if self._is_header_line and self._field is not None:
            self._field.drop_gap()  # the adapter strips what follows a header
        return pieces + self._content("\n")

    def _begun_header(self) -> str:
        return _OPENING + "".join(self._name)

    def _content(self, text: str) -> list[Piece]:
        return [] if self._field is None else self._field.add(text)

    def _end_field(self) -> list[Piece]:
        field, self._field = self._field, None
        return [] if field is None else field.end()


class JsonParser(_Scanner):
    """A JSON object: the decoded text of values that are strings, the raw text of the others."""

    def __init__(self, fields: set[str]) -> None:
        super().__init__(self._before_object)
        self._left = set(fields)
        self._field: _Field | None = None
        self._key: list[str] = []
        self._depth = 0
        self._in_string = False
        self._is_escaped = False

    def _before_object(self) -> list[Piece] | None:
        found = self._buffer.find("{", self._position)
        if found < 0:
            return self._ignored()
        self._position = found + 1
        self._state = self._before_key
        return []

    def _before_key(self) -> list[Piece] | None:
        self._take(_SEPARATORS)
        self._key = []
        return self._expect('"', self._in_key)

    def _in_key(self) -> list[Piece] | None:
        self._key.append(self._take(_QUOTED))
        if self._ahead(1) != '"':
            return None
        self._position += 1
        name = _decoded("".join(self._key))
        self._field = _Field(name) if name in self._left else None
        self._left.discard(name)
        self._state = self._before_colon
        return []

    def _before_colon(self) -> list[Piece] | None:
        self._take(_SPACE)
        return self._expect(":", self._before_value)

    def _before_value(self) -> list[Piece] | None:
        self._take(_SPACE)
        ahead = self._ahead(1)
        if not ahead:
            return None
        if ahead == '"':
            self._position += 1
            self._state = self._in_text
        else:
            self._depth = 0
            self._state = self._in_value
        return []

    def _in_text(self) -> list[Piece] | None:
        """Inside a string value: whole characters and escapes only."""
        text = self._take(_TEXT)
        pieces = [Piece(self._field.name, _decoded(text), False)] if self._field and text else []
        ahead = self._ahead(_LONGEST_ESCAPE)
        if ahead.startswith('"'):
            return pieces + self._end_value(self._position + 1)
        if len(ahead) == _LONGEST_ESCAPE:
            self._state = self._ignored  # no escape: how the adapter repairs it is not known here
        return pieces or None

    def _in_value(self) -> list[Piece] | None:
        """Inside a number, a literal, an array or an object: its text, up to the end of it."""
        for index in range(self._position, len(self._buffer)):
            char = self._buffer[index]
            if self._is_escaped:
                self._is_escaped = False
            elif self._in_string:
                self._is_escaped = char == "\\"
                self._in_string = char != '"'
            elif char == '"':
                self._in_string = True
            elif char in "[{":
                self._depth += 1
            elif char in "]}" and self._depth:
                self._depth -= 1
            elif char in ",}" and not self._depth:
                return self._raw(index) + self._end_value(index)
        return self._raw(len(self._buffer)) or None

    def _ignored(self) -> list[Piece] | None:
        """Outside of the object, or where it is none."""
        self._position = len(self._buffer)
        return None

    def _expect(self, char: str, state: Callable[[], list[Piece] | None]) -> list[Piece] | None:
        ahead = self._ahead(1)
        if not ahead:
            return None
        self._position += 1
        self._state = state if ahead == char else self._ignored
        return []

    def _raw(self, end: int) -> list[Piece]:
        text = self._buffer[self._position : end]
        self._position = end
        return [] if self._field is None else self._field.add(text)

    def _end_value(self, position: int) -> list[Piece]:
        self._position = position
        self._state = self._before_key
        return [] if self._field is None else self._field.end()


_SPACE = re.compile(r"\s*")
_SEPARATORS = re.compile(r"[\s,]*")
# A string's inside, without the half of an escape.
_QUOTED = re.compile(r'(?:[^"\\]++|\\.)*+', re.DOTALL)

# Characters and whole escapes; of a pair of surrogates both or none.
_TEXT = re.compile(
    r'(?:[^"\\]++|\\["\\/bfnrt]|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    r"|\\u(?![dD][89abAB])[0-9a-fA-F]{4})*+"
)
_LONGEST_ESCAPE = len(r"\ud83d\ude00")


def _decoded(text: str) -> str:
    if "\\" not in text:
        return text
    try:
        decoded: str = json.loads(f'"{text}"', strict=False)
    except ValueError:
        return text
    return decoded


_TAG = re.compile(r"<([A-Za-z_]\w*+)>")


class XmlParser(_Scanner):
    """`<field>text</field>` elements, one after another."""

    def __init__(self, fields: set[str]) -> None:
        super().__init__(self._outside)
        self._left = set(fields)
        self._longest_tag = max((len(f"<{name}>") for name in fields), default=0)
        self._field = _Field("")

    def _outside(self) -> list[Piece] | None:
        match = _TAG.search(self._buffer, self._position)
        if match is None:
            self._position = self._before_last("<", self._longest_tag)
            return None
        self._position = match.end()
        if match.group(1) in self._left:
            self._left.remove(match.group(1))
            self._field = _Field(match.group(1))
            self._state = self._inside
        return []

    def _inside(self) -> list[Piece] | None:
        closing = f"</{self._field.name}>"
        end = self._buffer.find(closing, self._position)
        if end >= 0:
            text = self._buffer[self._position : end]
            self._position = end + len(closing)
            self._state = self._outside
            return self._field.add(unescape(text)) + self._field.end()
        # What could be the beginning of the closing tag, or half an entity, waits.
        cut = self._before_last("<", len(closing))
        entity = self._before_last("&", _LONGEST_ENTITY)
        if _HALF_ENTITY.match(self._buffer, entity):
            cut = min(cut, entity)
        text = self._buffer[self._position : cut]
        self._position = cut
        return self._field.add(unescape(text)) or None

    def _before_last(self, opening: str, length: int) -> int:
        """Where markup of this length that is not whole yet begins; else the buffer's end."""
        start = max(self._position, len(self._buffer) - length + 1)
        found = self._buffer.rfind(opening, start)
        return len(self._buffer) if found < 0 else found


_HALF_ENTITY = re.compile(r"&[#\w]*\Z")
# The longest name that HTML has, and more digits than a character's number has.
_LONGEST_ENTITY = len("&CounterClockwiseContourIntegral;")
