"""An output field as a prompt describes it."""

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Final

from .schemas import (
    MAX_DEPTH,
    UNKNOWN,
    Schema,
    TypeExpression,
    constrain,
    described_range,
    enumerated,
    from_expression,
    noted,
    skeleton,
    stated_constraints,
)
from .tfidf import terms

__all__ = ["Field", "Note", "make_field", "parse_xml"]

# Numbers by these names lie between 0 and 1 unless the prompt says otherwise.
_SHARES: Final = frozenset(terms("confidence probability likelihood certainty"))


@dataclass(frozen=True)
class Note:
    """What a prompt's structure section says in a field's place.

    `text` is the note about its type, `skeleton` the inside of its nested XML structure.
    """

    text: str = ""
    skeleton: str | None = None


@dataclass(frozen=True)
class Field:
    name: str
    description: str
    schema: Schema
    is_text: bool
    """A plain str."""
    is_literal: bool
    verbatim: bool
    """DSPy takes an answer's text as it stands, instead of looking for JSON in it."""
    is_nested: bool
    """The XML adapter writes it as nested elements."""


def make_field(
    name: str,
    expression: TypeExpression | None,
    description: str,
    note: Note,
    response: Schema | None,
) -> Field:
    """The field of that name. `expression` is None where the prompt's could not be read;
    `response` is the field's part of the request's response format."""
    before, mark, after = description.rpartition("\nConstraints: ")
    description, constraints = (before, after) if mark else (description, "")
    schema = _schema(expression, note, response)
    is_untold = schema == UNKNOWN and note.skeleton is None
    if is_untold:  # a class of DSPy's own that takes text (Code, for one)
        schema = {"type": "string"}
    schema = constrain(schema, stated_constraints(constraints))
    bounds = described_range(description)
    if not bounds and _SHARES.intersection(terms(name)):
        bounds = {"minimum": 0, "maximum": 1}
    is_listed = enumerated(note.text) is not None
    return Field(
        name=name,
        description=description.strip(),
        schema=constrain(schema, bounds, gently=True),
        is_text=is_untold or (expression is not None and expression.name == "str"),
        is_literal=expression is not None and expression.name == "Literal",
        verbatim=is_untold or is_listed or (expression is not None and expression.verbatim),
        is_nested=note.skeleton is not None,
    )


def _schema(expression: TypeExpression | None, note: Note, response: Schema | None) -> Schema:
    if expression is not None and expression.name == "str":
        return {"type": "string"}  # DSPy calls its Reasoning class so too, and takes text for it
    if response is not None:
        return response
    stated = noted(note.text)
    if stated is not None:
        return stated
    expressed = UNKNOWN if expression is None else from_expression(expression)
    if expressed != UNKNOWN and note.skeleton is None:
        return expressed
    if note.skeleton is not None:
        root = parse_xml(f"<root>{note.skeleton}</root>")
        return expressed if root is None else _with_shape(expressed, skeleton(root))
    return enumerated(note.text) or UNKNOWN


# A type of which no value can be written.
_NOTHING: Final[Schema] = {"enum": []}
_NULL: Final[Schema] = {"type": "null"}


def _with_shape(expressed: Schema, shape: Schema) -> Schema:
    """The schema of a type expression as nested XML can carry it.

    Unknown classes are replaced by the shape of their XML. What DSPy writes but cannot read back
    from nested elements is left out: options that are no text, lists and maps in a tuple or in a
    union with something else, None in a tuple.
    """
    if expressed == UNKNOWN:
        return shape
    if "enum" in expressed:
        return {"enum": [option for option in expressed["enum"] if isinstance(option, str)]}
    if "anyOf" in expressed:
        told = [option for option in expressed["anyOf"] if option != _NULL]
        shaped = [_with_shape(told[0], shape)] if len(told) == 1 else list(map(_scalar, told))
        return {"anyOf": shaped + [_NULL] * (_NULL in expressed["anyOf"])}
    if "prefixItems" in expressed:
        return {**expressed, "prefixItems": list(map(_scalar, expressed["prefixItems"]))}
    if "items" in expressed:
        items = _with_shape(expressed["items"], shape.get("items", UNKNOWN))
        return {**expressed, "items": items}
    if "additionalProperties" in expressed:
        others = _with_shape(expressed["additionalProperties"], UNKNOWN)
        return {**expressed, "additionalProperties": others}
    return expressed


def _scalar(expressed: Schema) -> Schema:
    """The schema where it is one of text, numbers or booleans; else that of nothing."""
    if "anyOf" in expressed:
        return {"anyOf": [_scalar(option) for option in expressed["anyOf"]]}
    is_other = expressed == UNKNOWN or expressed.get("type") in ("array", "object", "null")
    return _NOTHING if is_other else _with_shape(expressed, UNKNOWN)


def parse_xml(text: str) -> ET.Element | None:
    """The element that a text is; None where it is not well formed, or nested beyond measure."""
    try:
        # No document type, and so no entity, can stand inside an element: nothing to expand.
        element = ET.fromstring(text)  # noqa: S314
    except ET.ParseError:
        return None
    level = [element]
    for _depth in range(MAX_DEPTH):
        level = [child for parent in level for child in parent]
        if not level:
            return element
    return None
