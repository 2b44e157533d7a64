"""Counts and latencies by method."""

from __future__ import annotations

from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["RequestStats"]

# Percentiles are of the latest requests of a method: enough for a p99, small enough to keep.
_LATENCIES_KEPT = 512


class RequestStats:
    def __init__(self) -> None:
        self._methods: dict[str, _Method] = {}

    def record(self, method: str, duration_ms: float, is_error: bool) -> None:
        entry = self._methods.get(method)
        if entry is None:
            entry = self._methods.setdefault(method, _Method())
        entry.count += 1
        entry.errors += is_error
        entry.latencies_ms.append(duration_ms)

    def to_wire(self) -> dict[str, Any]:
        """`{method: {count, errors, p50_ms, p99_ms}}`."""
        return {name: entry.to_wire() for name, entry in list(self._methods.items())}


class _Method:
    __slots__ = ("count", "errors", "latencies_ms")

    def __init__(self) -> None:
        self.count = 0
        self.errors = 0
        self.latencies_ms: deque[float] = deque(maxlen=_LATENCIES_KEPT)

    def to_wire(self) -> dict[str, Any]:
        ordered = sorted(self.latencies_ms.copy())
        return {
            "count": self.count,
            "errors": self.errors,
            "p50_ms": round(ordered[len(ordered) // 2], 3),
            "p99_ms": round(ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)], 3),
        }
