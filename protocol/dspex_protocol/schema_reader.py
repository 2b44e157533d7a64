"""JSON Schema (draft 2020-12) to types. What has no type here is refused, with its place and why.

Nothing that restricts values is passed over: a keyword is understood, or it is an error. Those that
restrict nothing (`title`, `description`, `default`, `examples`, `$comment`, `deprecated`,
`readOnly`, `writeOnly`, `$defs`, and `discriminator` beside a oneOf) are taken as they are.

A `$ref` is a JSON Pointer within the same schema. It is resolved where it stands, so that a type is
a tree: a recursive one is refused, and so is one that is larger than `SignatureSize` allows. All
that is looked at is counted before, for a reference may have it looked at again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from dspex_protocol.grammar import MAX_TYPE_DEPTH
from dspex_protocol.json_values import is_json
from dspex_protocol.refusals import Path, kind_of, refused_at
from dspex_protocol.schema_keywords import ANNOTATIONS, KEYWORDS, KNOWN, UNSUPPORTED
from dspex_protocol.schema_kinds import KIND_READERS, constrained, is_number, limited
from dspex_protocol.schema_overlap import MAX_COMPARISONS, Overlap
from dspex_protocol.schema_writer import DRAFT, NUMBER_PATTERN, TIME_PATTERN
from dspex_protocol.signature_size import SignatureSize, chars_of
from dspex_protocol.spelling import did_you_mean
from dspex_protocol.types import (
    MAX_LITERAL_INTEGER,
    MIN_LITERAL_INTEGER,
    MISSING,
    Constrained,
    Literal,
    Null,
    Scalar,
    Type,
    Union,
    literal_text,
    union,
    without_none,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_ALTERNATIVES", "MAX_ENUM_VALUES", "FieldSchema", "field_of_schema"]

# A generated enum may have hundreds of values.
MAX_ENUM_VALUES = 1_000

# Of one anyOf or oneOf: an API has dozens of kinds of event. Each is compared with each.
MAX_ALTERNATIVES = 256

# Keywords whose values are looked at, as often as they are referred to.
_COUNTED = ("$ref", "title", "description", "default", "pattern", "format", "contentMediaType")

_TIME_CHECK = [{"pattern": TIME_PATTERN}]
_KINDS: dict[type, str] = {str: "string", bool: "boolean", int: "integer", type(None): "null"}


@dataclass(frozen=True, slots=True)
class FieldSchema:
    """What a JSON Schema says of a field: constraints of the whole type stand beside it."""

    type: Type
    constraints: dict[str, Any]
    description: str | None
    default: Any


def field_of_schema(
    schema: Mapping[str, Any], path: Path | None = None, size: SignatureSize | None = None
) -> FieldSchema:
    """The type of a schema. `path` is where it stands, for errors; `size` what has been counted of
    its signature.

    Raises `SignatureError` with `data.path`.
    """
    reader = _Reader(schema, size or SignatureSize())
    type_, constraints = _split(reader.type(schema, path or []))
    if isinstance(type_, Null):
        raise refused_at(path or [], "null is no type of a field; name what else it may be")
    return FieldSchema(
        type_, constraints, schema.get("description"), schema.get("default", MISSING)
    )


def _split(type_: Type) -> tuple[Type, dict[str, Any]]:
    """A type and the constraints of all of its values but None."""
    if isinstance(type_, Constrained):
        return type_.type, type_.constraints
    members = without_none(type_)
    if isinstance(type_, Union) and all(
        isinstance(member, Constrained) and member.pairs == members[0].pairs  # type: ignore[attr-defined]
        for member in members
    ):
        inner = [m.type if isinstance(m, Constrained) else m for m in type_.members]
        return union(inner), members[0].constraints  # type: ignore[attr-defined]
    return type_, {}


class _Reader:
    def __init__(self, root: Mapping[str, Any], size: SignatureSize) -> None:
        self._root = root
        self._size = size
        self._depth = 0
        self._followed: list[str] = []

    def type(self, schema: Any, path: Path) -> Type:
        """The type of a schema at a place."""
        has_pattern = isinstance(schema, Mapping) and "pattern" in schema
        self._size.check(path, types=1, patterns=int(has_pattern))
        if schema is True:
            return Scalar("any")
        if schema is False:
            raise refused_at(path, "the schema false takes no value at all")
        if not isinstance(schema, Mapping):
            raise refused_at(path, f"a JSON Schema is a map or true, not {kind_of(schema)}")
        if self._depth > MAX_TYPE_DEPTH:
            raise refused_at(path, f"a schema nests at most {MAX_TYPE_DEPTH} deep")
        said = [schema[keyword] for keyword in _COUNTED if keyword in schema]
        if said:
            self._size.check(path, chars=sum(map(chars_of, said)))
        self._check_keywords(schema, path)
        self._depth += 1
        result = self._type(schema, path)
        self._depth -= 1
        return result

    def _check_keywords(self, schema: Mapping[str, Any], path: Path) -> None:
        for keyword in schema:
            if keyword in UNSUPPORTED:
                raise refused_at(
                    [*path, keyword], f"{keyword!r} has no type here: {UNSUPPORTED[keyword]}"
                )
            if keyword not in KNOWN:
                hint = did_you_mean(str(keyword), sorted(KNOWN))
                raise refused_at([*path, str(keyword)], f"unknown keyword {keyword!r}{hint}")
        if schema.get("$schema", DRAFT) not in (DRAFT, DRAFT + "#"):
            raise refused_at([*path, "$schema"], f"schemas are of the draft {DRAFT!r}")
        for keyword in ("title", "description"):
            if keyword in schema and not isinstance(schema[keyword], str):
                raise refused_at(
                    [*path, keyword], f"expected a string, got {kind_of(schema[keyword])}"
                )
        if "default" in schema and not is_json(schema["default"]):
            raise refused_at([*path, "default"], "a default holds what JSON holds")

    def _type(self, schema: Mapping[str, Any], path: Path) -> Type:
        said = [
            keyword for keyword in schema if keyword not in ANNOTATIONS and keyword != "$schema"
        ]
        for keyword, read in (
            ("$ref", self._reference),
            ("anyOf", self._any_of),
            ("oneOf", self._one_of),
        ):
            if keyword in schema:
                beside = {keyword, "discriminator"} if keyword == "oneOf" else {keyword}
                self._alone(said, beside, path)
                return read(schema[keyword], [*path, keyword])
        if "discriminator" in schema:
            raise refused_at([*path, "discriminator"], "'discriminator' stands beside a oneOf")
        if "allOf" in schema and schema["allOf"] != _TIME_CHECK:
            # Some generators put a single reference in an allOf.
            if not isinstance(schema["allOf"], list) or len(schema["allOf"]) != 1:
                raise refused_at(
                    [*path, "allOf"],
                    "'allOf' of several schemas has no type here: write it as one",
                )
            self._alone(said, {"allOf"}, path)
            return self.type(schema["allOf"][0], [*path, "allOf", 0])
        if "enum" in schema or "const" in schema:
            return self._values(schema, said, path)
        if not said:
            return Scalar("any")
        if "type" not in schema:
            kinds = [kind for kind, own in KEYWORDS.items() if said[0] in own]
            raise refused_at(
                path,
                f"{said[0]!r} alone also takes every value of another type; "
                f"say 'type': {(kinds or ['object'])[0]!r}",
            )
        return self._of_kinds(schema, said, path)

    def _alone(self, said: Sequence[str], keywords: set[str], path: Path) -> None:
        for keyword in said:
            if keyword not in keywords:
                first = next(iter(sorted(keywords)))
                raise refused_at(
                    [*path, keyword],
                    f"{keyword!r} beside {first!r} has no type here: put it into each schema",
                )

    # References and alternatives

    def _reference(self, reference: Any, path: Path) -> Type:
        if not isinstance(reference, str) or not (reference == "#" or reference.startswith("#/")):
            raise refused_at(
                path,
                "a $ref stays within its own schema, as in '#/$defs/name'; nothing else is read",
            )
        if reference == "#" or reference in self._followed:
            raise refused_at(
                path, f"{reference!r} refers to what it is a part of: a type cannot be recursive"
            )
        self._followed.append(reference)
        result = self.type(self._resolved(reference, path), path)
        self._followed.pop()
        return result

    def _resolved(self, reference: str, path: Path) -> Any:
        found: Any = self._root
        for part in reference[2:].split("/"):
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdecimal() and int(key[:9]) < len(found):
                found = found[int(key[:9])]
            else:
                raise refused_at(path, f"there is nothing at {reference!r}")
        return found

    def _any_of(self, members: Any, path: Path) -> Type:
        return union(self._members(members, path))

    def _one_of(self, members: Any, path: Path) -> Type:
        types = self._members(members, path)
        overlap = Overlap()
        for i, one in enumerate(types):
            for j, other in enumerate(types[i + 1 :], i + 1):
                if overlap.may_share_a_value(one, other):
                    raise refused_at(
                        path, f"a value may be of both {i} and {j}, which oneOf forbids: use anyOf"
                    )
                if overlap.comparisons > MAX_COMPARISONS:
                    raise refused_at(
                        path, "it takes too long to tell that these differ: use fewer, or anyOf"
                    )
        return union(types)

    def _members(self, members: Any, path: Path) -> list[Type]:
        if not isinstance(members, list) or not 0 < len(members) <= MAX_ALTERNATIVES:
            raise refused_at(path, f"expected a list of 1 to {MAX_ALTERNATIVES} schemas")
        return [self.type(member, [*path, i]) for i, member in enumerate(members)]

    # Values

    def _values(self, schema: Mapping[str, Any], said: Sequence[str], path: Path) -> Type:
        keyword = "enum" if "enum" in schema else "const"
        self._alone(said, {keyword, "type"}, path)
        values = schema["enum"] if keyword == "enum" else [schema["const"]]
        if not isinstance(values, list) or not 0 < len(values) <= MAX_ENUM_VALUES:
            raise refused_at([*path, "enum"], f"expected a list of 1 to {MAX_ENUM_VALUES} values")
        self._size.check([*path, keyword], values=len(values), chars=chars_of(values))
        kinds = self._kinds(schema, path) if "type" in schema else None
        place = [*path, keyword]
        if kinds == ["number"] and all(is_number(value) for value in values):
            return constrained(Scalar("float"), {"one_of": values}, place)
        for value in values:
            kind = _KINDS.get(type(value))
            if kind is None or (
                kind == "integer" and not MIN_LITERAL_INTEGER <= value <= MAX_LITERAL_INTEGER
            ):
                raise refused_at(
                    place,
                    "the values are strings, integers of 64 bits, true, false and null; numbers "
                    "with a fraction need 'type': 'number'",
                )
            if (
                kinds is not None
                and kind not in kinds
                and not (kind == "integer" and "number" in kinds)
            ):
                raise refused_at(place, f"{literal_text(value)} is not of the type beside it")
        return Literal(tuple({literal_text(value): value for value in values}.values()))

    # Kinds

    def _kinds(self, schema: Mapping[str, Any], path: Path) -> list[str]:
        stated = schema["type"]
        kinds = stated if isinstance(stated, list) else [stated]
        if len(kinds) > len(KEYWORDS):
            raise refused_at([*path, "type"], "expected types of JSON Schema, each once")
        if not kinds or not all(isinstance(kind, str) and kind in KEYWORDS for kind in kinds):
            names = [kind for kind in kinds if isinstance(kind, str)]
            wrong = next((name for name in names if name not in KEYWORDS), stated)
            hint = did_you_mean(wrong, KEYWORDS) if isinstance(wrong, str) else ""
            raise refused_at(
                [*path, "type"],
                f"{str(wrong)[:80]!r} is no type of JSON Schema{hint}; "
                f"they are {', '.join(KEYWORDS)}",
            )
        return list(dict.fromkeys(kinds))

    def _of_kinds(self, schema: Mapping[str, Any], said: Sequence[str], path: Path) -> Type:
        kinds = self._kinds(schema, path)
        rest = [keyword for keyword in said if keyword not in ("type", "allOf")]
        if kinds == ["number", "string"] and schema.get("pattern") == NUMBER_PATTERN:
            numeric = [keyword for keyword in rest if keyword != "pattern"]
            return limited(Scalar("decimal"), schema, numeric, "number", path)
        for keyword in rest:
            if not any(keyword in KEYWORDS[kind] for kind in kinds):
                raise refused_at(
                    [*path, keyword], f"{keyword!r} says nothing of the type {' or '.join(kinds)}"
                )
        if "allOf" in schema and kinds != ["string"]:
            raise refused_at([*path, "allOf"], "'allOf' has no type here: write it as one schema")
        members = []
        for kind in kinds:
            own = [keyword for keyword in rest if keyword in KEYWORDS[kind]]
            members.append(KIND_READERS[kind](schema, own, path, self.type))
        return union(members)
