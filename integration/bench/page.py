"""The page of a run: a table of what was compared, and for each measurement a plot of its rounds.

Plots are SVG of our own, a strip of dots a contestant: the page is one file, without scripts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["html"]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #222; background: #fff }
table { border-collapse: collapse; margin: 1rem 0 }
td, th { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd }
td.number { text-align: right; font-variant-numeric: tabular-nums }
.met { color: #17692f } .missed { color: #b02a1c; font-weight: 600 }
h2 { margin: 2.5rem 0 .3rem; font-size: 1.15rem } p { margin: .4rem 0 } small { color: #666 }
svg { display: block; margin: .6rem 0; max-width: 100% }
svg text { font: 12px system-ui, sans-serif }
"""

# Of a plot, in pixels: names to the left, a row for each contestant, the scale below.
_NAMES, _WIDTH, _ROW, _SCALE, _MARGIN = 210, 620, 22, 24, 30


def html(run: Mapping[str, Any]) -> str:
    """The page of a run, as `Run.to_json` has it."""
    measurements = run["measurements"]
    quick = " A quick run: its figures mean nothing." if run["is_quick"] else ""
    failed = (
        f"<p class=missed>Failed: {escape(', '.join(run['failed']))}</p>" if run["failed"] else ""
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>DSPex: the benchmark</title>'
        f"<style>{_STYLE}</style><h1>What it costs, beside the floor and the peers</h1>"
        f"<p>{len(measurements)} measurements of {run['rounds']} rounds (some of a share of that)"
        f" in which the contestants took turns; seed {run['seed']}, Python {escape(run['python'])},"
        f" {escape(run['machine'])}.{quick} A ratio is the median of the ratios of each round.</p>"
        f"{failed}{_table(measurements)}{''.join(map(_section, measurements))}</html>\n"
    )


def _table(measurements: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        f"<tr><td><a href=#{escape(each['name'])}>{escape(each['name'])}</a>"
        f"<td>{escape(comparison['name'])}{_result(comparison)}"
        for each in measurements
        for comparison in each["comparisons"]
    ]
    return f"<table><tr><th>measurement<th>compared<th>value<th>target<th>{''.join(rows)}</table>"


def _result(comparison: Mapping[str, Any]) -> str:
    value = f"<td class=number>{_number(comparison['value'])} {escape(comparison['unit'])}"
    if comparison["bound"] is None:
        return f"{value}<td><td>"
    side = "at least" if comparison["is_rate"] else "at most"
    verdict = "met" if comparison["is_met"] else "missed"
    return f"{value}<td>{side} {comparison['bound']:g}<td class={verdict}>{verdict}"


def _section(measurement: Mapping[str, Any]) -> str:
    found = (
        f"<p class=missed>Not measured: {escape(measurement['left_out'])}</p>"
        if measurement["left_out"]
        else _plot(measurement)
    )
    return (
        f"<h2 id={escape(measurement['name'])}>{escape(measurement['name'])}:"
        f" {escape(measurement['title'])}</h2><p>{escape(measurement['note'])}</p>"
        f"{found}"
    )


def _plot(measurement: Mapping[str, Any]) -> str:
    """A dot a round and a line at the median, on a logarithmic scale: less is better."""
    rounds: Mapping[str, Sequence[float]] = measurement["rounds"]
    costs = [cost for own in rounds.values() for cost in own if cost > 0]
    if not costs:
        return "<p>Nothing was measured.</p>"
    low, high = math.log10(min(costs)) - 0.05, math.log10(max(costs)) + 0.05

    def x(cost: float) -> float:
        return _NAMES + (math.log10(cost) - low) / (high - low) * _WIDTH

    parts = []
    for row, (name, own) in enumerate(rounds.items()):
        y = row * _ROW + _ROW / 2
        median = measurement["medians"][name]
        parts.append(f'<text x="0" y="{y + 4:.0f}">{escape(name)}</text>')
        parts += [
            f'<circle cx="{x(cost):.1f}" cy="{y:.1f}" r="3" fill="#3568a8" fill-opacity=".45"/>'
            for cost in own
            if cost > 0
        ]
        if median > 0:
            at = x(median)
            parts.append(
                f'<path d="M{at:.1f} {y - 8:.1f}v16" stroke="#b02a1c" stroke-width="2"/>'
                f"<title>{_number(median)}</title>"
            )
    bottom = len(rounds) * _ROW
    for tick in _ticks(10**low, 10**high):
        parts.append(
            f'<path d="M{x(tick):.1f} 0V{bottom}" stroke="#ddd"/>'
            f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>'
        )
    width, height = _NAMES + _WIDTH + _MARGIN, bottom + _SCALE
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img">'
        f"{''.join(parts)}</svg><small>{escape(measurement['unit'])}; a dot is a round, the line"
        " the median; the scale is logarithmic</small>"
    )


def _ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each power of ten between the two; 1 alone where that is many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(powers) <= 3 else (1,)
    return [
        step * 10.0**power
        for power in powers
        for step in steps
        if low <= step * 10.0**power <= high
    ]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
