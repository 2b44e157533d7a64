"""Values of the wire as JSON, and back.

JSON has no bytes, timestamps, decimals or tensors; those stand as a map with one key that begins
with `$`, and a map of the user's own with such a key stands inside `$map`.
"""

from __future__ import annotations

import math
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal, InvalidOperation
from typing import Any

from dspex_protocol.errors import InvalidParamsError
from dspex_protocol.tensor import Tensor

__all__ = ["from_json", "to_json"]


def to_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        plain = {key: to_json(item) for key, item in value.items()}
        return {"$map": plain} if any(key.startswith("$") for key in plain) else plain
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [to_json(item) for item in sorted(value, key=repr)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, bytes):
        return {"$bytes": b64encode(value).decode()}
    if isinstance(value, Decimal):
        return {"$decimal": str(value)}
    if isinstance(value, datetime):
        return {"$datetime": value.isoformat()}
    if isinstance(value, (date, time)):
        return value.isoformat()
    if hasattr(value, "dtype") and not isinstance(value, Tensor):
        value = Tensor.from_numpy(value)
    if isinstance(value, Tensor):
        return {"$tensor": [value.dtype, list(value.shape), b64encode(value.data).decode()]}
    return value


def from_json(value: Any, param: str = "state") -> Any:
    """Raises InvalidParamsError for a form that is none; `param` is what it names."""
    if isinstance(value, list):
        return [from_json(item, param) for item in value]
    if not isinstance(value, Mapping):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key == "$map" and isinstance(item, Mapping):
            return {name: from_json(inner, param) for name, inner in item.items()}
        if key in _TAGS:
            try:
                return _TAGS[key](item)
            except (ValueError, TypeError, InvalidOperation, Base64Error) as error:
                raise InvalidParamsError(
                    f"{param} has a {key} that is none: {error}", data={"param": param}
                ) from error
    return {name: from_json(inner, param) for name, inner in value.items()}


def _tensor(item: Any) -> Tensor:
    dtype, shape, data = item
    return Tensor(dtype, tuple(shape), b64decode(data, validate=True))


_TAGS: dict[str, Callable[[Any], Any]] = {
    "$float": float,
    "$bytes": lambda item: b64decode(item, validate=True),
    "$decimal": Decimal,
    "$datetime": datetime.fromisoformat,
    "$tensor": _tensor,
}
