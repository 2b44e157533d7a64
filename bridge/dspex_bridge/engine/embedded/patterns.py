"""Regular expressions of a schema: does a text match, and a short text that does.

Matching is pydantic-core's, which is linear in the text: Python's own `re` would let one hostile
pattern hang the bridge.
"""

from collections.abc import Callable
from typing import Final

from pydantic_core import SchemaError, SchemaValidator, core_schema

__all__ = ["matcher", "sample"]

# Counted repetitions multiply when they nest; no sample grows beyond this many characters.
SAMPLE_LIMIT: Final = 4096
# Unbounded repetitions are tried this often, so that a least length can be reached.
_REPETITIONS: Final = (0, 1, 2, 4, 8, 16, 32, 64)

_ESCAPES: Final = {
    **{"d": "0", "D": "a", "w": "a", "W": "-", "s": " ", "S": "a", "p": "A", "P": "a"},
    **{"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v"},
    **dict.fromkeys("AbBzZG", ""),
}
# What a negated class is answered with: the first of these that it does not name.
_OUTSIDERS: Final = "a0A-_ .b1B"


def matcher(pattern: str) -> Callable[[str], bool] | None:
    """A test whether a text contains a match; None where pydantic-core refuses the pattern."""
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern)).isinstance_python
    except SchemaError:
        return None


def sample(pattern: str, min_length: int = 0, max_length: int | None = None) -> str | None:
    """A short text of the wanted length that matches; None where none was found.

    Alternatives, groups, classes, escapes, counts and anchors are understood; of look-arounds,
    back references and boundaries only what happens to match.
    """
    matches = matcher(pattern)
    if matches is None:
        return None
    for repetitions in _REPETITIONS:
        try:
            text = _Sampler(pattern, repetitions).alternatives()
        except (ValueError, IndexError, RecursionError):
            return None
        if max_length is not None and len(text) > max_length:
            return None
        if len(text) >= min_length and matches(text):
            return text
    return None


class _Sampler:
    """One pass over a pattern. Raises ValueError or IndexError at what it does not understand."""

    def __init__(self, pattern: str, repetitions: int) -> None:
        self._pattern = pattern
        self._at = 0
        self._repetitions = repetitions

    def alternatives(self) -> str:
        """The first alternative's text; stops behind the closing bracket or at the end."""
        first = self._sequence()
        while self._peek() == "|":
            self._at += 1
            self._sequence()
        if self._peek() == ")":
            self._at += 1
        return first

    def _peek(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _next(self) -> str:
        self._at += 1
        return self._pattern[self._at - 1]

    def _sequence(self) -> str:
        text = ""
        while self._peek() not in ("", "|", ")"):
            text += self._repeated(self._atom())
            if len(text) > SAMPLE_LIMIT:
                raise ValueError("the sample grows too long")
        return text

    def _repeated(self, atom: str) -> str:
        quantifier = self._peek()
        if quantifier in ("*", "+"):
            self._at += 1
            count = max(self._repetitions, int(quantifier == "+"))
        elif quantifier == "?":
            self._at += 1
            count = 0
        elif quantifier == "{":
            end = self._pattern.index("}", self._at)
            least, comma, most = self._pattern[self._at + 1 : end].partition(",")
            self._at = end + 1
            count = int(least or 0)
            if comma:
                ceiling = int(most) if most else count + self._repetitions
                count = min(max(count, self._repetitions), ceiling)
        else:
            return atom
        if self._peek() in ("?", "+"):  # lazy and possessive match the same texts
            self._at += 1
        if len(atom) * count > SAMPLE_LIMIT:
            raise ValueError("the sample grows too long")
        return atom * count

    def _atom(self) -> str:
        char = self._next()
        if char == "(":
            return self._group()
        if char == "[":
            return self._class()
        if char == "\\":
            return self._escape()
        if char in "^$":
            return ""
        return "a" if char == "." else char

    def _group(self) -> str:
        if self._peek() != "?":
            return self.alternatives()
        self._at += 1
        mark = self._next()
        if mark in "=!":
            self.alternatives()
            return ""
        if mark in "P<":
            self._at = self._pattern.index(">", self._at) + 1
            return self.alternatives()
        while mark not in ":)":  # flags
            mark = self._next()
        return self.alternatives() if mark == ":" else ""

    def _escape(self) -> str:
        char = self._next()
        if char in "xu":
            digits = 2 if char == "x" else 4
            self._at += digits
            return chr(int(self._pattern[self._at - digits : self._at], 16))
        if char in "pP" and self._peek() == "{":
            self._at = self._pattern.index("}", self._at) + 1
        elif char in "pP":
            self._at += 1
        return _ESCAPES.get(char, char)

    def _class(self) -> str:
        negated = self._peek() == "^"
        self._at += negated
        members: list[str] = []
        ranges: list[tuple[str, str]] = []
        while self._peek() != "]" or not members:
            char = self._next()
            if char == "[" and self._peek() == ":":
                self._at = self._pattern.index("]", self._at) + 1
                char = "a"
            elif char == "\\":
                char = self._escape()
            if self._peek() == "-" and self._pattern[self._at + 1] != "]":
                self._at += 1
                end = self._next()
                ranges.append((char, self._escape() if end == "\\" else end))
            members.append(char)
        self._at += 1
        if not negated:
            return members[0]
        return next(
            outsider
            for outsider in _OUTSIDERS
            if outsider not in members and not any(a <= outsider <= b for a, b in ranges)
        )
