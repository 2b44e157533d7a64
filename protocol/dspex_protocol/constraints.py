"""Which constraints a type takes, and what their values must look like.

    str                                    min_length max_length pattern format one_of
    bytes                                  min_length max_length
    int token_count                        min max multiple_of one_of
    float probability confidence_score     min max multiple_of one_of
    decimal                                min max multiple_of one_of (numbers, or numbers as text)
    list reasoning_chain                   min_items max_items unique
    set dict                               min_items max_items
    embedding                              dimensions

A union takes what all of its members take; `None` takes part in none of them. What a pattern or a
decimal's text means is checked by whoever enforces it.
"""

from __future__ import annotations

import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal, localcontext
from typing import TYPE_CHECKING

from dspex_protocol.errors import SignatureError
from dspex_protocol.spelling import did_you_mean
from dspex_protocol.types import (
    MAX_EMBEDDING_DIMENSIONS,
    Constrained,
    DictOf,
    Embedding,
    ListOf,
    Literal,
    Scalar,
    SetOf,
    Type,
    constraints_text,
    without_none,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = [
    "CONSTRAINTS",
    "FORMATS",
    "MAX_PATTERN_LENGTH",
    "NUMBER_TEXT",
    "bounds",
    "check_constraints",
    "constraints_of",
    "describe",
]

#: Every constraint, in the order of the documentation.
CONSTRAINTS = (
    *("min", "max", "multiple_of", "min_length", "max_length", "pattern", "format"),
    *("one_of", "unique", "dimensions", "min_items", "max_items"),
)

#: What `format` may ask of a str.
FORMATS = ("date", "date-time", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")

# A pattern is compiled for every program: a person's is short, and an engine's memory is not free.
MAX_PATTERN_LENGTH = 1_000

#: A number as text: JSON's own form, without leading zeros, spaces or underscores.
NUMBER_TEXT = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

# Enough to tell multiples of any float apart, as far as their quotients are of a common size.
_DECISION_DIGITS = 400
_LARGEST_DECISION = Decimal(10) ** 30

_TEXT = ("min_length", "max_length", "pattern", "format", "one_of")
_NUMBER = ("min", "max", "multiple_of", "one_of")
_LIST = ("unique", "min_items", "max_items")
_BY_SCALAR: dict[str, tuple[str, ...]] = {
    "str": _TEXT,
    "bytes": ("min_length", "max_length"),
    "int": _NUMBER,
    "token_count": _NUMBER,
    "float": _NUMBER,
    "probability": _NUMBER,
    "confidence_score": _NUMBER,
    "decimal": _NUMBER,
    "reasoning_chain": _LIST,
}
_BOUNDS: dict[str, tuple[int | None, int | None]] = {
    "probability": (0, 1),
    "confidence_score": (0, 1),
    "token_count": (0, None),
}
_INTEGERS = frozenset({"int", "token_count"})
_PAIRS = (("min", "max"), ("min_length", "max_length"), ("min_items", "max_items"))


def constraints_of(type_: Type) -> tuple[str, ...]:
    """The names of the constraints that a field of this type may carry."""
    members = [_of_member(member) for member in without_none(type_)]
    return tuple(name for name in CONSTRAINTS if all(name in member for member in members))


def check_constraints(type_: Type, constraints: Mapping[str, Any]) -> None:
    """Raise `SignatureError` unless every constraint exists, suits the type and has a fit value."""
    allowed = constraints_of(type_)
    for name, value in constraints.items():
        if name not in CONSTRAINTS:
            raise SignatureError(
                f"unknown constraint {name!r}{did_you_mean(str(name), allowed)}; "
                f"the constraints are {', '.join(CONSTRAINTS)}"
            )
        if name not in allowed:
            takes = f"takes {', '.join(allowed)}" if allowed else "takes no constraint"
            raise SignatureError(f"{name!r} does not apply to the type {type_}, which {takes}")
        for member in map(_unconstrained, without_none(type_)):
            if (wanted := _wrong(name, value, member)) is not None:
                raise SignatureError(f"{name} of {type_} has to be {wanted}")
    if (reason := _contradiction(type_, constraints)) is not None:
        raise SignatureError(f"{reason}, so nothing fits")


def describe(type_: Type, constraints: Mapping[str, Any]) -> str:
    """The canonical type with its constraints: `int (min 0, max 10)`."""
    if not constraints:
        return str(type_)
    return f"{type_} ({constraints_text(constraints)})"


def bounds(type_: Type) -> tuple[int | None, int | None]:
    """The least and the greatest value that a type has by itself."""
    return _BOUNDS.get(type_.name, (None, None)) if isinstance(type_, Scalar) else (None, None)


def _of_member(member: Type) -> tuple[str, ...]:
    if isinstance(member, Constrained):
        return _of_member(member.type)
    if isinstance(member, Scalar):
        return _BY_SCALAR.get(member.name, ())
    if isinstance(member, ListOf):
        return _LIST
    if isinstance(member, SetOf | DictOf):
        return ("min_items", "max_items")
    return ("dimensions",) if isinstance(member, Embedding) else ()


def _wrong(name: str, value: Any, member: Type) -> str | None:
    """What the value of a constraint should have been, None where it is fit."""
    if name in ("min", "max", "multiple_of"):
        if not _is_number(value, member):
            return _number_words(member)
        if name == "multiple_of":
            return None if Decimal(value) > 0 else f"{_number_words(member)} above 0"
        low, high = bounds(member)
        if (low is not None and value < low) or (high is not None and value > high):
            return (
                f"from {low}" + (f" to {high}" if high is not None else "") + ", as the type says"
            )
    elif name == "one_of":
        if not isinstance(value, list) or not value:
            return "a list of at least one value"
        if member == Scalar("str"):
            return None if all(isinstance(v, str) for v in value) else "a list of strings"
        if not all(_is_number(v, member) for v in value):
            return f"a list, each item {_number_words(member)}"
    elif name == "pattern":
        if not isinstance(value, str) or len(value) > MAX_PATTERN_LENGTH:
            return f"a string of at most {MAX_PATTERN_LENGTH} characters"
    elif name == "format":
        if value not in FORMATS:
            return f"one of {', '.join(FORMATS)}"
    elif name == "unique":
        if not isinstance(value, bool):
            return "true or false"
    elif name == "dimensions":
        declared = member.dimensions if isinstance(member, Embedding) else None
        if not _is_integer(value) or not 0 < value <= MAX_EMBEDDING_DIMENSIONS:
            return f"an integer from 1 to {MAX_EMBEDDING_DIMENSIONS}"
        if declared not in (None, value):
            return f"{declared}, as the type says"
    elif not _is_integer(value) or value < 0:
        return "an integer of 0 or more"
    return None


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any, member: Type) -> bool:
    if isinstance(member, Scalar) and member.name == "decimal" and isinstance(value, str):
        return NUMBER_TEXT.fullmatch(value) is not None and math.isfinite(float(value))
    if _is_integer(value):
        return True
    whole_only = isinstance(member, Scalar) and member.name in _INTEGERS
    return isinstance(value, float) and math.isfinite(value) and not whole_only


def _number_words(member: Type) -> str:
    if isinstance(member, Scalar) and member.name in _INTEGERS:
        return "an integer"
    return "a finite number"


def _unconstrained(member: Type) -> Type:
    return member.type if isinstance(member, Constrained) else member


def _contradiction(type_: Type, constraints: Mapping[str, Any]) -> str | None:
    """Why no value at all meets constraints that are each fit, None where one may."""
    for low, high in _PAIRS:
        if (
            low in constraints
            and high in constraints
            and Decimal(constraints[low]) > Decimal(constraints[high])
        ):
            return f"{low} ({constraints[low]}) is above {high} ({constraints[high]})"
    if "one_of" in constraints:
        if not any(_meets(value, constraints) for value in constraints["one_of"]):
            return "no value of one_of meets the other constraints"
    elif "multiple_of" in constraints and "min" in constraints and "max" in constraints:
        least, most, step = (Decimal(constraints[name]) for name in ("min", "max", "multiple_of"))
        # The division is exact enough for a decision only where its digits are few.
        with localcontext(prec=_DECISION_DIGITS):
            if abs(most / step) < _LARGEST_DECISION and (least / step).to_integral_value(
                ROUND_CEILING
            ) > (most / step).to_integral_value(ROUND_FLOOR):
                return "no multiple of multiple_of lies between min and max"
    for member in map(_unconstrained, without_none(type_)):
        if isinstance(member, DictOf) and isinstance(member.key, Literal):
            keys, least = len(member.key.values), constraints.get("min_items", 0)
            if least > keys:
                return f"min_items ({least}) is above the number of its keys ({keys})"
    return None


def _meets(value: Any, constraints: Mapping[str, Any]) -> bool:
    """Whether a value of one_of is within the bounds; what a pattern says of it is left open."""
    if "min" in constraints or "max" in constraints:
        number = Decimal(value)
        return (
            Decimal(constraints.get("min", number))
            <= number
            <= Decimal(constraints.get("max", number))
        )
    if isinstance(value, str) and ("min_length" in constraints or "max_length" in constraints):
        size = len(value)
        within: bool = (
            constraints.get("min_length", 0) <= size <= constraints.get("max_length", size)
        )
        return within
    return True
