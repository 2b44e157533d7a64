"""The shapes of parameters: small checks that compose, each error naming the parameter.

A check takes a value and the name of the place it stands in, and raises InvalidParamsError. A
parameter that is optional may also be nil, which means that it is absent.
"""

from __future__ import annotations

from dspex_protocol.errors import InvalidParamsError
from dspex_protocol.spelling import suggestion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

__all__ = [
    "COMMON",
    "MAX_NAME_CHARS",
    "TOOLS",
    "Check",
    "UnknownParameterError",
    "anything",
    "array",
    "boolean",
    "either",
    "integer",
    "map_of",
    "mapping",
    "name",
    "number",
    "one_of",
    "quoted",
    "record",
    "text",
]

# A client's integers have 64 bits, and so has nearly everything that they are handed on to.
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1

# Names of programs and LMs stand in logs and errors.
MAX_NAME_CHARS = 256

# Each one stands in every prompt of its program.
MAX_TOOLS = 128

Check: TypeAlias = "Callable[[Any, str], None]"


class UnknownParameterError(InvalidParamsError):
    """A key of the map at `where` that is none of the `known` ones."""

    where: str
    key: str
    known: tuple[str, ...]

    @classmethod
    def of(cls, where: str, key: str, known: tuple[str, ...]) -> UnknownParameterError:
        error = cls(
            f"{where}: unknown parameter {quoted(key)}.{suggestion(key, known)} "
            f"Valid: {', '.join(known) or 'none'}.",
            data={"param": key[:MAX_NAME_CHARS]},
        )
        error.where, error.key, error.known = where, key, known
        return error


def anything(value: Any, where: str) -> None:
    """Every value passes."""


def text(value: Any, where: str) -> None:
    if type(value) is not str:
        raise _wrong(where, "a string", value)


def name(value: Any, where: str) -> None:
    if type(value) is not str or not 0 < len(value) <= MAX_NAME_CHARS:
        raise _wrong(where, f"a string of 1 to {MAX_NAME_CHARS} characters", value)


def boolean(value: Any, where: str) -> None:
    if type(value) is not bool:
        raise _wrong(where, "true or false", value)


def mapping(value: Any, where: str) -> None:
    if type(value) is not dict:
        raise _wrong(where, "a map", value)


def integer(minimum: int | None = None, maximum: int | None = None) -> Check:
    """An integer of 64 bits, signed."""
    expected = "an integer" + _range(minimum, maximum)

    def check(value: Any, where: str) -> None:
        if (
            type(value) is not int
            or not _MIN_INTEGER <= value <= _MAX_INTEGER
            or not _within(value, minimum, maximum)
        ):
            raise _wrong(where, expected, value)

    return check


def number(minimum: float | None = None, maximum: float | None = None) -> Check:
    """An integer or a float, finite and within what an integer may be."""
    expected = "a number" + _range(minimum, maximum)

    def check(value: Any, where: str) -> None:
        if (
            type(value) not in (int, float)
            or not _MIN_INTEGER <= value <= _MAX_INTEGER
            or not _within(value, minimum, maximum)
        ):
            raise _wrong(where, expected, value)

    return check


def one_of(*names: str) -> Check:
    """One of `names`."""

    def check(value: Any, where: str) -> None:
        if value not in names:
            text(value, where)
            raise InvalidParamsError(
                f"{where} is unknown: {quoted(value)}.{suggestion(value, names)} "
                f"Valid: {', '.join(names) or 'none'}.",
                data={"param": where.rpartition(": ")[2]},
            )

    return check


def array(item: Check, maximum: int | None = None) -> Check:
    def check(value: Any, where: str) -> None:
        if type(value) is not list:
            raise _wrong(where, "a list", value)
        if maximum is not None and len(value) > maximum:
            raise InvalidParamsError(
                f"{where} must be a list of at most {maximum}, got one of {len(value)}.",
                data={"param": where.rpartition(": ")[2]},
            )
        for index, element in enumerate(value):
            item(element, f"{where}[{index}]")

    return check


