"""The type of a field, read from a prompt, as a JSON Schema.

DSPy writes a type in up to four ways: as an expression (`list[str]`) beside the field's name,
as a note behind its place in the structure, as a nested XML skeleton, and as the response
format of the request. Here they all become one JSON Schema.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

__all__ = [
    "BOUNDS",
    "DECIMAL",
    "MAX_DEPTH",
    "UNKNOWN",
    "Schema",
    "TypeExpression",
    "allows_null",
    "alternatives",
    "constrain",
    "described_range",
    "enumerated",
    "from_expression",
    "noted",
    "read_expression",
    "resolve",
    "skeleton",
    "sound",
    "stated_constraints",
]

Schema = dict[str, Any]

UNKNOWN: Final[Schema] = {"x-unknown": True}
"""A type that the prompt does not tell (the leaves of a nested XML structure)."""

DECIMAL: Final = "decimal"
"""The format of numbers that may be written as text."""

MAX_DEPTH: Final = 64
"""How deep references, type expressions, schemas and values may nest. Those of real signatures do
so by a few levels; hostile ones must not exhaust the interpreter's stack."""

_SIMPLE: Final[dict[str, Schema]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Any": {},
    "NoneType": {"type": "null"},
    "None": {"type": "null"},
    "date": {"type": "string", "format": "date"},
    "datetime": {"type": "string", "format": "date-time"},
    "time": {"type": "string", "format": "time"},
    "timedelta": {"type": "string", "format": "duration"},
    "UUID": {"type": "string", "format": "uuid"},
    "Decimal": {"type": "number", "format": DECIMAL},
    "bytes": {"type": "string", "format": "binary"},
    "list": {"type": "array"},
    "set": {"type": "array", "uniqueItems": True},
    "frozenset": {"type": "array", "uniqueItems": True},
    "tuple": {"type": "array"},
    "dict": {"type": "object"},
}


@dataclass(frozen=True)
class TypeExpression:
    """`name[args]`; a Literal has `options` instead of `args`."""

    name: str
    args: tuple["TypeExpression", ...] = ()
    options: tuple[str | int | float | bool | None, ...] = ()

    @property
    def verbatim(self) -> bool:
        """Whether DSPy takes the text of an answer as it stands, instead of reading JSON in it."""
        names = {arg.name for arg in self.args}
        return self.name in ("str", "Literal") or (
            self.name == "Union" and "str" in names and "NoneType" in names
        )


def read_expression(text: str, start: int = 0) -> tuple[TypeExpression, int]:
    """The type expression that begins at `start`, and where it ends. ValueError where none does."""
    reader = _Reader(text, start)
    return reader.expression(0), reader.at


class _Reader:
    _NAME = re.compile(r"[^\W\d][\w.]*")
    _SCALAR = re.compile(r"[^,\]]*")

    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self.at = at

    def expression(self, depth: int) -> TypeExpression:
        name = self._NAME.match(self._text, self.at)
        if name is None or depth > MAX_DEPTH:
            raise ValueError(f"no type expression at character {self.at}")
        self.at = name.end()
        simple_name = name[0].rpartition(".")[2]
        if not self._text.startswith("[", self.at):
            return TypeExpression(simple_name)
        if simple_name == "Literal":
            return TypeExpression("Literal", options=tuple(self._items(self._option)))
        args = tuple(self._items(lambda: self.expression(depth + 1)))
        return TypeExpression(simple_name, args)

    def _items(self, item: Any) -> Iterator[Any]:
        separator = "["
        while not self._text.startswith("]", self.at):
            if not self._text.startswith(separator, self.at):
                raise ValueError(f"expected {separator!r} at character {self.at}")
            self.at += len(separator)
            separator = ", "
            yield item()
        self.at += 1

    def _option(self) -> str | int | float | bool | None:
        quote = self._text[self.at : self.at + 1]
        if quote and quote in "'\"":
            return self._quoted(quote)
        scalar = self._SCALAR.match(self._text, self.at)
        assert scalar is not None  # noqa: S101  # the pattern matches the empty text too
        self.at = scalar.end()
        if scalar[0] in ("True", "False", "None"):
            return {"True": True, "False": False, "None": None}[scalar[0]]
        try:
            return int(scalar[0])
        except ValueError:
            return scalar[0]

    def _quoted(self, quote: str) -> str:
        # DSPy escapes nothing but the single quote, and that only where both quotes occur.
        start = end = self.at + 1
        while True:
            end = self._text.index(quote, end)
            option = self._text[start:end]
            may_be_escaped = option.endswith("\\") and '"' in option
            if not may_be_escaped and self._text[end + 1 : end + 2] in (",", "]"):
                self.at = end + 1
                return option.replace("\\'", "'") if '"' in option else option
            end += 1


