"""The three forms in which DSPy's adapters write values: Chat, JSON and XML.

A form knows how its adapter asks for an answer, how it writes inputs and outputs (read here from
the demonstrations), and how it reads an answer (which is what is written here). The engine sees
values of JSON's kinds only; what a form cannot read is `MISSING`.
"""

import json
import re
import xml.etree.ElementTree as ET
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any, ClassVar, Final
from xml.sax.saxutils import quoteattr

from .conform import MISSING, Missing, conform
from .fields import Field, Note, parse_xml
from .schemas import DECIMAL, allows_null, alternatives, resolve

__all__ = ["FORMS", "ChatForm", "Form", "JsonForm", "XmlForm", "bounded"]

# What DSPy writes in the place of an output that a demonstration lacks.
_PLACEHOLDERS: Final = frozenset(
    {
        "Not supplied for this particular example.",
        "Not supplied for this conversation history message.",
    }
)
# A header at the beginning of a line, in all the ways in which lines end for the Chat adapter.
_FORGED: Final = re.compile(
    r"(^|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029])"
    r"([^\S\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]*)\[\[ ## (\w+) ## \]\]"
)
_HEADER_LINE: Final = re.compile(r"^[ \t]*\[\[ ## (\w+) ## \]\][ \t]*", re.MULTILINE)
# A line of text in which DSPy finds neither JSON (also broken JSON, which it repairs) nor Python.
_PLAIN: Final = re.compile(
    r"(?!(?:true|false|null|none|nan|infinity)\b)[^\W\d_]"
    r"[^{}\[\]()\"'`#/\\\x00-\x1f\x7f-\x9f\u2028\u2029]*",
    re.IGNORECASE,
)
# Formats whose values are as plain, though they begin with a digit.
_PLAIN_FORMATS: Final = frozenset({"date", "date-time", "time", "duration", "uuid"})
_NOT_XML: Final = re.compile(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Line ends to Python's splitlines, by which the Chat adapter reads, but none to JSON.
_LINE_ENDS: Final = {ord(char): f"\\u{ord(char):04x}" for char in "\x85\u2028\u2029"}


class Form(ABC):
    """One adapter's way of writing."""

    reminder: ClassVar[str]
    """How the sentence begins that ends every request: what to answer, in which form."""
    _output: ClassVar[re.Pattern[str]]

    def output_names(self, reminder: str) -> list[str]:
        """The output fields that a reminder names, in order."""
        return list(dict.fromkeys(self._output.findall(reminder)))

    @abstractmethod
    def notes(self, structure: str, names: Sequence[str]) -> dict[str, Note]:
        """What the system message's structure section says in each field's place."""

    @abstractmethod
    def inputs(self, message: str, names: Sequence[str]) -> dict[str, str]:
        """The input values in a user message, as text."""

    @abstractmethod
    def outputs(self, message: str, fields: Sequence[Field]) -> dict[str, Any]:
        """The output values in a demonstration's assistant message that fit their fields."""

    @abstractmethod
    def answer(self, values: Mapping[str, Any], fields: Sequence[Field]) -> str:
        """An assistant message with these values, one for each field."""


def bounded(starts: Sequence[re.Match[str]], text: str) -> Iterator[tuple[re.Match[str], int]]:
    """Each of the matches, and where the next one (or the text) stops it."""
    for match, following in zip_longest(starts, starts[1:]):
        yield match, len(text) if following is None else following.start()


def _sections(text: str, names: Sequence[str]) -> dict[str, str]:
    """The text under each `[[ ## name ## ]]` line; of a repeated name the first counts."""
    headers = [match for match in _HEADER_LINE.finditer(text) if match[1] in names]
    first = {match[1]: match for match in reversed(headers)}
    starts = sorted(first.values(), key=lambda match: match.start())
    return {match[1]: text[match.end() : end].strip() for match, end in bounded(starts, text)}


def _read_text(text: str, field: Field) -> Any | Missing:
    """The value of a field that DSPy wrote as text."""
    stripped = text.strip()
    if stripped in _PLACEHOLDERS:
        return MISSING
    if allows_null(field.schema, field.schema) and stripped in ("None", "null", ""):
        return None
    if field.verbatim:
        return conform(text, field.schema)
    if field.schema.get("format") == DECIMAL:
        return conform(text, field.schema)  # a float in between would lose digits
    value: Any = text
    try:
        value = json.loads(stripped)
    except (ValueError, RecursionError):
        value = {"True": True, "False": False}.get(stripped, text)
    found = conform(value, field.schema)
    return conform(text, field.schema) if found is MISSING else found


def _dumps(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _guarded(value: str, field: Field) -> str:
    """A string so written that DSPy reads this string and nothing else in it."""
    if field.verbatim:
        # A Literal's surrounding blanks are stripped unless there are quotes around them.
        return f'"{value}"' if field.is_literal and value != value.strip() else value
    schema, _references = resolve(field.schema, field.schema)
    options = [resolve(option, field.schema)[0] for option in alternatives(schema) or (schema,)]
    kinds = [option.get("format") for option in options if option.get("type") != "null"]
    is_plain = all(kind in _PLAIN_FORMATS for kind in kinds) or _PLAIN.fullmatch(value)
    return value if is_plain else _dumps(value).translate(_LINE_ENDS)


def _write_text(value: Any, field: Field) -> str:
    if isinstance(value, str):
        return _guarded(value, field)
    if isinstance(value, bool):
        return str(value)
    return _dumps(value).translate(_LINE_ENDS)


class ChatForm(Form):
    """`[[ ## name ## ]]` lines, each followed by a value as text."""

    reminder = "Respond with the corresponding output fields, starting with the field `[[ ## "
    _output = re.compile(r"`\[\[ ## (\w+) ## \]\]`")

    def output_names(self, reminder: str) -> list[str]:
        return super().output_names(reminder.rpartition(", and then ending with the marker")[0])

    def notes(self, structure: str, names: Sequence[str]) -> dict[str, Note]:
        sections = _sections(structure, [*names, "completed"])
        return {name: _note(text, name) for name, text in sections.items()}

    def inputs(self, message: str, names: Sequence[str]) -> dict[str, str]:
        return _sections(message, names)

    def outputs(self, message: str, fields: Sequence[Field]) -> dict[str, Any]:
        names = [field.name for field in fields]
        sections = _sections(message, [*names, "completed"])
        read = {
            field.name: _read_text(sections[field.name], field)
            for field in fields
            if field.name in sections
        }
        return {name: value for name, value in read.items() if value is not MISSING}

    def answer(self, values: Mapping[str, Any], fields: Sequence[Field]) -> str:
        parts = []
        for field in fields:
            value = values[field.name]
            if value is None and field.verbatim and not field.is_literal:
                continue  # DSPy would read the word "None"; a field left out it reads as None
            # A header inside a value would end it: it loses its brackets.
            text = _FORGED.sub(r"\1\2\3", _write_text(value, field))
            parts.append(f"[[ ## {field.name} ## ]]\n{text}")
        return "\n\n".join([*parts, "[[ ## completed ## ]]"])


class JsonForm(Form):
    """Inputs as in Chat; outputs as one JSON object."""

    reminder = "Respond with a JSON object in the following order of fields: `"
    _output = re.compile(r"(?:: |, then )`(\w+)`")

    def notes(self, structure: str, names: Sequence[str]) -> dict[str, Note]:
        found = self._object(structure)
        return {
            name: _note(text, name)
            for name, text in found.items()
            if name in names and isinstance(text, str)
        }

    def inputs(self, message: str, names: Sequence[str]) -> dict[str, str]:
        return _sections(message, names)

    def outputs(self, message: str, fields: Sequence[Field]) -> dict[str, Any]:
        found = self._object(message)
        read = {}
        for field in fields:
            if field.name in found:
                value = found[field.name]
                if isinstance(value, str):
                    read[field.name] = self._read_string(value, field)
                else:
                    read[field.name] = conform(value, field.schema)
        return {name: value for name, value in read.items() if value is not MISSING}

    @staticmethod
    def _object(text: str) -> dict[str, Any]:
        """The first JSON object in a text; an empty one where there is none."""
        start = text.find("\n{\n") + 1 if "\n{\n" in text else text.find("{")
        try:
            value, _end = json.JSONDecoder().raw_decode(text, max(start, 0))
        except (ValueError, RecursionError):
            return {}
        return value if isinstance(value, dict) else {}

    @staticmethod
    def _read_string(value: str, field: Field) -> Any | Missing:
        return MISSING if value.strip() in _PLACEHOLDERS else conform(value, field.schema)

    def answer(self, values: Mapping[str, Any], fields: Sequence[Field]) -> str:
        written = {}
        for field in fields:
            value = values[field.name]
            # DSPy looks for JSON inside the string of a field that is no plain str.
            is_guarded = isinstance(value, str) and not field.verbatim
            written[field.name] = _guarded(value, field) if is_guarded else value
        return json.dumps(written, ensure_ascii=False, indent=2)


class XmlForm(Form):
    """`<name>` elements: nested ones for lists, maps and models, else text."""

    reminder = "Respond with the corresponding output fields wrapped in XML tags `<"
    _output = re.compile(r"`<(\w+)>`")

    def notes(self, structure: str, names: Sequence[str]) -> dict[str, Note]:
        found = self._elements(structure, names)
        return {
            name: _note(text, name) if text.startswith(f"{{{name}}}") else Note(skeleton=text)
            for name, text in found.items()
        }

    def inputs(self, message: str, names: Sequence[str]) -> dict[str, str]:
        return self._elements(message, names)

    def outputs(self, message: str, fields: Sequence[Field]) -> dict[str, Any]:
        found = self._elements(message, [field.name for field in fields])
        read = {
            field.name: self._read(found[field.name], field)
            for field in fields
            if field.name in found
        }
        return {name: value for name, value in read.items() if value is not MISSING}

    @staticmethod
    def _elements(text: str, names: Sequence[str]) -> dict[str, str]:
        """The raw text inside each element; DSPy escapes it in some places only."""
        found: dict[str, str] = {}
        starts: list[re.Match[str]] = []
        for name in names:
            position = starts[-1].end() if starts else 0
            opening = re.compile(rf"^<({name})(?:>| />)", re.MULTILINE).search(text, position)
            if opening is not None:
                starts.append(opening)
        for opening, end in bounded(starts, text):
            name = opening[1]
            closing = text.rfind(f"</{name}>", opening.end(), end)
            if opening[0].endswith("/>"):
                found[name] = ""
            elif closing >= 0:
                found[name] = text[opening.end() : closing].strip("\n")
        return found

    @classmethod
    def _read(cls, text: str, field: Field) -> Any | Missing:
        if text.strip() in _PLACEHOLDERS:
            return MISSING
        if field.is_nested:
            if allows_null(field.schema, field.schema) and text.strip() in ("None", ""):
                return None
            element = parse_xml(f"<{field.name}>{text}</{field.name}>")
            return (
                MISSING
                if element is None
                else conform(_value(element, field, field.schema), field.schema)
            )
        if field.is_text:
            text = text.replace("&lt;", "<").replace("&amp;", "&")
        return _read_text(text, field)

    def answer(self, values: Mapping[str, Any], fields: Sequence[Field]) -> str:
        return "\n\n".join(self._write(values[field.name], field) for field in fields)

    @staticmethod
    def _write(value: Any, field: Field) -> str:
        if field.is_nested:
            return _element(field.name, value)
        is_empty = value is None and not field.is_literal
        text = "" if is_empty else _write_text(value, field)
        return f"<{field.name}>\n{_escaped(text)}\n</{field.name}>"


def _escaped(text: str) -> str:
    """A text as XML holds it; characters that XML cannot hold are left out."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _NOT_XML.sub("", escaped)


# Other keys stand in the attribute of an `entry` element.
_TAG: Final = re.compile(r"[A-Za-z_][\w.-]*", re.ASCII)


def _element(tag: str, value: Any, key: str | None = None) -> str:
    """A value as the XML adapter nests it."""
    attribute = "" if key is None else f" key={quoteattr(_NOT_XML.sub('', key))}"
    if isinstance(value, list):
        inner = "".join(_element("item", item) for item in value)
    elif isinstance(value, dict):
        inner = "".join(
            _element(name, item) if _TAG.fullmatch(name) else _element("entry", item, name)
            for name, item in value.items()
        )
    else:
        inner = "" if value is None else _escaped(str(value))
    return f"<{tag}{attribute}>{inner}</{tag}>"


def _value(element: ET.Element, field: Field, schema: Any) -> Any:
    """The value that an element holds, guided by the schema where it has one."""
    children = list(element)
    if not children and not (element.text or "").strip() and allows_null(schema, field.schema):
        return None
    schema, _references = resolve(schema, field.schema)
    for option in alternatives(schema) or ():
        resolved, _references = resolve(option, field.schema)
        if resolved.get("type") != "null":
            schema = resolved
            break
    if schema.get("type") == "array" or (
        "type" not in schema and children and all(child.tag == "item" for child in children)
    ):
        return [_value(child, field, schema.get("items", {})) for child in children]
    if schema.get("type") == "object" or children:
        properties = schema.get("properties", {})
        others = schema.get("additionalProperties", {})
        found = {}
        for child in children:
            name = child.get("key", child.tag) if child.tag == "entry" else child.tag
            found[name] = _value(child, field, properties.get(name, others))
        return found
    return (element.text or "").strip()


def _note(text: str, name: str) -> Note:
    """The note behind a field's place (`{name}        # note: …`); empty where it has none."""
    return Note(text.partition(f"{{{name}}}        # note: the value you produce ")[2])


FORMS: Final[tuple[Form, ...]] = (ChatForm(), JsonForm(), XmlForm())
