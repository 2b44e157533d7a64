"""Conversion of single values: each function returns the value of its type or raises `Refused`.

Nothing is lost by a conversion, and what is already of the type comes back as it is.
"""

from __future__ import annotations

import datetime
import math
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeVar

from dspex_protocol.constraints import NUMBER_TEXT

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DATETIME_TEXT",
    "DATE_TEXT",
    "TIME_TEXT",
    "RefusedError",
    "to_bool",
    "to_bytes",
    "to_date",
    "to_datetime",
    "to_decimal",
    "to_float",
    "to_int",
    "to_none",
    "to_str",
    "to_tensor",
    "to_time",
]

_T = TypeVar("_T")

# Longer than any float's text, short enough that reading it is quick.
_MAX_NUMBER_TEXT = 400

# Nested lists standing for a tensor: more axes than anybody uses.
_MAX_AXES = 32

_INTEGER_TEXT = re.compile(r"(-?(?:0|[1-9][0-9]*))(?:\.0+)?")
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_TIME = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?"

#: ISO 8601, as far as it is read here. Fractions beyond the microsecond are cut.
DATE_TEXT = re.compile(_DATE)
TIME_TEXT = re.compile(_TIME)
DATETIME_TEXT = re.compile(rf"{_DATE}[T ]{_TIME}(?:Z|[+-][0-9]{{2}}:[0-9]{{2}})?")


class RefusedError(ValueError):
    """The value is not of the type and does not convert; `str(error)` may say why."""


def to_str(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    raise RefusedError


def to_int(value: Any) -> int:
    if isinstance(value, bool):
        raise RefusedError("a boolean is no number")
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if value.is_integer():
            return int(value)
        raise RefusedError("it has a fraction" if math.isfinite(value) else "it is not finite")
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_TEXT:
        match = _INTEGER_TEXT.fullmatch(value)
        if match is not None:
            return int(match[1])
    raise RefusedError


def to_float(value: Any) -> float:
    if isinstance(value, float):
        return float(value)
    if isinstance(value, bool):
        raise RefusedError("a boolean is no number")
    if isinstance(value, int):
        try:
            result = float(value)
        except OverflowError:
            raise RefusedError("a float cannot hold it") from None
        if int(result) != value:
            raise RefusedError("a float cannot hold it exactly")
        return result
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_TEXT and NUMBER_TEXT.fullmatch(value):
        result = float(value)
        if not math.isfinite(result):
            raise RefusedError("a float cannot hold it")
        return result
    raise RefusedError


def to_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    raise RefusedError


def to_bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise RefusedError


def to_decimal(value: Any) -> Decimal:
    if isinstance(value, bool):
        raise RefusedError("a boolean is no number")
    if isinstance(value, Decimal):
        # Not math.isfinite: it asks whether a float could hold the value.
        if value.is_finite():
            return value
        raise RefusedError("it is not finite")
    if isinstance(value, int):
        return Decimal(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return Decimal(repr(float(value)))
        raise RefusedError("it is not finite")
    if isinstance(value, str) and len(value) <= _MAX_NUMBER_TEXT and NUMBER_TEXT.fullmatch(value):
        return Decimal(value)
    raise RefusedError


def to_date(value: Any) -> datetime.date:
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    if isinstance(value, str) and DATE_TEXT.fullmatch(value):
        return _parsed(datetime.date.fromisoformat, value)
    raise RefusedError('a date is text such as "2024-05-01"')


def to_time(value: Any) -> datetime.time:
    if isinstance(value, datetime.time) and value.tzinfo is None:
        return value
    if isinstance(value, str) and TIME_TEXT.fullmatch(value):
        return _parsed(datetime.time.fromisoformat, value)
    raise RefusedError('a time is text such as "10:30:00"')


def to_datetime(value: Any) -> datetime.datetime:
    if isinstance(value, datetime.datetime):
        return value
    if isinstance(value, str) and DATETIME_TEXT.fullmatch(value):
        return _parsed(datetime.datetime.fromisoformat, value)
    raise RefusedError('a datetime is a timestamp or text such as "2024-05-01T10:30:00Z"')


def to_none(value: Any) -> None:
    if value is not None:
        raise RefusedError


def to_tensor(value: Any) -> Any:
    """An array or `Tensor` as it is; nested lists of numbers where they are rectangular."""
    if isinstance(value, list):
        _shape(value, _MAX_AXES)
        return value
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return value
    raise RefusedError


def _parsed(read: Callable[[str], _T], text: str) -> _T:
    try:
        return read(text)
    except ValueError as reason:
        raise RefusedError(str(reason)) from None


def _shape(value: Any, axes: int) -> tuple[int, ...]:
    if isinstance(value, int | float):
        return ()
    if not isinstance(value, list) or axes == 0:
        raise RefusedError("a tensor is nested lists of numbers")
    shapes = {_shape(item, axes - 1) for item in value}
    if len(shapes) > 1:
        raise RefusedError("its rows differ in length")
    return (len(value), *(shapes.pop() if shapes else ()))
