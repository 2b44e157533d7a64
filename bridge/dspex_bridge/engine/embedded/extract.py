"""A value of a type, extracted from the inputs; where they hold none, a default of the type.

The defaults, where a schema states none of its own: the first option, False, the number of the
allowed range that is closest to 0, the first sentence of the inputs, null, the empty list or map
(or the shortest that is allowed), the epoch for dates and times.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from .conform import MISSING, conform
from .patterns import matcher, sample
from .schemas import BOUNDS, UNKNOWN, Schema, alternatives, resolve
from .source import Source, shortened
from .tfidf import terms

__all__ = ["Hint", "extract"]

# Items of an extracted list, where the type allows more.
LIST_ITEMS: Final = 5
# Values made for one field: a schema whose references multiply would never end.
MAX_VALUES: Final = 10_000
# Characters that are added to reach a least number of items: these, too, multiply when they nest.
MAX_PADDING: Final = 100_000
# Levels of a value: what is nested deeper is left at its default.
MAX_DEPTH: Final = 64
# Pieces of the inputs that are tried against a pattern.
PATTERN_TRIES: Final = 10_000

# The only text that is a str, an int, a float, a bool, a date and a datetime to pydantic.
UNKNOWN_VALUE: Final = "0"

_FORMAT_DEFAULTS: Final[dict[str, str]] = {
    "date": "1970-01-01",
    "date-time": "1970-01-01T00:00:00Z",
    "time": "00:00:00",
    "duration": "PT0S",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "email": "nobody@example.org",
    "uri": "https://example.org/",
    "ipv4": "192.0.2.0",
    "ipv6": "2001:db8::",
    "json-string": "null",
    "base64": "",
    "base64url": "",
    "binary": "",
}


@dataclass(frozen=True)
class Hint:
    """What a field is called and how it is described."""

    name: str
    description: str = ""

    @cached_property
    def name_terms(self) -> frozenset[str]:
        return frozenset(terms(self.name))

    @cached_property
    def all_terms(self) -> frozenset[str]:
        return self.name_terms | frozenset(terms(self.description))


def extract(source: Source, schema: Schema, hint: Hint) -> Any:
    """A value of the schema, out of the inputs where they hold one."""
    return _Extraction(source, schema).value(schema, hint, _Position())


@dataclass(frozen=True)
class _Position:
    """Where in a schema: its depth, and the references that are being followed."""

    depth: int = 0
    references: frozenset[str] = frozenset()


class _Extraction:
    def __init__(self, source: Source, root: Schema) -> None:
        self._source = source
        self._root = root
        self._values = 0
        self._padding = MAX_PADDING

    def value(self, schema: Any, hint: Hint, position: _Position) -> Any:
        found = self._found(schema, hint, position)
        return found[0] if found else self._default(schema, hint, position)

    def _enter(self, schema: Any, position: _Position) -> tuple[Schema, _Position] | None:
        """The resolved schema; None where it contains itself, or is too large."""
        resolved, followed = resolve(schema, self._root)
        self._values += 1
        if self._values > MAX_VALUES or position.depth > MAX_DEPTH:
            return None
        if position.references.intersection(followed):
            return None
        return resolved, _Position(position.depth + 1, position.references.union(followed))

    # Values that are found, best first.

    def _found(self, schema: Any, hint: Hint, position: _Position) -> list[Any]:
        entered = self._enter(schema, position)
        if entered is None:
            return []
        schema, position = entered
        if "const" in schema:
            return []
        if "enum" in schema:
            return self._options(schema["enum"])
        options = alternatives(schema)
        if options is not None:
            found = (self._found(option, hint, position) for option in options)
            return next((values for values in found if values), [])
        match schema.get("type"):
            case "boolean":
                affirmed = self._source.affirms(hint.name_terms)
                return [] if affirmed is None else [affirmed]
            case "integer" | "number":
                candidates = self._numbers(schema, hint)
            case "string":
                candidates = self._strings(schema, hint)
            case "array":
                candidates = self._arrays(schema, hint, position)
            case "object":
                candidates = self._objects(schema, position)
            case _:
                candidates = [] if schema == UNKNOWN else self._strings(schema, hint)
        fitting = (conform(candidate, schema, self._root) for candidate in candidates)
        return [value for value in fitting if value is not MISSING]

    def _options(self, options: list[Any]) -> list[Any]:
        """The options that share words with the inputs, by the share of their words."""
        ranked = []
        for index, option in enumerate(options):
            wanted = set(terms(str(option)))
            counts = [self._source.counts[term] for term in wanted]
            present = sum(count > 0 for count in counts)
            if present:
                ranked.append((-present / len(wanted), -sum(counts), index))
        return [options[index] for _share, _count, index in sorted(ranked)]

    def _numbers(self, schema: Schema, hint: Hint) -> list[Any]:
        """All numbers, by their distance to a word of the name, or else of the description."""
        is_share = any(schema.get(key, 2) <= 1 for key in ("maximum", "exclusiveMaximum"))
        ranked = []
        for index, number in enumerate(self._source.numbers):
            distance = self._source.distance(number.at, hint.name_terms)
            if distance is None:
                distance = self._source.distance(number.at, hint.all_terms)
            value = number.value / 100 if number.percent and is_share else number.value
            ranked.append((distance or 0, index, value))
        return [value for _distance, _index, value in sorted(ranked)]

    def _strings(self, schema: Schema, hint: Hint) -> list[Any]:
        if "format" in schema:
            found = self._source.of_format(schema["format"])
            if found or schema["format"] in _FORMAT_DEFAULTS:
                return found
        if "pattern" in schema:
            return self._matching(schema["pattern"])
        sentence = self._source.best_sentence(hint.all_terms)
        return [] if sentence is None else [_of_length(sentence, schema)]

    def _matching(self, pattern: str) -> list[Any]:
        matches = matcher(pattern)
        if matches is None:
            return []
        pieces = self._source.text.split(maxsplit=PATTERN_TRIES)[:PATTERN_TRIES]
        stripped = (piece.strip(".,;:!?\"'()[]") for piece in pieces)
        return [piece for piece in dict.fromkeys(stripped) if piece and matches(piece)]

    def _arrays(self, schema: Schema, hint: Hint, position: _Position) -> list[Any]:
        if "prefixItems" in schema:
            items = self._places(schema["prefixItems"], hint, position)
            return [] if items is None else [items]
        item_schema, _followed = resolve(schema.get("items", {}), self._root)
        if item_schema.get("type") == "string" and not item_schema.keys() & {"format", "pattern"}:
            found: list[Any] = [_of_length(text, item_schema) for text in self._source.key_phrases]
        else:
            found = self._found(schema.get("items", {}), hint, position)
        if schema.get("uniqueItems"):
            found = _distinct(found)
        found = found[: min(LIST_ITEMS, schema.get("maxItems", LIST_ITEMS))]
        return [self._filled(found, schema, hint, position)] if found else []

    def _places(self, schemas: list[Schema], hint: Hint, position: _Position) -> list[Any] | None:
        """The items of a tuple: of places with the same type, each gets the next value found."""
        used: dict[str, int] = {}
        items = []
        any_found = False
        for schema in schemas:
            key = repr(schema)
            found = self._found(schema, hint, position)
            index = used.get(key, 0)
            used[key] = index + 1
            if index < len(found):
                any_found = True
                items.append(found[index])
            else:
                items.append(self._default(schema, hint, position))
        return items if any_found else None

    def _objects(self, schema: Schema, position: _Position) -> list[Any]:
        found = {}
        for name, part in schema.get("properties", {}).items():
            values = self._found(part, _part_hint(name, part), position)
            if values:
                found[name] = values[0]
        return [self._completed(found, schema, position)] if found else []

    # Values of a type where nothing was found.

    def _default(self, schema: Any, hint: Hint, position: _Position) -> Any:
        entered = self._enter(schema, position)
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
            resolved = [resolve(option, self._root)[0] for option in options]
            if any(option.get("type") == "null" for option in resolved):
                return None
            return self._default(options[0], hint, position)
        match schema.get("type"):
            case "null":
                return None
            case "boolean":
                return False
            case "integer" | "number":
                return _closest_to_zero(schema)
            case "array":
                parts = schema.get("prefixItems", [])
                items = [self._default(part, hint, position) for part in parts]
                return self._filled(items, schema, hint, position)
            case "object":
                return self._completed({}, schema, position)
        return UNKNOWN_VALUE if schema == UNKNOWN else self._default_string(schema)

    def _default_string(self, schema: Schema) -> str:
        if schema.get("format") in _FORMAT_DEFAULTS:
            return _FORMAT_DEFAULTS[schema["format"]]
        if "pattern" in schema:
            sampled = sample(schema["pattern"], schema.get("minLength", 0), schema.get("maxLength"))
            return "" if sampled is None else sampled
        first = self._source.sentences[0] if self._source.sentences else ""
        return _of_length(first, schema)

    def _filled(self, items: list[Any], schema: Schema, hint: Hint, position: _Position) -> Any:
        """The items, and default ones up to the least number that the schema allows."""
        if len(items) >= schema.get("minItems", 0):
            return items
        item_schema, _followed = resolve(schema.get("items", {}), self._root)
        default = self._default(schema.get("items", {}), hint, position)
        missing = self._room(schema["minItems"] - len(items), default)
        if not schema.get("uniqueItems"):
            return items + [default] * missing
        variants = _variants(default, item_schema, len(items) + missing)
        return _distinct(items + variants)[: len(items) + missing]

    def _completed(self, found: dict[str, Any], schema: Schema, position: _Position) -> Any:
        """The properties found and the required others, in the schema's order."""
        properties = schema.get("properties", {})
        names = dict.fromkeys([*properties, *schema.get("required", ())])
        completed = {}
        for name in names:
            if name in found:
                completed[name] = found[name]
            elif name in schema.get("required", ()):
                part = properties.get(name, {})
                completed[name] = self._default(part, _part_hint(name, part), position)
        return self._with_entries(completed, schema, position)

    def _with_entries(self, entries: dict[str, Any], schema: Schema, position: _Position) -> Any:
        """The entries, and default ones up to the least number that the schema allows."""
        if len(entries) >= schema.get("minProperties", 0):
            return entries
        value = self._default(schema.get("additionalProperties", {}), Hint("value"), position)
        missing = self._room(schema["minProperties"] - len(entries), value)
        names, _followed = resolve(schema.get("propertyNames", {}), self._root)
        keys = names.get("enum") or _variants("key", names, missing)
        new = [str(key) for key in keys if key not in entries][:missing]
        return {**entries, **dict.fromkeys(new, value)}

    def _room(self, count: int, value: Any) -> int:
        """How many of `count` copies of a value may still be made."""
        size = len(repr(value)) + 1
        allowed = min(count, self._padding // size)
        self._padding -= allowed * size
        return allowed


def _part_hint(name: str, schema: Any) -> Hint:
    description = schema.get("description", "") if isinstance(schema, dict) else ""
    return Hint(name, description)


def _of_length(text: str, schema: Schema) -> str:
    if "maxLength" in schema:
        text = shortened(text, schema["maxLength"])
    shortest: int = min(schema.get("minLength", 0), MAX_PADDING)
    return text.ljust(shortest, ".")


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


def _distinct(values: list[Any]) -> list[Any]:
    kept: dict[str, Any] = {}
    for value in values:
        kept.setdefault(repr(value), value)
    return list(kept.values())


def _variants(value: Any, schema: Schema, count: int) -> list[Any]:
    """At least `count` different values that resemble `value`, as far as its type has them."""
    if "enum" in schema:
        return list(schema["enum"])
    if isinstance(value, bool):
        return [value, not value]
    if isinstance(value, int | float):
        step = schema.get("multipleOf") or 1
        down = "maximum" in schema or "exclusiveMaximum" in schema
        up = [value + step * index for index in range(count)]
        return up + [value - step * index for index in range(1, count)] if down else up
    if isinstance(value, str) and not schema.keys() & {"format", "pattern"}:
        return [f"{value}{index}" if index else value for index in range(count)]
    return [value]
