"""A value of a type, extracted from the inputs; where they hold none, its default."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from .conform import MISSING, conform
from .defaults import FORMATS, TOP, Defaults, Position, distinct, is_open, of_length
from .patterns import matcher
from .schemas import UNKNOWN, Schema, alternatives, resolve
from .source import Source
from .tfidf import STOP_WORDS, terms, words

__all__ = ["Hint", "extract"]

# Items of an extracted list, where the type allows more.
LIST_ITEMS: Final = 5
# Pieces of the inputs that are tried against a pattern.
PATTERN_TRIES: Final = 10_000

# Formats by the names of plain text fields: "sender_email" wants an address, if there is one.
_FORMATS_BY_TERM: Final = {
    term: name
    for name, called in {"email": "email", "uri": "url uri link website", "date": "date"}.items()
    for term in terms(called)
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
    found = _Search(source, schema).found(schema, hint, TOP)
    return found[0] if found else Defaults(schema, source.opening).value(schema, TOP)


class _Search:
    """The search for values of one field's schema, `root`."""

    def __init__(self, source: Source, root: Schema) -> None:
        self._source = source
        self._root = root
        self._defaults = Defaults(root, source.opening)

    def found(self, schema: Any, hint: Hint, position: Position) -> list[Any]:
        """The values of the schema that the inputs hold, best first."""
        entered = self._defaults.enter(schema, position)
        if entered is None:
            return []
        schema, position = entered
        if "const" in schema:
            return []
        if "enum" in schema:
            return self._options(schema["enum"])
        options = alternatives(schema)
        if options is not None:
            found = (self.found(option, hint, position) for option in options)
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
        """The options that share words with the inputs, by the share of their words.

        One of stop words only ("how to") needs all of them: single ones are in every text.
        """
        ranked = []
        for index, option in enumerate(options):
            wanted = set(terms(str(option)))
            counts = [self._source.counts[term] for term in wanted]
            present = sum(count > 0 for count in counts)
            is_vague = all(word.casefold() in STOP_WORDS for word in words(str(option)))
            if present and (present == len(wanted) or not is_vague):
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
            if found or schema["format"] in FORMATS:
                return found
        if "pattern" in schema:
            return self._matching(schema["pattern"])
        for term in sorted(hint.name_terms & _FORMATS_BY_TERM.keys()):
            named = self._source.of_format(_FORMATS_BY_TERM[term])
            if named:
                return named
        sentence = self._source.best_sentence(hint.all_terms)
        return [] if sentence is None else [of_length(sentence, schema)]

    def _matching(self, pattern: str) -> list[Any]:
        matches = matcher(pattern)
        if matches is None:
            return []
        pieces = self._source.text.split(maxsplit=PATTERN_TRIES)[:PATTERN_TRIES]
        stripped = (piece.strip(".,;:!?\"'()[]") for piece in pieces)
        return [piece for piece in dict.fromkeys(stripped) if piece and matches(piece)]

    def _arrays(self, schema: Schema, hint: Hint, position: Position) -> list[Any]:
        if "prefixItems" in schema:
            items = self._tuple(schema["prefixItems"], hint, position)
            return [] if items is None else [items]
        item_schema, _followed = resolve(schema.get("items", {}), self._root)
        if item_schema.get("type") == "string" and is_open(item_schema):
            found: list[Any] = [of_length(text, item_schema) for text in self._source.key_phrases]
        else:
            found = self.found(schema.get("items", {}), hint, position)
        if schema.get("uniqueItems"):
            found = distinct(found)
        found = found[: min(LIST_ITEMS, schema.get("maxItems", LIST_ITEMS))]
        return [self._defaults.filled(found, schema, position)] if found else []

    def _tuple(self, schemas: list[Schema], hint: Hint, position: Position) -> list[Any] | None:
        """The items of a tuple: of places with the same type, each gets the next value found.

        None where no place has one.
        """
        used: dict[str, int] = {}
        items = []
        any_found = False
        for schema in schemas:
            found = self.found(schema, hint, position)
            index = used.get(repr(schema), 0)
            used[repr(schema)] = index + 1
            any_found |= index < len(found)
            default = self._defaults.value(schema, position)
            items.append(found[index] if index < len(found) else default)
        return items if any_found else None

    def _objects(self, schema: Schema, position: Position) -> list[Any]:
        """The object with the properties that are found; none where none is."""
        found = {}
        for name, part in schema.get("properties", {}).items():
            values = self.found(part, Hint(name, part.get("description", "")), position)
            if values:
                found[name] = values[0]
        return [self._defaults.completed(found, schema, position)] if found else []
