"""The values of the wire as JSON, in the notation of the vectors (protocol/vectors/README.md).

What JSON cannot say, or not in every language, is a map with one key that begins with `$`:

    {"$int": digits}  {"$power": [base, exponent]}, both integers
    {"$float": digits, "nan", "inf" or "-inf"}  {"$decimal": text}  {"$bytes": base64}
    {"$timestamp": "2024-01-01T00:00:00Z"}  {"$tensor": [dtype, shape, base64]}
    {"$map": [[key, value], …]}, for a map whose own keys begin with `$`
    {"$text": [text, n]}, {"$repeat": [item, n]}, {"$zeros": n}: long ones, made of n equal parts
    {"$nested": [n, value]}, {"$nested_map": [n, key, value]}: a value inside n arrays or maps
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from dspex_protocol.tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["from_json", "is_same", "tag_of", "to_json"]


def from_json(value: Any) -> Any:
    """The value that a literal stands for. Raises ValueError for a tag that is none."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    tag = tag_of(value)
    if tag is None:
        return {key: from_json(item) for key, item in value.items()}
    if tag not in _TAGS or len(value) != 1:
        raise ValueError(f"this stands for no value: {value!r:.200}")
    return _TAGS[tag](value[tag])


def to_json(value: Any) -> Any:
    """The literal of a value: what was got, for people to see beside what was expected."""
    if isinstance(value, dict):
        plain = {key: to_json(item) for key, item in value.items()}
        return plain if tag_of(plain) is None else {"$map": [list(pair) for pair in plain.items()]}
    if isinstance(value, list):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    if isinstance(value, datetime):
        return {"$timestamp": value.isoformat().replace("+00:00", "Z")}
    if hasattr(value, "dtype"):
        tensor = _as_tensor(value)
        return {"$tensor": [tensor.dtype, list(tensor.shape), b64encode(tensor.data).decode()]}
    return value


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same on the wire: of one type, NaN like NaN, 1.0 unlike 1."""
    if hasattr(one, "dtype") and hasattr(other, "dtype"):
        return bool(_as_tensor(one) == _as_tensor(other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, float):
        return repr(one) == repr(other)
    if isinstance(one, Decimal):
        return bool(one.as_tuple() == other.as_tuple())
    return bool(one == other)


def tag_of(value: Mapping[str, Any]) -> str | None:
    """The first key that begins with `$`."""
    return next((key for key in value if key.startswith("$")), None)


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor.from_numpy(value)


def _tensor(parts: Any) -> Tensor:
    dtype, shape, data = parts
    return Tensor(dtype, tuple(from_json(shape)), b64decode(data, validate=True))


def _nested(parts: Any) -> Any:
    depth, literal = parts
    value = from_json(literal)
    for _ in range(depth):
        value = [value]
    return value


def _nested_map(parts: Any) -> Any:
    depth, key, literal = parts
    value = from_json(literal)
    for _ in range(depth):
        value = {key: value}
    return value


_TAGS: dict[str, Callable[[Any], Any]] = {
    "$int": int,
    "$power": lambda pair: pair[0] ** pair[1],
    "$float": float,
    "$bytes": lambda text: b64decode(text, validate=True),
    "$decimal": lambda text: Decimal(from_json(text)),
    "$timestamp": datetime.fromisoformat,
    "$tensor": _tensor,
    "$map": lambda pairs: {key: from_json(item) for key, item in pairs},
    "$text": lambda pair: pair[0] * pair[1],
    "$repeat": lambda pair: [from_json(pair[0])] * pair[1],
    "$zeros": bytes,
    "$nested": _nested,
    "$nested_map": _nested_map,
}
