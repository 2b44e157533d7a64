"""What JSON can hold."""

from __future__ import annotations

import math

__all__ = ["MAX_DEFAULT_DEPTH", "is_json"]

# Deeper defaults than anybody writes, well inside Python's recursion limit.
MAX_DEFAULT_DEPTH = 32


def is_json(value: object, depth: int = MAX_DEFAULT_DEPTH) -> bool:
    """Whether a JSON document can hold a value, nested at most so deep."""
    if value is None or isinstance(value, str | bool | int):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if depth and isinstance(value, list):
        return all(is_json(item, depth - 1) for item in value)
    if depth and isinstance(value, dict):
        return all(isinstance(k, str) and is_json(v, depth - 1) for k, v in value.items())
    return False
