"""Does a value satisfy a JSON Schema, and if nearly, what would.

It reads the keywords that pydantic writes for the types of a signature. The answer is the value
itself, the same value in the schema's own type (the text "4" for an integer), or `MISSING`.
"""

import json
import math
import re
from collections.abc import Callable
from datetime import date, datetime, time
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final
from uuid import UUID

from .patterns import matcher
from .schemas import DECIMAL, MAX_DEPTH, UNKNOWN, Schema, alternatives, resolve

__all__ = ["MISSING", "Missing", "conform"]


class Missing(Enum):
    """The type of `MISSING`, which is no value (None is one)."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING

# A union of references to itself would be walked for ever, and a small one exponentially long.
MAX_STEPS: Final = 100_000

_INTEGER: Final = re.compile(r"[-+]?\d{1,4000}")  # Python refuses to read longer ones
_NUMBER: Final = re.compile(r"[-+]?(?:\d{1,400}\.?\d{0,400}|\.\d{1,400})(?:[eE][-+]?\d{1,3})?")

# Python reads more ISO forms (weeks, no separators) than pydantic does: hence the shapes.
_FORMATS: Final[dict[str, tuple[re.Pattern[str], Callable[[str], object]]]] = {
    "date": (re.compile(r"\d{4}-\d\d-\d\d"), date.fromisoformat),
    "date-time": (re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d\S*)?"), datetime.fromisoformat),
    "time": (re.compile(r"\d\d:\d\d\S*"), time.fromisoformat),
    "email": (re.compile(r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), str),
    "hostname": (re.compile(r"(?!-)[A-Za-z\d-]{1,63}(?:\.[A-Za-z\d][A-Za-z\d-]{0,62}){0,8}"), str),
    "ipv4": (re.compile(r"[\d.]{7,15}"), IPv4Address),
    "ipv6": (re.compile(r"[\da-fA-F:.]{2,45}"), IPv6Address),
    "uri": (re.compile(r"[A-Za-z][A-Za-z\d+.-]{0,30}:\S{1,5000}"), str),
    "duration": (re.compile(r"[-+]?P[\dYMWDTHS.]+"), str),
    "uuid": (re.compile(r"[\da-fA-F-]{32,36}"), UUID),
}


def conform(value: Any, schema: Schema, root: Schema | None = None) -> Any | Missing:
    """`value` as the schema wants it, or MISSING. References are looked up in `root`."""
    return _Check(schema if root is None else root).value(value, schema, 0)


class _Check:
    def __init__(self, root: Schema) -> None:
        self._root = root
        self._steps = 0

    def value(self, value: Any, schema: Any, depth: int) -> Any | Missing:
        self._steps += 1
        if depth > MAX_DEPTH or self._steps > MAX_STEPS:
            return MISSING
        schema, _references = resolve(schema, self._root)
        if "const" in schema:
            return _one_of(value, [schema["const"]])
        if "enum" in schema:
            return _one_of(value, schema["enum"])
        options = alternatives(schema)
        if options is not None:
            return self._union(value, options, depth)
        match schema.get("type"):
            case "null":
                return MISSING if value is not None else None
            case "string":
                return _string(value, schema)
            case "boolean":
                return _boolean(value)
            case "integer" | "number" as kind:
                return _number(value, schema, kind)
            case "array":
                return self._array(value, schema, depth)
            case "object":
                return self._object(value, schema, depth)
        if schema == UNKNOWN and value is None:
            return MISSING
        return value if _is_shallow(value) else MISSING

    def _union(self, value: Any, options: list[Schema], depth: int) -> Any | Missing:
        found = [self.value(value, option, depth + 1) for option in options]
        # An option that takes the value as it is comes before one that would convert it.
        for candidate in found:
            if type(candidate) is type(value) and candidate == value:
                return candidate
        return next((candidate for candidate in found if candidate is not MISSING), MISSING)

    def _array(self, value: Any, schema: Schema, depth: int) -> Any | Missing:
        if not isinstance(value, list) or not _fits(len(value), schema, "Items"):
            return MISSING
        first = schema.get("prefixItems", [])
        rest = schema.get("items", {})
        items = [
            self.value(item, first[index] if index < len(first) else rest, depth + 1)
            for index, item in enumerate(value)
        ]
        if MISSING in items:
            return MISSING
        if schema.get("uniqueItems") and len({json.dumps(item) for item in items}) < len(items):
            return MISSING
        return items

    def _object(self, value: Any, schema: Schema, depth: int) -> Any | Missing:
        if not isinstance(value, dict) or not _fits(len(value), schema, "Properties"):
            return MISSING
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", {})
        found: dict[str, Any] = {}
        for key, item in value.items():
            if key in properties or others is not False:
                found[key] = self.value(item, properties.get(key, others), depth + 1)
                if found[key] is MISSING:
                    return MISSING
        for key in schema.get("required", ()):
            # A strict response format requires what the type itself has a default for.
            if key not in found and "default" not in properties.get(key, {}):
                found[key] = self.value(None, properties.get(key, {}), depth + 1)
                if found[key] is MISSING:
                    return MISSING
        return found


def _is_shallow(value: Any) -> bool:
    """Whether lists and maps of any type nest no deeper than is handled."""
    level = [value]
    for _depth in range(MAX_DEPTH):
        level = [
            part
            for node in level
            if isinstance(node, list | dict)
            for part in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return True
    return False


def _one_of(value: Any, options: list[Any]) -> Any | Missing:
    for option in options:
        if option == value and isinstance(option, bool) == isinstance(value, bool):
            return option
    if isinstance(value, str):
        for option in options:
            if str(option).strip() == value.strip():
                return option
    return MISSING


def _fits(size: int, schema: Schema, what: str) -> bool:
    most = schema.get(f"max{what}")
    return size >= schema.get(f"min{what}", 0) and (most is None or size <= most)


def _string(value: Any, schema: Schema) -> Any | Missing:
    if not isinstance(value, str) or not _fits(len(value), schema, "Length"):
        return MISSING
    if "pattern" in schema:
        matches = matcher(schema["pattern"])
        if matches is None or not matches(value):
            return MISSING
    if schema.get("format") in _FORMATS:
        shape, read = _FORMATS[schema["format"]]
        if not shape.fullmatch(value):
            return MISSING
        try:
            read(value)
        except ValueError:
            return MISSING
    return value


def _boolean(value: Any) -> Any | Missing:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower(), MISSING)
    return value if isinstance(value, bool) else MISSING


def _number(value: Any, schema: Schema, kind: str) -> Any | Missing:
    given = value
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            value = int(text)
        elif _NUMBER.fullmatch(text):
            value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return MISSING
    if isinstance(value, float):
        if not math.isfinite(value) or (kind == "integer" and not value.is_integer()):
            return MISSING
        value = int(value) if kind == "integer" else value
    step = schema.get("multipleOf")
    within = (
        value >= schema.get("minimum", value)
        and value <= schema.get("maximum", value)
        and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        and ("exclusiveMaximum" not in schema or value < schema["exclusiveMaximum"])
        and (not step or _is_multiple(value, step))
    )
    if not within:
        return MISSING
    # A float would lose digits of a decimal that came as text.
    return given.strip() if schema.get("format") == DECIMAL and isinstance(given, str) else value


def _is_multiple(value: float, step: float) -> bool:
    if isinstance(value, int) and isinstance(step, int):
        return value % step == 0
    try:
        return math.isclose(value / step, round(value / step), abs_tol=1e-9)
    except OverflowError:
        return False
