"""The errors of one validation, and the path to where it is."""

from __future__ import annotations

from typing import Any, Final

from dspex_protocol.signatures import MISSING

from .wire_values import render

__all__ = ["ERROR_TYPES", "MAX_ERRORS", "Errors", "TooManyErrors", "summary"]

#: Every `type` that an error can have.
ERROR_TYPES: Final = (
    *("missing", "unexpected", "type", "literal", "length", "key"),
    *("min", "max", "multiple_of", "min_length", "max_length", "pattern", "format", "one_of"),
    *("dimensions", "min_items", "max_items", "unique"),
)

# A list of a million wrong items would otherwise make an answer larger than the request.
MAX_ERRORS = 100

# Lines in the message of an error; its data has them all.
_SHOWN_ERRORS = 5


class TooManyErrors(Exception):
    """Ends a walk that has found as many errors as it may."""


class Errors:
    """The errors of one walk, and the path to where it is."""

    __slots__ = ("found", "limit", "path", "truncated")

    def __init__(self, limit: int) -> None:
        self.found: list[dict[str, Any]] = []
        self.path: list[str | int] = []
        self.limit = limit
        self.truncated = False

    def add(self, kind: str, expected: str, value: Any, reason: str = "") -> None:
        if len(self.found) == self.limit:
            self.truncated = True
            raise TooManyErrors
        got = "nothing" if value is MISSING else render(value)
        if kind == "unexpected":
            # What its value is matters to nobody.
            message = f"there is {expected}" + (f" ({reason})" if reason else "")
        else:
            message = f"expected {expected}, got {got}" + (f": {reason}" if reason else "")
        error = {"path": list(self.path), "type": kind, "message": message}
        self.found.append({**error, "expected": expected, "got": got})


def summary(errors: Errors, side: str) -> str:
    """All of it in one line: `2 errors in the inputs: n: expected int, got "x"; …`."""
    found = errors.found
    count = "1 error" if len(found) == 1 else f"{len(found)} errors"
    shown = [f"{_place(error['path'])}: {error['message']}" for error in found[:_SHOWN_ERRORS]]
    if len(found) > _SHOWN_ERRORS:
        shown.append(f"and {'more than ' * errors.truncated}{len(found) - _SHOWN_ERRORS} more")
    return f"{count} in the {side}: {'; '.join(shown)}"


def _place(path: list[str | int]) -> str:
    first = str(path[0])
    shown = first if first.isidentifier() else repr(first)
    return shown + "".join(f"[{part!r}]" for part in path[1:])
