"""What code in a worker prints and logs: lines, told to the bridge."""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from .link import Link

__all__ = ["JobLog", "LineWriter"]

# A progress bar draws one line over and over, and may never end it.
_MAX_LINE_CHARS = 10_000


class LineWriter(io.TextIOBase):
    """In the place of `sys.stdout`: gives each finished line to `emit`, empty ones left out."""

    def __init__(self, emit: Callable[[str], None]) -> None:
        super().__init__()
        self._emit = emit
        self._unfinished = ""
        self._lock = threading.Lock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        with self._lock:
            *lines, rest = (self._unfinished + text).replace("\r", "\n").split("\n")
            self._unfinished = rest[-_MAX_LINE_CHARS:]
        for line in lines:
            if line.strip():
                self._emit(line)
        return len(text)


class JobLog:
    """A worker's log: the bridge's, over the link. `level` is the lowest that anybody reads."""

    def __init__(self, link: Link, level: str) -> None:
        self._link = link
        self._level = level

    def on_level(self, listener: Callable[[str], None]) -> None:
        listener(self._level)

    def write(self, level: str, logger: str, message: str) -> None:
        self._link.notify("log", {"level": level, "logger": logger, "message": message})
