"""What an optimizer gained: scores with their uncertainty, what was won and lost, what changed."""

from __future__ import annotations

from difflib import unified_diff
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspex_bridge.programs.spec import Predictor, ProgramSpec

__all__ = ["changes", "comparison"]

# Intervals are of 95 %, from so many resamples: more move their ends by less than what is shown.
_LEVEL = (2.5, 97.5)
_RESAMPLES = 2000

# A score that differs by less than rounding is the same.
_TOLERANCE = 1e-9


def comparison(base: Sequence[float], best: Sequence[float]) -> dict[str, Any]:
    """Two programs' scores on the same examples: intervals of 95 % by the bootstrap, of each mean
    and of the mean difference, and the numbers of the examples that were won and lost."""
    before, after = np.asarray(base, float), np.asarray(best, float)
    # Always the same resamples, of whole examples: the difference is a paired one.
    draws = np.random.default_rng(0).integers(0, len(before), (_RESAMPLES, len(before)))
    difference = after - before
    return {
        "examples": len(before),
        "base_scores": before.tolist(),
        "scores": after.tolist(),
        "base_interval": _interval(before[draws]),
        "interval": _interval(after[draws]),
        "difference": float(difference.mean()),
        "difference_interval": _interval(difference[draws]),
        "won": np.flatnonzero(difference > _TOLERANCE).tolist(),
        "lost": np.flatnonzero(difference < -_TOLERANCE).tolist(),
    }


def changes(before: ProgramSpec, after: ProgramSpec) -> list[str]:
    """What is different, in lines for a person: nothing where nothing is. Both have the state of
    their predictors."""
    lines: list[str] = []
    for name in ("module", "lm", "adapter"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            lines.append(f"{name}: {old or 'the default'} -> {new or 'the default'}")
    for key in sorted({*before.config, *after.config}):
        old, new = before.config.get(key), after.config.get(key)
        if old != new:
            lines.append(f"config.{key}: {_shown(old)} -> {_shown(new)}")
    for key, variable in after.variables.items():
        old = before.variables.get(key, {}).get("default")
        if old != variable.get("default"):
            lines.append(f"variables.{key}: {_shown(old)} -> {_shown(variable.get('default'))}")
    for name, predictor in after.predictors.items():
        lines += _of_predictor(name, _before(before, after, name), predictor)
    return lines


def _before(before: ProgramSpec, after: ProgramSpec, name: str) -> Predictor | None:
    """The predictor that a new one came of. Another module has another name for it: where both have
    one alone, that is it."""
    if len(before.predictors) == len(after.predictors) == 1:
        return next(iter(before.predictors.values()))
    return before.predictors.get(name)


def _of_predictor(name: str, old: Predictor | None, new: Predictor) -> list[str]:
    was = "" if old is None else old.instructions or ""
    had = () if old is None else old.demos
    lines = []
    if was != (new.instructions or ""):
        lines.append(f"{name}: instructions:")
        now = (new.instructions or "").splitlines()
        told = unified_diff(was.splitlines(), now, lineterm="", n=1)
        lines += [line for line in told if not line.startswith(("---", "+++", "@@"))]
    if had != new.demos:
        made = sum(bool(demo.flags.get("augmented")) for demo in new.demos)
        count = f"{len(had)} -> {len(new.demos)}"
        lines.append(f"{name}: {count} demonstrations ({made} of them bootstrapped)")
    return lines


def _interval(resampled: Any) -> list[float]:
    low, high = np.percentile(resampled.mean(axis=1), _LEVEL)
    return [float(low), float(high)]


def _shown(value: Any) -> str:
    return "not set" if value is None else str(value)
