"""The sessions: scripts of what a client sends to a bridge and what has to come back.

They are JSON files, in `protocol/vectors/sessions` of the project and in the installed package;
protocol/CONFORMANCE.md says their form.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

__all__ = ["STEPS", "Session", "load_sessions"]

#: What a step may be: its key, and the keys that may stand beside it. `why` may always.
STEPS: dict[str, tuple[str, ...]] = {
    "send": (),
    "send_sized": ("bytes", "plus"),
    "send_frame": (),
    "send_bytes": ("one_by_one",),
    "close_stdin": (),
    "expect": (),
    "expect_all": (),
    "expect_stream": (),
    "expect_exit": ("within_ms",),
}


@dataclass(frozen=True, slots=True)
class Session:
    """`options` are for the bridge's command line; a session that has some is optional."""

    name: str
    about: str
    options: tuple[str, ...]
    steps: tuple[dict[str, Any], ...]


def load_sessions() -> list[Session]:
    """All of them, by name. Raises ValueError for one that is not of the form."""
    folder = files("dspex_protocol") / "vectors" / "sessions"
    found = [item for item in folder.iterdir() if item.name.endswith(".json")]
    return sorted(
        (_session(item.name.removesuffix(".json"), item.read_text("utf-8")) for item in found),
        key=lambda session: session.name,
    )


def _session(name: str, text: str) -> Session:
    content = json.loads(text)
    for number, step in enumerate(content["steps"], 1):
        kinds = [key for key in step if key in STEPS]
        if len(kinds) != 1 or not set(step) <= {*kinds, *STEPS[kinds[0]], "why"}:
            raise ValueError(f"session {name}, step {number}: {', '.join(step)} is no step")
    return Session(
        name=name,
        about=content["about"],
        options=tuple(content.get("options", ())),
        steps=tuple(content["steps"]),
    )
