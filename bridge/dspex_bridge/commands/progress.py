"""What a long command tells meanwhile, on stderr: a bar in a terminal, else lines."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["PlainLines", "showing", "shown"]

# Lines of one phase: more often nobody reads them.
_EVERY_S = 1.0


@contextmanager
def showing(
    title: str, stream: TextIO = sys.stderr
) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """What takes the parameters of `progress` notifications and shows them."""
    if stream.isatty():
        try:
            from rich.markup import escape
            from rich.progress import Progress
        except ImportError:
            pass  # without the extra `cli` there are lines
        else:
            from rich.console import Console

            with Progress(console=Console(file=stream), transient=True) as bar:
                task = bar.add_task(title, total=None)

                def hear(params: Mapping[str, Any]) -> None:
                    bar.update(
                        task,
                        description=escape(f"{title} {shown(params)}"),
                        completed=params["step"],
                        total=params["total"],
                    )

                yield hear
            return
    yield PlainLines(title, stream).hear


class PlainLines:
    """A line for each new phase and for its end, and at most one a second between them."""

    def __init__(
        self, title: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._title = title
        self._stream = stream
        self._clock = clock
        self._place: Any = None
        self._told_at = float("-inf")

    def hear(self, params: Mapping[str, Any]) -> None:
        now, phase, is_end = self._clock(), params.get("phase"), params["step"] == params["total"]
        place = (phase, is_end)
        if place == self._place and now - self._told_at < _EVERY_S:
            return
        self._place, self._told_at = place, now
        self._stream.write(f"{self._title} {shown(params)}\n")
        self._stream.flush()


def shown(params: Mapping[str, Any]) -> str:
    """How far it is, in one line."""
    total = "" if params["total"] is None else f"/{params['total']}"
    parts = [f"{params.get('phase', '')} {params['step']}{total}".strip()]
    parts += [
        f"{label} {params[key]:.3f}"
        for key, label in (("score", "score so far"), ("best_score", "best"))
        if params.get(key) is not None
    ]
    if params.get("lm_calls"):
        parts.append(f"{params['lm_calls']:,} LM calls, {params['total_tokens']:,} tokens")
    if params.get("cost_usd"):
        parts.append(f"${params['cost_usd']:.4f}")
    if params.get("eta_ms") is not None:
        parts.append(f"about {params['eta_ms'] / 1000:.0f} s to go")
    return ", ".join(parts)
