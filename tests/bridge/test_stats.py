from __future__ import annotations

from dspex_bridge.stats import RequestStats


def test_requests_are_counted_by_method_with_percentiles() -> None:
    stats = RequestStats()
    for milliseconds in range(1, 101):
        stats.record("execute", float(milliseconds), is_error=milliseconds > 90)
    stats.record("ping", 0.01, is_error=False)
    assert stats.to_wire() == {
        "execute": {"count": 100, "errors": 10, "p50_ms": 51.0, "p99_ms": 100.0},
        "ping": {"count": 1, "errors": 0, "p50_ms": 0.01, "p99_ms": 0.01},
    }


def test_percentiles_are_of_the_latest_requests() -> None:
    stats = RequestStats()
    for _ in range(10_000):
        stats.record("execute", 1000.0, is_error=False)
    for _ in range(512):
        stats.record("execute", 1.0, is_error=False)
    assert stats.to_wire()["execute"]["p99_ms"] == 1.0
