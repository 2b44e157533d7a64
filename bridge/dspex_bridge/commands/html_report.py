"""What an optimization did, as one HTML page that needs nothing else."""

from __future__ import annotations

import json
from difflib import unified_diff
from html import escape
from typing import TYPE_CHECKING, Any

from .charts import Point, front_chart, score_chart
from .report import change_lines, interval, score_rows, spent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["html_report"]

# Lines of a prompt around each change.
_CONTEXT_LINES = 3

_STYLE = """
:root { color-scheme: light dark; --ink: #1d232b; --paper: #fff; --soft: #667080; --rule: #dde2e8;
  --best: #0b6bcb; --good: #1a7f37; --bad: #b3261e; --front: #9a4dca; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --paper: #14181d; --soft: #9aa5b3;
  --rule: #313942; --best: #6cb2ff; --good: #6fd08c; --bad: #ff8a80; --front: #d3a2f2; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } .wide { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
  border-bottom: 1px solid var(--rule); }
th { color: var(--soft); font-weight: 600; } .soft { color: var(--soft); }
pre { overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; font-size: .85rem; }
ins { color: var(--good); text-decoration: none; } del { color: var(--bad); text-decoration: none; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 12px; }
.grid { stroke: var(--rule); } polyline { fill: none; stroke-width: 2; }
.base { stroke: var(--soft); stroke-dasharray: 5 5; } .steps { stroke: var(--best); }
.full { fill: var(--best); } .partial { fill: none; stroke: var(--soft); }
.front { fill: var(--front); } .best { fill: var(--good); }
"""


def html_report(
    result: Mapping[str, Any],
    *,
    base: Mapping[str, Any],
    examples: Sequence[Mapping[str, Any]],
    optimizer: str,
) -> str:
    """The page. `result` is the answer of optimize, `base` the state of the program before it, and
    `examples` those that it was scored on."""
    title = f"{result['base_program']}: {optimizer}"
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="soft">{len(result["trials"])} candidates, {escape(spent(result))}</p>',
        _stopped(result),
        _table(score_rows(result)),
        _difference(result),
        "<h2>Score over trials</h2>",
        score_chart(_trials(result), result["base_score"]),
        '<p class="soft">Hollow: scored on some of the examples. Dashed: the base program.</p>',
        _front(result),
        "<h2>What changed</h2>",
        "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in change_lines(result)) + "</ul>",
        f"<pre>{_diff(base, result['state'])}</pre>",
        *_won_and_lost(result, examples),
        _trial_table(result),
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(filter(None, parts))
        + "\n</body>\n</html>\n"
    )


def _stopped(result: Mapping[str, Any]) -> str:
    if result["stopped"] is None:
        return ""
    return f"<p><strong>Stopped early ({escape(result['stopped'])}): the best so far.</strong></p>"


def _difference(result: Mapping[str, Any]) -> str:
    compared = result["comparison"]
    if compared is None:
        return ""
    ends = interval(compared["difference_interval"], "+.3f")
    return (
        f"<p>Difference {compared['difference']:+.3f}, with 95 % confidence from {ends}; "
        f"{len(compared['won'])} examples won, {len(compared['lost'])} lost.</p>"
    )


def _trials(result: Mapping[str, Any]) -> list[Point]:
    scored = [trial for trial in result["trials"] if trial["score"] is not None]
    most = max((trial["examples"] for trial in scored), default=0)
    points = []
    for trial in scored:
        kind = "full" if trial["examples"] == most else "partial"
        if trial["trial"] == result["best_trial"]:
            kind = "best"
        title = f"trial {trial['trial']}: {trial['score']:.3f} on {trial['examples']} examples"
        values = f", {_json(trial['values'])}" if trial.get("values") else ""
        points.append(Point(trial["trial"], trial["score"], title + values, kind))
    return points


def _front(result: Mapping[str, Any]) -> str:
    searched = result["variables"] or {}
    front = searched.get("pareto")
    if not front:
        return ""
    names = [name for name in front[0] if name != "values"]
    if len(names) < 2:
        return ""
    x_name, y_name = names[1], names[0]
    whole = [trial for trial in searched["trials"] if not trial.get("pruned")]
    points = [
        Point(
            trial[x_name],
            trial[y_name],
            ", ".join(f"{name} {trial[name]:.4g}" for name in names)
            + f": {_json(trial['values'])}",
            "front" if trial in front else "full",
        )
        for trial in whole
    ]
    rows = [[*names, "values"]]
    rows += [[*(f"{trial[name]:.4g}" for name in names), _json(trial["values"])] for trial in front]
    return (
        "<h2>Pareto front</h2>\n<p>None of these is beaten in all of them by another trial."
        f"</p>\n{front_chart(points, (x_name, y_name))}\n{_table(rows)}"
    )


def _trial_table(result: Mapping[str, Any]) -> str:
    rows = [["trial", "score", "examples", "values"]]
    rows += [
        [
            str(trial["trial"]),
            "" if trial["score"] is None else f"{trial['score']:.3f}",
            str(trial["examples"]),
            _json(trial["values"]) if trial.get("values") else "",
        ]
        for trial in result["trials"]
    ]
    return f"<details><summary>All trials</summary>{_table(rows)}</details>"


def _won_and_lost(
    result: Mapping[str, Any], examples: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    compared = result["comparison"] or {}
    for title in ("won", "lost"):
        if compared.get(title):
            yield _examples(title.capitalize(), compared[title], examples)


def _examples(title: str, indices: Sequence[int], examples: Sequence[Mapping[str, Any]]) -> str:
    rows = [["", "inputs", "label"]]
    rows += [
        [str(index), _json(examples[index]["inputs"]), _json(examples[index]["outputs"])]
        for index in indices
    ]
    return f"<details><summary>{title}: {len(indices)} examples</summary>{_table(rows)}</details>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:]
    )
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _diff(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The prompts' lines that went and came."""
    lines = unified_diff(
        list(_prompt_lines(before)), list(_prompt_lines(after)), lineterm="", n=_CONTEXT_LINES
    )
    marks = {"+": "ins", "-": "del"}
    shown = []
    for line in list(lines)[2:]:  # without the names of files that there are none of
        mark = marks.get(line[0])
        text = escape(line)
        shown.append(f"<{mark}>{text}</{mark}>" if mark else text)
    return "\n".join(shown)


def _prompt_lines(state: Mapping[str, Any]) -> Iterator[str]:
    """What a state puts into prompts: of each predictor the instructions and demonstrations."""
    predictors = state["predictors"]
    if state.get("demos") and not any(item["demos"] for item in predictors.values()):
        # Those that a module chooses from, as knn does.
        predictors = {**predictors, "demonstrations": {"demos": state["demos"]}}
    for name, predictor in predictors.items():
        yield f"{name}:"
        yield from (predictor.get("instructions") or "").splitlines()
        for demo in predictor["demos"]:
            for side in ("inputs", "outputs"):
                for field, value in demo[side].items():
                    yield f"  {field}: {value if isinstance(value, str) else _json(value)}"
            yield ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