def from_expression(expression: TypeExpression) -> Schema:
    """The schema of an expression; names that are not Python's own become `UNKNOWN`."""
    args = [from_expression(arg) for arg in expression.args]
    match expression.name:
        case "Literal":
            return {"enum": list(expression.options)}
        case "Union" | "Optional":
            null = [{"type": "null"}] if expression.name == "Optional" else []
            return {"anyOf": args + null}
        case "list" | "set" | "frozenset" if args:
            return {**_SIMPLE[expression.name], "items": args[0]}
        case "tuple" if args and expression.args[-1].name != "Ellipsis":
            size = len(args)
            return {"type": "array", "prefixItems": args, "minItems": size, "maxItems": size}
        case "tuple" if args:
            return {"type": "array", "items": args[0]}
        case "dict" if len(args) == 2:
            return {"type": "object", "additionalProperties": args[1]}
        case name:
            return _SIMPLE.get(name, UNKNOWN)


_SCHEMA_NOTE: Final = "must adhere to the JSON schema: "
_LITERAL_NOTE: Final = "must exactly match (no extra characters) one of: "
_ENUM_NOTE: Final = "must be one of: "


def noted(note: str) -> Schema | None:
    """The JSON Schema in a structure note; None where it has none or it is no JSON object."""
    if not note.startswith(_SCHEMA_NOTE):
        return None
    try:
        schema, _end = json.JSONDecoder().raw_decode(note, len(_SCHEMA_NOTE))
    except (ValueError, RecursionError):
        return None
    return sound(schema) if isinstance(schema, dict) else None


def enumerated(note: str) -> Schema | None:
    """The options that a structure note lists, as text; None where it lists none."""
    for start in (_LITERAL_NOTE, _ENUM_NOTE):
        if note.startswith(start):
            return {"enum": note.removeprefix(start).split("; ")}
    return None


def skeleton(element: Any) -> Schema:
    """The schema of a nested XML structure (an Element): its shape, with `UNKNOWN` leaves."""
    children = list(element)
    if not children:
        return UNKNOWN
    if len(children) == 1 and children[0].tag == "item":
        return {"type": "array", "items": skeleton(children[0])}
    properties = {child.tag: skeleton(child) for child in children}
    return {"type": "object", "properties": properties, "required": list(properties)}


_NUMBER: Final = r"([-+]?\d{1,15}(?:\.\d{1,15})?(?:[eE][-+]?\d{1,2})?)"
# The clauses of a line of constraints, in DSPy's words and in the bridge's own, and the keyword
# of each; what a clause says of a length holds for items where there are items.
_CLAUSES: Final = tuple(
    (re.compile(rf"(?:{clause})", re.DOTALL), keyword)
    for clause, keyword in (
        (rf"(?:minimum length: |at least ){_NUMBER}(?: long| items)", "minLength"),
        (rf"(?:maximum length: |at most ){_NUMBER}(?: long| items)", "maxLength"),
        (rf"minimum length: {_NUMBER}", "minLength"),
        (rf"maximum length: {_NUMBER}", "maxLength"),
        (rf"exactly {_NUMBER} numbers", "length"),
        (rf"(?:greater than or equal to: |at least ){_NUMBER}", "minimum"),
        (rf"(?:less than or equal to: |at most ){_NUMBER}", "maximum"),
        (rf"greater than: {_NUMBER}", "exclusiveMinimum"),
        (rf"less than: {_NUMBER}", "exclusiveMaximum"),
        (rf"a multiple of (?:the given number: )?{_NUMBER}", "multipleOf"),
        (r"no (item) twice", "uniqueItems"),
        (r"in the format (.*)", "format"),
        (r"matching the regular expression (.*)", "pattern"),
        (r"one of: (.*)", "enum"),
    )
)
_RANGE: Final = re.compile(
    r"(?<![\w.])(-?\d{1,15}(?:\.\d{1,15})?)\s?(?:to|and|-|\u2013|\.\.|\.\.\.)\s?"
    r"(-?\d{1,15}(?:\.\d{1,15})?)(?!\w)"
)


