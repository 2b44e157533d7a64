"""Charts as inline SVG, coloured by the page's own style: the classes stand in html_report."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Point", "front_chart", "score_chart", "ticks"]

_WIDTH, _HEIGHT = 720, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 16, 44

# At most so many steps between the marks of an axis, which are at round values: multiples of one of
# these numbers times a power of ten.
_STEPS = 6
_ROUND = (1, 2, 5, 10)

# An axis of whole numbers has at least so many, or one trial would fill it.
_MIN_TRIALS = 4

# Beyond the outermost values, as a part of their range.
_ROOM = 0.05

# What the arithmetic of ticks may be off by, as a part of a step.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Point:
    """`kind` is a class of the style: full, partial, front or best; `title` is told on hover."""

    x: float
    y: float
    title: str
    kind: str = "full"


def score_chart(points: Sequence[Point], base: float | None) -> str:
    """Scores over trials: dots, the best so far of those that count in full as steps, and the base
    as a line."""
    scores = [point.y for point in points] + ([] if base is None else [base])
    last = max((point.x for point in points), default=0)
    scale = _Scale([0, max(last, _MIN_TRIALS)], _with_room(scores))
    parts = []
    if base is not None:
        parts.append(scale.line([(scale.low_x, base), (scale.high_x, base)], "base", "base"))
    steps: list[tuple[float, float]] = []
    for point in points:
        if point.kind == "partial":
            continue
        if steps:
            steps.append((point.x, steps[-1][1]))
        steps.append((point.x, max(point.y, steps[-1][1]) if steps else point.y))
    parts.append(scale.line(steps, "steps", "best so far"))
    parts += [scale.dot(point) for point in points]
    return scale.chart(parts, "trial", "score", "score of each trial")


def front_chart(points: Sequence[Point], names: tuple[str, str]) -> str:
    """Trials by two objectives, with a line through those that no other one beats in both."""
    scale = _Scale(
        _with_room([point.x for point in points]), _with_room([point.y for point in points])
    )
    front = sorted((point.x, point.y) for point in points if point.kind == "front")
    above = sorted(points, key=lambda point: point.kind == "front")
    parts = [scale.line(front, "steps", "Pareto front"), *map(scale.dot, above)]
    return scale.chart(parts, names[0], names[1], f"{names[1]} against {names[0]}")


class _Scale:
    """Where values lie in the picture, from the lowest to the highest of each axis."""

    def __init__(self, xs: Sequence[float], ys: Sequence[float]) -> None:
        self.low_x, self.high_x = min(xs), max(xs)
        self.low_y, self.high_y = min(ys), max(ys)

    def at(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.low_x) / (self.high_x - self.low_x)
        up = (y - self.low_y) / (self.high_y - self.low_y)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM),
        )

    def line(self, values: Iterable[tuple[float, float]], kind: str, title: str) -> str:
        path = " ".join("{:.1f},{:.1f}".format(*self.at(x, y)) for x, y in values)
        return f'<polyline class="{kind}" points="{path}"><title>{escape(title)}</title></polyline>'

    def dot(self, point: Point) -> str:
        x, y = self.at(point.x, point.y)
        return (
            f'<circle class="{escape(point.kind)}" cx="{x:.1f}" cy="{y:.1f}" r="4">'
            f"<title>{escape(point.title)}</title></circle>"
        )

    def chart(self, parts: Sequence[str], x_name: str, y_name: str, label: str) -> str:
        grid = []
        for value, shown in ticks(self.low_y, self.high_y):
            _, y = self.at(self.low_x, value)
            ends = f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
            grid.append(f'<line class="grid" {ends}/>')
            grid.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>')
        below = _HEIGHT - _BOTTOM + 18
        for value, shown in ticks(self.low_x, self.high_x):
            x, _ = self.at(value, self.low_y)
            grid.append(f'<text x="{x:.1f}" y="{below}" text-anchor="middle">{shown}</text>')
        names = (
            f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>'
            f'<text x="14" y="{_HEIGHT / 2}" text-anchor="middle" '
            f'transform="rotate(-90 14 {_HEIGHT / 2})">{escape(y_name)}</text>'
        )
        return (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">'
            f"{''.join(grid)}{names}{''.join(parts)}</svg>"
        )


def ticks(low: float, high: float) -> list[tuple[float, str]]:
    """The round values from `low` to `high`, which is more, each with how it is written."""
    least = (high - low) / _STEPS
    power = 10.0 ** floor(log10(least))
    step = next(part * power for part in _ROUND if part * power >= least * (1 - _ROUNDING))
    places = max(0, -floor(log10(step) + _ROUNDING))
    first, last = ceil(low / step - _ROUNDING), floor(high / step + _ROUNDING)
    return [(number * step, f"{number * step:,.{places}f}") for number in range(first, last + 1)]


def _with_room(values: Sequence[float]) -> tuple[float, float]:
    """A range with room around each value, also where all are the same or there is none."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = (high - low) * _ROOM or _ROOM
    return low - room, high + room
