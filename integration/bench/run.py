"""One run of the benchmark, as it is written to a folder."""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import page
from .measurement import Result

__all__ = ["Run"]


@dataclass
class Run:
    """What was measured so far, and under which circumstances."""

    seed: int
    rounds: int
    is_quick: bool
    results: list[Result] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """`bench.json`, with the cost of each contestant in each round, and `index.html`."""
        told = self.to_json()
        text = json.dumps(told, indent=1, ensure_ascii=False)
        (folder / "bench.json").write_text(text + "\n", encoding="utf-8")
        (folder / "index.html").write_text(page.html(told), encoding="utf-8")

    def to_json(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "rounds": self.rounds,
            "is_quick": self.is_quick,
            "python": platform.python_version(),
            "machine": platform.platform(),
            "failed": self.failed,
            "measurements": [result.to_json() for result in self.results],
        }