def stated_constraints(line: str) -> Schema:
    """The keywords that the text behind `Constraints:` stands for; the rest is passed over."""
    found: list[tuple[str, str]] = []
    for piece in line.split(", "):
        matches = ((clause.fullmatch(piece), keyword) for clause, keyword in _CLAUSES)
        begun = next(((match[1], keyword) for match, keyword in matches if match), None)
        if begun is not None:
            found.append(begun)
        elif found and found[-1][1] in ("pattern", "enum"):  # they may hold a comma themselves
            found[-1] = (f"{found[-1][0]}, {piece}", found[-1][1])
    stated: Schema = {}
    for text, keyword in found:
        stated |= _keyword(keyword, text)
    return sound(stated)


def _keyword(keyword: str, text: str) -> Schema:
    match keyword:
        case "format" | "pattern":
            return {keyword: text}
        case "enum":
            return {"enum": text.split("; ")}
        case "uniqueItems":
            return {"uniqueItems": True}
        case "length":
            return {"minLength": _as_number(text), "maxLength": _as_number(text)}
    return {keyword: _as_number(text)}


def described_range(description: str) -> Schema:
    """The bounds that a description names ("between 0 and 1", "1-5"); empty where it names none."""
    found = _RANGE.search(description)
    if found is None:
        return {}
    low, high = _as_number(found[1]), _as_number(found[2])
    return {"minimum": low, "maximum": high} if low <= high else {}


