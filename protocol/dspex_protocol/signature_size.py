"""How large a signature may be, all of its fields together.

A type is a tree: what a `$ref` names is read wherever it is named, and a few lines of references
to references are any number of types. What a signature costs to those who build it is by these
numbers, so they are counted while it is read, and reading ends where one is reached.
"""

from __future__ import annotations

from typing import Any

from dspex_protocol.refusals import Path, refused_at
from dspex_protocol.types import Literal, Type, walk

__all__ = [
    "MAX_CHARS",
    "MAX_PATTERNS",
    "MAX_TYPES",
    "MAX_VALUES",
    "SignatureSize",
    "chars_of",
    "counts_of",
]

# A form of a hundred fields has a few hundred. Each is a fraction of a millisecond to an engine.
MAX_TYPES = 2_000

# Of enums and Literals: a generated one may have hundreds, and there may be a few of them.
MAX_VALUES = 5_000

# Of names, descriptions, defaults and values within types: far more than an LM reads.
MAX_CHARS = 1_000_000

# A few characters of a regular expression (`\w{1,100}`) are tens of milliseconds to compile.
MAX_PATTERNS = 50

# What an item of a list or a map counts beside its text: to go through it takes as long.
_ITEM_CHARS = 10

_WORDS = {
    "types": (MAX_TYPES, "types (every $ref resolved)"),
    "values": (MAX_VALUES, "values in its enums and Literals (every $ref resolved)"),
    "patterns": (MAX_PATTERNS, "patterns (every $ref resolved)"),
    "chars": (MAX_CHARS, "characters in its types (every $ref resolved)"),
}


class SignatureSize:
    """What has been counted so far of a signature, or of all that are read for one request."""

    __slots__ = ("_counted",)

    def __init__(self) -> None:
        self._counted = dict.fromkeys(_WORDS, 0)

    def add(self, **counts: int) -> str | None:
        """Counts more `types`, `values`, `patterns` and `chars`: why that is too much, or None."""
        for what, count in counts.items():
            self._counted[what] += count
            most, words = _WORDS[what]
            if self._counted[what] > most:
                return (
                    "this is too large: a signature, all fields of all steps and tools "
                    f"together, has at most {most} {words}"
                )
        return None

    def check(self, path: Path, **counts: int) -> None:
        """As `add`. Raises SignatureError for the place where it is too much."""
        if (wrong := self.add(**counts)) is not None:
            raise refused_at(path, wrong)


def counts_of(type_: Type) -> dict[str, int]:
    """The types and values in a type, for `SignatureSize.add`."""
    types = list(walk(type_))
    values = sum(len(part.values) for part in types if isinstance(part, Literal))
    return {"types": len(types), "values": values}


def chars_of(value: Any, most: int = MAX_CHARS + 1) -> int:
    """The characters of the texts in a JSON value, and ten for each of its items and keys. Beyond
    `most` nothing is counted, so that no value takes long."""
    count, todo = 0, [value]
    while todo and count < most:
        item = todo.pop()
        if isinstance(item, str):
            count += len(item)
        elif isinstance(item, dict | list) and len(item) * _ITEM_CHARS >= most:
            return most
        elif isinstance(item, dict):
            todo += [*item, *item.values()]
        elif isinstance(item, list):
            todo += item
        count += _ITEM_CHARS
    return count
