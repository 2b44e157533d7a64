"""What `dspex optimize` prints at its end: lines and a table for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["change_lines", "interval", "score_rows", "spent", "table", "text_report"]

_NOT_KNOWN = "-"

# A program's text changes by pages; the HTML report has all of it.
_MAX_CHANGES = 20


def text_report(result: Mapping[str, Any]) -> str:
    lines = [table(score_rows(result)), ""]
    compared = result["comparison"]
    if compared is not None:
        lines.append(
            f"difference: {compared['difference']:+.3f} "
            f"(95 %: {interval(compared['difference_interval'], '+.3f')}); "
            f"{len(compared['won'])} examples won, {len(compared['lost'])} lost"
        )
    changes = change_lines(result)
    lines += [f"changed: {line}" for line in changes[:_MAX_CHANGES]]
    if len(changes) > _MAX_CHANGES:
        lines.append(f"and {len(changes) - _MAX_CHANGES} lines more: --html shows them")
    errors = result["metric_errors"]
    if errors:
        lines.append(f"the metric failed {len(errors)} times, first: {errors[0]['message']}")
    if result["stopped"] is not None:
        lines.append(f"stopped early ({result['stopped']}): this is the best so far")
    return "\n".join([*lines, f"({len(result['trials'])} candidates, {spent(result)})\n"])


def score_rows(result: Mapping[str, Any]) -> list[list[str]]:
    """A head and rows: the base program beside the best one."""
    rows = [["", "base", "best"]]
    compared = result["comparison"]
    label = "score" if compared is None else f"score on {compared['examples']} examples"
    rows.append([label, _score(result["base_score"]), _score(result["score"])])
    if compared is not None:
        ends = (interval(compared[key], ".3f") for key in ("base_interval", "interval"))
        rows.append(["95 % interval", *ends])
    return rows


def change_lines(result: Mapping[str, Any]) -> list[str]:
    """What is different, the values of variables included."""
    chosen = (result["variables"] or {}).get("values") or {}
    values = [f"variable {name} = {value}" for name, value in chosen.items()]
    return [*values, *result["changes"]] or ["nothing"]


def spent(result: Mapping[str, Any]) -> str:
    parts = [f"{result['usage']['total_tokens']:,} tokens"]
    parts.append("cost unknown" if result["cost_usd"] is None else f"${result['cost_usd']:.4f}")
    parts.append(f"{result['duration_ms'] / 1000:.1f} s")
    return ", ".join(parts)


def interval(ends: Sequence[float], form: str) -> str:
    return f"{ends[0]:{form}} to {ends[1]:{form}}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as what is in them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _score(score: float | None) -> str:
    return _NOT_KNOWN if score is None else f"{score:.3f}"