def _as_number(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() else number


_COUNTED: Final = ("Length", "Items", "Properties")
BOUNDS: Final = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def constrain(schema: Schema, keywords: Schema, *, gently: bool = False) -> Schema:
    """`schema` with the keywords that apply to its type, or to its alternatives' types.

    Gently: numbers that have bounds already keep them.
    """
    if not keywords:
        return schema
    if "anyOf" in schema:
        options = [constrain(option, keywords, gently=gently) for option in schema["anyOf"]]
        return {**schema, "anyOf": options}
    match schema.get("type"):
        case "integer" | "number" as kind if not gently or not schema.keys() & BOUNDS:
            names = {key: key for key in (*BOUNDS, "multipleOf", "enum")}
            keywords = {**keywords, "enum": _numeric(keywords.get("enum", []), kind)}
            keywords = {key: value for key, value in keywords.items() if value != []}
        case "string":
            names = {key: key for key in ("minLength", "maxLength", "format", "pattern", "enum")}
        case "array":
            names = {"minLength": "minItems", "maxLength": "maxItems", "uniqueItems": "uniqueItems"}
        case "object":
            names = {"minLength": "minProperties", "maxLength": "maxProperties"}
        case _:
            return schema
    return {**schema, **{names[key]: value for key, value in keywords.items() if key in names}}


# What Python can still divide as a float; also refuses NaN and the infinities.
_LARGEST: Final = 1e300


def _numeric(options: list[str], kind: str) -> list[int | float]:
    """The options of a number, which a prompt lists as text."""
    found = [_as_number(option) for option in options if re.fullmatch(_NUMBER, option)]
    return [option for option in found if kind == "number" or isinstance(option, int)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


_IS_RIGHT: Final[dict[str, Callable[[Any], bool]]] = {
    **dict.fromkeys((*BOUNDS, "multipleOf"), _is_number),
    **{f"{end}{what}": _is_size for end in ("min", "max") for what in _COUNTED},
    **dict.fromkeys(("$ref", "format", "pattern", "description", "title"), _is_text),
    "type": lambda value: isinstance(value, str | list),
    "enum": lambda value: isinstance(value, list) and value != [],
    "required": lambda value: isinstance(value, list) and all(map(_is_text, value)),
}
_SCHEMAS_BY_NAME: Final = ("properties", "$defs", "definitions")
_SCHEMA_LISTS: Final = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMAS: Final = ("items", "additionalProperties", "propertyNames")


def sound(schema: Any, depth: int = 0) -> Schema:
    """A copy of a schema without the keywords whose values are of a wrong type.

    What reads schemas after this need not look at their own types again. What is nested deeper
    than `MAX_DEPTH`, and what is no schema, becomes the empty schema.
    """
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return {}
    checked: Schema = {}
    for key, value in schema.items():
        if key in _SCHEMAS_BY_NAME:
            if isinstance(value, dict):
                checked[key] = {name: sound(part, depth + 1) for name, part in value.items()}
        elif key in _SCHEMA_LISTS:
            if isinstance(value, list) and value:
                checked[key] = [sound(part, depth + 1) for part in value]
        elif key in _SCHEMAS:
            checked[key] = value if isinstance(value, bool) else sound(value, depth + 1)
        elif key not in _IS_RIGHT or _IS_RIGHT[key](value):
            checked[key] = value
    return _with_decimals(checked)


def _with_decimals(schema: Schema) -> Schema:
    """The schema with one option in the place of a number and a text behind it.

    That is how pydantic describes a Decimal; a union of float and str becomes one, too.
    """
    options = list(schema.get("anyOf", ()))
    kinds = [option.get("type") for option in options]
    for index in range(len(kinds) - 1):
        if kinds[index : index + 2] == ["number", "string"]:
            options[index : index + 2] = [{**options[index], "format": DECIMAL}]
            rest = {key: value for key, value in schema.items() if key != "anyOf"}
            return {**rest, **options[0]} if len(options) == 1 else {**rest, "anyOf": options}
    return schema


def resolve(schema: Any, root: Schema) -> tuple[Schema, tuple[str, ...]]:
    """A schema without its `$ref` and lone `allOf`, and the references that were followed.

    What cannot be found, and what is no schema (`True`), is the empty schema: anything goes.
    """
    followed: tuple[str, ...] = ()
    while isinstance(schema, dict) and len(followed) < MAX_DEPTH:
        reference = schema.get("$ref")
        if reference is not None:
            followed += (reference,)
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            target = _pointed(root, reference)
            schema = {**target, **rest} if isinstance(target, dict) else rest
        elif "allOf" in schema:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            parts = (*schema["allOf"], rest)
            schema = {key: value for part in parts for key, value in part.items()}
        else:
            return schema, followed
    return {}, followed


def _pointed(root: Any, reference: str) -> Any:
    node = root
    for step in reference.removeprefix("#").split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        node = node.get(key) if isinstance(node, dict) else None
    return node


def alternatives(schema: Schema) -> list[Schema] | None:
    """The options of a resolved union; None where the schema is no union."""
    for keyword in ("anyOf", "oneOf"):
        if keyword in schema:
            options: list[Schema] = schema[keyword]
            return options
    kinds = schema.get("type")
    if isinstance(kinds, list):
        return [{**schema, "type": kind} for kind in kinds]
    return None


def allows_null(schema: Schema, root: Schema) -> bool:
    """Whether None is a value of the schema by name (the empty schema does not count)."""
    schema, _references = resolve(schema, root)
    options = [resolve(option, root)[0] for option in alternatives(schema) or (schema,)]
    return any(option.get("type") == "null" or None in option.get("enum", ()) for option in options)