def map_of(item: Check) -> Check:
    """A map from names to what `item` takes."""

    def check(value: Any, where: str) -> None:
        mapping(value, where)
        for key, element in value.items():
            if not 0 < len(key) <= MAX_NAME_CHARS:
                raise InvalidParamsError(
                    f"{where}: names have 1 to {MAX_NAME_CHARS} characters, got {len(key)}.",
                    data={"param": where.rpartition(": ")[2]},
                )
            item(element, f"{where}.{key}")

    return check


def either(first: Check, second: Check, expected: str) -> Check:
    """Passes what one of two checks does; for two kinds of value (a name or a map), so that the
    error of a map that is almost right is the map's own."""

    def check(value: Any, where: str) -> None:
        if type(value) is dict:
            second(value, where)
        elif type(value) is str:
            first(value, where)
        else:
            raise _wrong(where, expected, value)

    return check


def record(
    required: dict[str, Check] | None = None, optional: dict[str, Check] | None = None
) -> Check:
    """A map with exactly these keys. The outermost place is the method's name."""
    required, optional = required or {}, optional or {}
    own = (*required, *optional)
    known = frozenset(own)
    looked_at = {key: item for key, item in optional.items() if item is not anything}

    def check(value: Any, where: str) -> None:
        if type(value) is not dict:
            raise _wrong(where, "a map", value)
        if not value.keys() <= known:
            raise UnknownParameterError.of(where, next(k for k in value if k not in known), own)
        for key, item in required.items():
            if key not in value:
                raise InvalidParamsError(
                    f"{where}: the parameter {key!r} is missing.", data={"param": key}
                )
            item(value[key], _inside(where, key))
        for key, item in looked_at.items():
            if value.get(key) is not None:
                item(value[key], _inside(where, key))

    return check


def quoted(word: str) -> str:
    """A name in an error: a client's frame may be one long name, the answer must not be."""
    return repr(word) if len(word) <= MAX_NAME_CHARS else f"{word[:MAX_NAME_CHARS]!r}…"


def _inside(where: str, key: str) -> str:
    return f"{where}: {key}" if ":" not in where else f"{where}.{key}"


def _within(value: float, minimum: float | None, maximum: float | None) -> bool:
    return (minimum is None or value >= minimum) and (maximum is None or value <= maximum)


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is not None and maximum is not None:
        return f" from {minimum} to {maximum}"
    if minimum is not None:
        return f" of at least {minimum}"
    return "" if maximum is None else f" of at most {maximum}"


_KINDS = {
    type(None): "nil",
    bool: "a boolean",
    int: "an integer",
    float: "a float",
    str: "a string",
    bytes: "bytes",
    list: "a list",
    dict: "a map",
}

# As `render` of the values of programs has them.
_WORDS = {"True": "true", "False": "false", "nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}


def _wrong(where: str, expected: str, value: Any) -> InvalidParamsError:
    got = _KINDS.get(type(value), f"a {type(value).__name__.lower()}")
    if type(value) is int and not _MIN_INTEGER <= value <= _MAX_INTEGER:
        got = "an integer beyond 64 bits"  # which may have more digits than Python prints
    elif type(value) in (bool, int, float):
        got = f"{got} ({_WORDS.get(str(value), value)})"
    elif type(value) is str and not value:
        got = "an empty string"
    elif type(value).__name__ == "ndarray":
        got = "a tensor"
    return InvalidParamsError(
        f"{where} must be {expected}, got {got}.", data={"param": where.rpartition(": ")[2]}
    )


# What every request may carry beside its method's own parameters.
COMMON: dict[str, Check] = {"timeout_ms": integer(minimum=1), "meta": mapping}

# Shared by requests and by saved states.
TOOLS: Check = array(
    record({"name": name, "description": text, "parameters": anything}), maximum=MAX_TOOLS
)
