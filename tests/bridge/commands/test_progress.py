"""What is told while a command works."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from dspex_bridge.commands.progress import PlainLines, showing, shown

STATE = {
    "id": 3,
    "phase": "compile",
    "step": 2,
    "total": 8,
    "message": "candidate 2",
    "score": 0.5,
    "best_score": 0.75,
    "lm_calls": 1200,
    "total_tokens": 34567,
    "cost_usd": 0.25,
    "eta_ms": 3400,
}


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_has_all_that_is_known() -> None:
    assert shown(STATE) == (
        "compile 2/8, score so far 0.500, best 0.750, 1,200 LM calls, 34,567 tokens, $0.2500, "
        "about 3 s to go"
    )
    assert shown({"step": 1, "total": None, "score": None, "cost_usd": None}) == "1"


def test_lines_come_once_a_second_and_with_each_phase_and_its_end() -> None:
    now = 0.0
    stream = StringIO()
    lines = PlainLines("optimize", stream, lambda: now)

    def hear(at: float, phase: str, step: int) -> None:
        nonlocal now
        now = at
        lines.hear({"phase": phase, "step": step, "total": 9})

    hear(0.0, "baseline", 0)
    hear(0.5, "baseline", 1)
    hear(0.6, "compile", 1)
    hear(1.5, "compile", 2)
    hear(1.6, "compile", 3)
    hear(1.7, "compile", 9)
    hear(1.8, "compile", 9)
    told = [line.removeprefix("optimize ") for line in stream.getvalue().splitlines()]
    assert told == ["baseline 0/9", "compile 1/9", "compile 3/9", "compile 9/9"]


def tell(stream: StringIO, params: dict[str, Any] = STATE) -> str:
    with showing("optimize", stream) as show:
        show(params)
    return stream.getvalue()


def test_where_it_is_no_terminal_there_are_lines() -> None:
    assert tell(StringIO()).startswith("optimize compile 2/8, score so far 0.500")


def test_in_a_terminal_there_is_a_bar() -> None:
    told = tell(Terminal(), {**STATE, "phase": "[bold]"})
    assert "\x1b[" in told
    assert "[bold]" in told  # text, and no markup


def test_in_a_terminal_without_rich_there_are_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert tell(Terminal()).startswith("optimize compile 2/8, score so far 0.500")
