"""A result as lines for a terminal."""

from __future__ import annotations

import statistics

from .measurement import Result, Told

__all__ = ["text"]


def text(result: Result) -> str:
    """The title, the median cost of each contestant and what they come to."""
    measurement = result.measurement
    lines = [f"\n{measurement.name}: {measurement.title}, {measurement.unit}"]
    if result.left_out:
        lines.append(f"  not measured: {result.left_out}")
    for name, costs in result.rounds.items():
        lines.append(
            f"  {name:28} {statistics.median(costs):12.3f}"
            f"   ({min(costs):.3f} to {max(costs):.3f} in {len(costs)} rounds)"
        )
    lines += [f"  {comparison(each)}" for each in result.told]
    return "\n".join(lines)


def comparison(told: Told) -> str:
    """`= bridge / floor: 2.31 (target: at most 1.6, MISSED)`."""
    known = told.comparison
    shown = f"= {known.name}: {told.value:.4g}{' ' + known.unit if known.unit else ''}"
    if known.bound is None:
        return shown
    side = "at least" if known.is_rate else "at most"
    return f"{shown} (target: {side} {known.bound:g}, {'met' if told.is_met else 'MISSED'})"
