"""Values that a program made, as the codec writes them, and as an error shows them."""

from __future__ import annotations

import datetime
import enum
import json
import math
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MAX_GOT_LENGTH", "NoWireFormError", "add_wire_form", "key_text", "render", "to_wire"]

# Of a value in an error: enough to recognise it, never a whole document.
MAX_GOT_LENGTH = 80

# With two frames of the interpreter a level, well inside its limit and the nesting that the wire
# carries.
_MAX_DEPTH = 200

_TEXTUAL = (uuid.UUID, PurePath)


# Of classes that are known elsewhere only.
_FORMS: dict[type, Callable[[Any], Any]] = {}


def add_wire_form(class_: type, form: Callable[[Any], Any]) -> None:
    """Say what instances of a class are on the wire: a value that `to_wire` knows."""
    _FORMS[class_] = form


class NoWireFormError(ValueError):
    """A value that nothing on the wire can stand for; `str(error)` says why."""


def to_wire(value: Any) -> Any:
    """Any value that a program made, as the codec writes it.

    Models become maps, sets and tuples lists, enum members their values, dates and naive datetimes
    ISO 8601 text, keys text. Raises `NoWireFormError` for what has no such form.
    """
    return _to_wire(value, _MAX_DEPTH)


def key_text(key: Any) -> str:
    """A map's key as text: that of JSON for numbers and booleans, ISO 8601 for dates."""
    if isinstance(key, enum.Enum):
        key = key.value
    if isinstance(key, str):
        return str(key)
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, datetime.date | datetime.time):
        return key.isoformat()
    if isinstance(key, int | float | Decimal | uuid.UUID):
        return str(key)
    kind = "nil" if key is None else f"a {type(key).__name__}"
    raise NoWireFormError(f"{kind} cannot be the key of a map")


def render(value: Any) -> str:
    """A value in an error: JSON where it has one, at most `MAX_GOT_LENGTH` characters."""
    text = ""
    for part in _render(value, 0):
        text += part
        if len(text) > MAX_GOT_LENGTH:
            return text[: MAX_GOT_LENGTH - 1] + "…"
    return text


def _to_wire(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, str | int | float | bytes | Decimal):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, datetime.datetime):
        return value if value.tzinfo is not None else value.isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if depth == 0:
        raise NoWireFormError(f"it is nested more than {_MAX_DEPTH} deep")
    if isinstance(value, Mapping):
        return _map_to_wire(value, depth)
    if isinstance(value, list | tuple):
        return [_to_wire(item, depth - 1) for item in value]
    if isinstance(value, set | frozenset):
        return [_to_wire(item, depth - 1) for item in _in_order(value)]
    if isinstance(value, enum.Enum):
        return _to_wire(value.value, depth - 1)
    for class_ in type(value).__mro__:
        if class_ in _FORMS:
            return _to_wire(_FORMS[class_](value), depth - 1)
    if isinstance(value, BaseModel):
        # Some of DSPy's are written as a text.
        return _to_wire(value.model_dump(), depth - 1)
    if isinstance(value, _TEXTUAL):
        return str(value)
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        # An array is a tensor on the wire; what has a dtype and no shape is a single number.
        return value if value.shape != () or not hasattr(value, "item") else value.item()
    raise NoWireFormError(f"a {type(value).__name__} has no form on the wire")


def _map_to_wire(value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    result = {key_text(key): _to_wire(item, depth - 1) for key, item in value.items()}
    if len(result) < len(value):
        raise NoWireFormError("two of its keys are the same text")
    return result


def _in_order(items: set[Any] | frozenset[Any]) -> list[Any]:
    # The order of a set of strings changes from process to process.
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: (type(item).__name__, repr(item)))


def _render(value: Any, depth: int) -> Iterator[str]:
    """Pieces of text, so that a large value is read no further than it is shown."""
    if depth > MAX_GOT_LENGTH:
        yield "…"
    elif value is None or isinstance(value, bool):
        yield json.dumps(value)
    elif isinstance(value, str):
        yield json.dumps(value[: MAX_GOT_LENGTH + 1], ensure_ascii=False)
    elif isinstance(value, float):
        yield repr(value) if math.isfinite(value) else _NOT_FINITE[str(value)]
    elif isinstance(value, int):
        yield str(value) if value.bit_length() < 4 * MAX_GOT_LENGTH else "an integer of "
        if value.bit_length() >= 4 * MAX_GOT_LENGTH:
            yield f"{value.bit_length()} bits"
    elif isinstance(value, bytes):
        yield f"bytes[{len(value)}]"
    elif isinstance(value, Decimal):
        yield str(value)
    elif isinstance(value, datetime.date | datetime.time):
        yield json.dumps(value.isoformat())
    elif isinstance(value, Mapping):
        yield "{"
        for i, (key, item) in enumerate(value.items()):
            yield ", " if i else ""
            yield from _render(key if isinstance(key, str) else str(key), depth + 1)
            yield ": "
            yield from _render(item, depth + 1)
        yield "}"
    elif isinstance(value, list | tuple | set | frozenset):
        yield "["
        for i, item in enumerate(value):
            yield ", " if i else ""
            yield from _render(item, depth + 1)
        yield "]"
    elif hasattr(value, "dtype") and hasattr(value, "shape"):
        yield f"tensor{list(value.shape)}"
    else:
        yield type(value).__name__


_NOT_FINITE = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
