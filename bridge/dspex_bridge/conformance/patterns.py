"""Patterns: what a session expects of a message.

A pattern is JSON. Scalars, and the tagged literals of `literals.py`, are that very value; a list is
a list of as many items, each as its pattern; a map has at least these keys, because results and
errors may grow. The rest is a map with one of these keys:

    {"$any": kind}              a value of a kind; beside it may stand `min` and `max` (a number's),
                                `contains` (a part of a string), `includes` (patterns, each of
                                which some item of a list fits), `items` (the pattern of each item)
    {"$exactly": literal}       that very value: a map has no other keys
    {"$one_of": [pattern, …]}   any of them
    {"$save": name, "as": p}    what fits the pattern, remembered under the name
    {"$saved": name}            the very value that was remembered
"""

from __future__ import annotations

import json
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from .literals import from_json, is_same, tag_of, to_json

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MismatchError", "match", "shown"]

# Of a value beside a pattern that it does not fit.
_MAX_SHOWN_CHARS = 1000


class MismatchError(Exception):
    """What came does not fit. `path` leads to the place."""

    def __init__(self, path: str, expected: str, got: str) -> None:
        super().__init__(f"{path or 'the message'}: expected {expected}, got {got}")


def match(pattern: Any, value: Any, saved: dict[str, Any], path: str = "") -> None:
    """Raises MismatchError where `value` does not fit; remembers what it is told to in `saved`."""
    if isinstance(pattern, list):
        _match_list(pattern, value, saved, path)
    elif not isinstance(pattern, dict):
        _require(is_same(pattern, value), path, shown(pattern), value)
    elif (tag := tag_of(pattern)) is None:
        _match_map(pattern, value, saved, path)
    elif tag in _MATCHERS:
        _MATCHERS[tag](pattern, value, saved, path)
    else:
        _require(is_same(from_json(pattern), value), path, shown(pattern), value)


def shown(value: Any) -> str:
    """A value, or a pattern, as a person reads it."""
    text = json.dumps(to_json(value), ensure_ascii=False, default=repr)
    if len(text) > _MAX_SHOWN_CHARS:
        return f"{text[:_MAX_SHOWN_CHARS]}… ({len(text)} characters)"
    return text


def _require(is_met: bool, path: str, expected: str, value: Any) -> None:
    if not is_met:
        raise MismatchError(path, expected, shown(value))


def _match_list(pattern: list[Any], value: Any, saved: dict[str, Any], path: str) -> None:
    _require(type(value) is list, path, "a list", value)
    _require(len(value) == len(pattern), path, f"a list of {len(pattern)}", value)
    for index, (item, element) in enumerate(zip(pattern, value, strict=True)):
        match(item, element, saved, f"{path}[{index}]")


def _match_map(pattern: dict[str, Any], value: Any, saved: dict[str, Any], path: str) -> None:
    _require(type(value) is dict, path, f"a map with {shown(pattern)}", value)
    for key, item in pattern.items():
        _require(key in value, path, f"the key {key!r}", value)
        match(item, value[key], saved, f"{path}.{key}")


def _match_any(pattern: dict[str, Any], value: Any, saved: dict[str, Any], path: str) -> None:
    kind = pattern["$any"]
    _require(_KINDS[kind](value), path, f"a value of the kind {kind}", value)
    for name, condition in pattern.items():
        if name == "items":
            for index, item in enumerate(value):
                match(condition, item, saved, f"{path}[{index}]")
        elif name == "includes":
            for item in condition:
                found = any(_fits(item, element, saved) for element in value)
                _require(found, path, f"a list that includes {shown(item)}", value)
        elif name != "$any":
            _require(_CONDITIONS[name](value, condition), path, f"{name} {shown(condition)}", value)


def _match_exactly(pattern: dict[str, Any], value: Any, _saved: dict[str, Any], path: str) -> None:
    literal = from_json(pattern["$exactly"])
    _require(is_same(literal, value), path, f"exactly {shown(literal)}", value)


def _match_one_of(pattern: dict[str, Any], value: Any, saved: dict[str, Any], path: str) -> None:
    options = pattern["$one_of"]
    fits = any(_fits(option, value, saved) for option in options)
    _require(fits, path, f"one of {shown(options)}", value)


def _match_save(pattern: dict[str, Any], value: Any, saved: dict[str, Any], path: str) -> None:
    match(pattern["as"], value, saved, path)
    saved[pattern["$save"]] = value


def _match_saved(pattern: dict[str, Any], value: Any, saved: dict[str, Any], path: str) -> None:
    known = saved[pattern["$saved"]]
    _require(is_same(known, value), path, shown(known), value)


def _fits(pattern: Any, value: Any, saved: dict[str, Any]) -> bool:
    try:
        match(pattern, value, saved)
    except MismatchError:
        return False
    return True


_MATCHERS: dict[str, Callable[[dict[str, Any], Any, dict[str, Any], str], None]] = {
    "$any": _match_any,
    "$exactly": _match_exactly,
    "$one_of": _match_one_of,
    "$save": _match_save,
    "$saved": _match_saved,
}

_KINDS: dict[str, Callable[[Any], bool]] = {
    "value": lambda _value: True,
    "nil": lambda value: value is None,
    "boolean": lambda value: type(value) is bool,
    "integer": lambda value: type(value) is int,
    "float": lambda value: type(value) is float,
    "number": lambda value: type(value) in (int, float),
    "string": lambda value: type(value) is str,
    "bytes": lambda value: type(value) is bytes,
    "list": lambda value: type(value) is list,
    "map": lambda value: type(value) is dict,
    "timestamp": lambda value: isinstance(value, datetime),
    "decimal": lambda value: isinstance(value, Decimal),
    "tensor": lambda value: hasattr(value, "dtype"),
}

_CONDITIONS: dict[str, Callable[[Any, Any], bool]] = {
    "min": lambda value, least: value >= least,
    "max": lambda value, most: value <= most,
    "contains": lambda value, part: part in value,
}
