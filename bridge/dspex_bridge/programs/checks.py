"""Constraints as functions: the one place that says what each of them means."""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import SignatureError
from dspex_protocol.types import Scalar, without_none
from pydantic_core import SchemaError, SchemaValidator, core_schema

from .scalars import (
    DATE_TEXT,
    DATETIME_TEXT,
    TIME_TEXT,
    RefusedError,
    to_date,
    to_datetime,
    to_decimal,
    to_time,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_protocol.types import Type

__all__ = ["Check", "checks_of"]

# Decimals with more digits between them than this are no multiples of one another, rather than
# divided at any cost.
_DECIMAL_CONTEXT = Context(prec=1000)

# A float is a multiple where it is within rounding of one, relative to its own size.
_MULTIPLE_TOLERANCE = 1e-9

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_EMAIL = re.compile(rf"[^@\s]+@{_LABEL}(?:\.{_LABEL})+")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[^\s]+")
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


@dataclass(frozen=True, slots=True)
class Check:
    """`test` says whether a value of the right type fulfils the constraint `name`."""

    name: str
    test: Callable[[Any], bool]


def checks_of(type_: Type, constraints: Mapping[str, Any]) -> tuple[Check, ...]:
    """The constraints of a field in the order in which they are looked at, that of `_MAKERS`.

    Raises `SignatureError` for a pattern that does not compile.
    """
    exact = Scalar("decimal") in without_none(type_)
    return tuple(
        Check(name, make(_decimals(constraints[name]) if exact else constraints[name]))
        for name, make in _MAKERS.items()
        if name in constraints and constraints[name] is not False
    )


def _decimals(value: Any) -> Any:
    return [to_decimal(item) for item in value] if isinstance(value, list) else to_decimal(value)


def _multiple_of(step: Any) -> Callable[[Any], bool]:
    def test(value: Any) -> bool:
        if isinstance(value, float):
            if not math.isfinite(value):
                return False
            quotient = value / float(step)
            if not math.isfinite(quotient):
                return True  # so far apart that every float is within rounding of a multiple
            nearest = round(quotient) * float(step)
            return abs(value - nearest) <= abs(value) * _MULTIPLE_TOLERANCE
        try:
            remainder = _DECIMAL_CONTEXT.remainder(Decimal(value), to_decimal(step))
        except InvalidOperation:
            return False
        return remainder == 0

    return test


def _pattern(pattern: str) -> Callable[[Any], bool]:
    try:
        validator = SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        reason = str(error).strip().splitlines()[-1].strip().removeprefix("error: ")
        raise SignatureError(f"the pattern does not compile: {reason}") from None
    return validator.isinstance_python


def _one_of(values: list[Any]) -> Callable[[Any], bool]:
    return lambda value: value in values


def _unique(_: bool) -> Callable[[Any], bool]:
    return lambda items: len({_identity(item) for item in items}) == len(items)


def _identity(value: Any) -> Any:
    """What two items have in common when they are the same; a boolean is never a number."""
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, list | tuple):
        return (list, tuple(map(_identity, value)))
    if isinstance(value, dict):
        return (dict, frozenset((key, _identity(item)) for key, item in value.items()))
    if isinstance(value, set):
        return (set, frozenset(map(_identity, value)))
    return value


def _ip(version: int) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            return ipaddress.ip_address(text).version == version and "%" not in text
        except ValueError:
            return False

    return test


def _readable(text_form: re.Pattern[str], read: Callable[[Any], Any]) -> Callable[[str], bool]:
    def test(text: str) -> bool:
        try:
            read(text)
        except RefusedError:
            return False
        return text_form.fullmatch(text) is not None

    return test


def _matches(form: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: form.fullmatch(text) is not None


_FORMATS: dict[str, Callable[[str], bool]] = {
    "date": _readable(DATE_TEXT, to_date),
    "date-time": _readable(DATETIME_TEXT, to_datetime),
    "email": _matches(_EMAIL),
    "hostname": _matches(_HOSTNAME),
    "ipv4": _ip(4),
    "ipv6": _ip(6),
    "time": _readable(TIME_TEXT, to_time),
    "uri": _matches(_URI),
    "uuid": _matches(_UUID),
}

_MAKERS: dict[str, Callable[[Any], Callable[[Any], bool]]] = {
    "min": lambda limit: lambda value: bool(value >= limit),
    "max": lambda limit: lambda value: bool(value <= limit),
    "multiple_of": _multiple_of,
    "min_length": lambda limit: lambda value: len(value) >= limit,
    "max_length": lambda limit: lambda value: len(value) <= limit,
    "pattern": _pattern,
    "format": _FORMATS.__getitem__,
    "one_of": _one_of,
    "dimensions": lambda size: lambda value: len(value) == size,
    "min_items": lambda limit: lambda value: len(value) >= limit,
    "max_items": lambda limit: lambda value: len(value) <= limit,
    "unique": _unique,
}
