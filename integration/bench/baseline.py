"""The ratios of the last committed run, and whether another one has lost against them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from .measurement import Result

__all__ = ["BASELINE", "MAX_LOSS", "losses", "read", "write"]

BASELINE = Path(__file__).with_name("baseline.json")

# Medians of interleaved rounds differ by some percent between runs on a shared machine.
MAX_LOSS = 0.25


def read(path: Path | None = None) -> dict[str, dict[str, float]]:
    """Ratios by measurement and comparison."""
    ratios: dict[str, dict[str, float]] = json.loads((path or BASELINE).read_text())
    return ratios


def write(results: Iterable[Result], path: Path | None = None) -> None:
    """Puts these results in place of those of the same measurements; others stay."""
    path = path or BASELINE
    kept = read(path) if path.exists() else {}
    for result in results:
        ratios = {name: float(f"{ratio:.4g}") for name, ratio in result.ratios().items()}
        if ratios:
            kept[result.measurement.name] = ratios
    path.write_text(json.dumps(kept, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def losses(results: Iterable[Result], baseline: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line for each ratio that is worse by more than MAX_LOSS, and for each that the baseline has
    of these measurements and they have not. What was left out of the run has lost nothing."""
    lines = []
    for result in results:
        if result.left_out:
            continue
        before = baseline.get(result.measurement.name, {})
        told = {each.comparison.name: each for each in result.told}
        for name, was in before.items():
            if name not in told:
                lines.append(f"{result.measurement.name}: {name} was not measured (was {was:.3g})")
                continue
            now, is_rate = told[name].value, told[name].comparison.is_rate
            worst = was * (1 - MAX_LOSS) if is_rate else was * (1 + MAX_LOSS)
            if now < worst if is_rate else now > worst:
                lines.append(
                    f"{result.measurement.name}: {name} is {now:.3g} and was {was:.3g}"
                    f" ({'at least' if is_rate else 'at most'} {worst:.3g} is allowed)"
                )
    return lines
