"""The value of a type where nothing is known: small, always the same, and valid.

Where a schema states no default of its own: null where that is allowed, the first option, False,
the allowed number closest to 0, the text that is handed in (the first sentence of the inputs), a
fixed value of a format (the epoch for dates and times), a sample of a pattern, the shortest list
or map that is allowed.
"""

from dataclasses import dataclass
from typing import Any, Final

from .conform import MISSING, conform
from .patterns import sample
from .schemas import BOUNDS, MAX_DEPTH, UNKNOWN, Schema, alternatives, resolve
from .source import shortened

__all__ = [
    "FORMATS",
    "TOP",
    "UNKNOWN_VALUE",
    "Defaults",
    "Position",
    "distinct",
    "is_open",
    "of_length",
]

# Values made for one field: a schema whose references multiply would never end.
MAX_VALUES: Final = 10_000
# Characters that are added to reach a least length or number: these, too, multiply when nested.
MAX_PADDING: Final = 100_000
UNKNOWN_VALUE: Final = "0"
"""The only text that is a str, an int, a float, a bool, a date and a datetime to pydantic."""

FORMATS: Final[dict[str, str]] = {
    "date": "1970-01-01",
    "date-time": "1970-01-01T00:00:00Z",
    "time": "00:00:00",
    "duration": "PT0S",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "email": "nobody@example.org",
    "hostname": "example.org",
    "uri": "https://example.org/",
    "ipv4": "192.0.2.0",
    "ipv6": "2001:db8::",
    "json-string": "null",
    "base64": "",
    "base64url": "",
    "binary": "",
}
"""A value of each format that not every text has."""


@dataclass(frozen=True)
class Position:
    """Where in a schema: its depth, and the references that are being followed."""

    depth: int = 0
    references: frozenset[str] = frozenset()


TOP: Final = Position()


def is_open(schema: Schema) -> bool:
    """Whether every text of the right length is a value of a string's schema."""
    return schema.keys().isdisjoint(("const", "enum", "format", "pattern"))


class Defaults:
    """The defaults of one field's schema, `root`; `text` stands where any text may."""

    def __init__(self, root: Schema, text: str) -> None:
        self._root = root
        self._text = text
        self._values = 0
        self._padding = MAX_PADDING

    def enter(self, schema: Any, position: Position) -> tuple[Schema, Position] | None:
        """The resolved schema and the position in it; None where it contains itself, or the
        value grows too large."""
        resolved, followed = resolve(schema, self._root)
        self._values += 1
        if self._values > MAX_VALUES or position.depth > MAX_DEPTH:
            return None
        if position.references.intersection(followed):
            return None
        return resolved, Position(position.depth + 1, position.references.union(followed))

    def value(self, schema: Any, position: Position) -> Any:
        """The default of a schema; None where it has none (it contains itself, say)."""
        entered = self.enter(schema, position)
        if entered is None:
            return None
        schema, position = entered
        if "default" in schema:
            stated = conform(schema["default"], schema, self._root)
            if stated is not MISSING:
                return stated
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return next(iter(schema["enum"]), None)
        options = alternatives(schema)
        if options is not None:
            return self._option(options, position)
        match schema.get("type"):
            case "null":
                return None
            case "boolean":
                return False
            case "integer" | "number":
                return _closest_to_zero(schema)
            case "array":
                parts = schema.get("prefixItems", [])
                return self.filled([self.value(part, position) for part in parts], schema, position)
            case "object":
                return self.completed({}, schema, position)
        return UNKNOWN_VALUE if schema == UNKNOWN else self._string(schema)

    def _option(self, options: list[Schema], position: Position) -> Any:
        """None where that is an option, else the first option's default that is valid."""
        if any(resolve(option, self._root)[0].get("type") == "null" for option in options):
            return None
        values = ((option, self.value(option, position)) for option in options)
        valid = (v for option, v in values if conform(v, option, self._root) is not MISSING)
        return next(valid, None)

    def _string(self, schema: Schema) -> str:
        if schema.get("format") in FORMATS:
            return FORMATS[schema["format"]]
        if "pattern" in schema:
            lengths = schema.get("minLength", 0), schema.get("maxLength")
            return sample(schema["pattern"], *lengths) or ""
        return of_length(self._text, schema)

    def filled(self, items: list[Any], schema: Schema, position: Position) -> list[Any]:
        """The items of an array, and default ones up to the least number that is allowed."""
        if len(items) >= schema.get("minItems", 0):
            return items
        default = self.value(schema.get("items", {}), position)
        size = len(items) + self._room(schema["minItems"] - len(items), default)
        if not schema.get("uniqueItems"):
            return items + [default] * (size - len(items))
        item_schema, _followed = resolve(schema.get("items", {}), self._root)
        return distinct(items + _variants(default, item_schema, size))[:size]

    def completed(self, found: dict[str, Any], schema: Schema, position: Position) -> Any:
        """An object of the entries found and the required others, in the schema's order."""
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        entries = {
            name: found[name] if name in found else self.value(properties.get(name, {}), position)
            for name in dict.fromkeys([*properties, *required])
            if name in found or name in required
        }
        if len(entries) >= schema.get("minProperties", 0):
            return entries
        value = self.value(schema.get("additionalProperties", {}), position)
        size = len(entries) + self._room(schema["minProperties"] - len(entries), value)
        names, _followed = resolve(schema.get("propertyNames", {}), self._root)
        keys = names.get("enum") or _variants("key", names, size)
        new = [str(key) for key in keys if key not in entries][: size - len(entries)]
        return {**entries, **dict.fromkeys(new, value)}

    def _room(self, count: int, value: Any) -> int:
        """How many of `count` copies of a value may still be made."""
        size = len(repr(value)) + 1
        allowed = min(count, self._padding // size)
        self._padding -= allowed * size
        return allowed


def of_length(text: str, schema: Schema) -> str:
    """The text, cut or filled with full stops to the length that the schema wants."""
    if "maxLength" in schema:
        text = shortened(text, schema["maxLength"])
    shortest: int = min(schema.get("minLength", 0), MAX_PADDING)
    return text.ljust(shortest, ".")


def distinct(values: list[Any]) -> list[Any]:
    """The values without repetitions, each at its first place."""
    kept: dict[str, Any] = {}
    for value in values:
        kept.setdefault(repr(value), value)
    return list(kept.values())


def _closest_to_zero(schema: Schema) -> int | float:
    """0, or the allowed number closest to it; 0 where the bounds allow none."""
    bounds = [schema[key] for key in BOUNDS if key in schema]
    step = schema.get("multipleOf") or 1
    candidates = [0, sum(bounds) / max(len(bounds), 1)]
    for bound in bounds:
        below, above = bound // step * step, -(-bound // step) * step
        candidates += [bound, below, above, below - step, above + step]
    fitting = (conform(candidate, schema) for candidate in candidates)
    allowed = [number for number in fitting if number is not MISSING]
    return min(allowed, key=lambda number: (abs(number), number), default=0)


def _variants(value: Any, schema: Schema, count: int) -> list[Any]:
    """At least `count` different values that resemble `value`, as far as its type has them."""
    if "enum" in schema:
        return list(schema["enum"])
    if isinstance(value, bool):
        return [value, not value]
    if isinstance(value, int | float):
        step = schema.get("multipleOf") or 1
        numbers = [value + step * index for index in range(1 - count, count)]
        fitting = (conform(number, schema) for number in sorted(numbers, key=abs))
        return [number for number in fitting if number is not MISSING]
    if isinstance(value, str) and is_open(schema):
        return [f"{value}{index}" if index else value for index in range(count)]
    return [value]
