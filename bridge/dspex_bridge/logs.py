"""What the bridge has to say to people: lines on stderr, and `log` events where asked for."""

from __future__ import annotations

import os
import select
import time
from contextvars import ContextVar

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .redaction import Redactor

__all__ = ["CURRENT_REQUEST", "LEVELS", "MAX_EVENTS_PER_SECOND", "STDOUT", "Log"]

LEVELS = ("debug", "info", "warning", "error")

# The id of the request that is at work in this context, for what is said without naming one.
CURRENT_REQUEST: ContextVar[int | None] = ContextVar("dspex_request", default=None)

# The logger of what Python code prints.
STDOUT = "stdout"

# A program that prints in a loop must not fill the pipe that its answers go through.
MAX_EVENTS_PER_SECOND = 1000

# A log line is for reading; a quoted prompt of a megabyte is not.
_MAX_MESSAGE_CHARS = 10_000


class Log:
    """Writes to stderr from `stderr_level` on, and to `emit` from `wire_level` on (None: never).

    `emit(level, logger, message, request_id)` sends it to the client. No secret passes.
    """

    def __init__(self, redactor: Redactor, stderr_level: str = "warning") -> None:
        self._redactor = redactor
        self._stderr_from = LEVELS.index(stderr_level)
        self._stderr = select.poll()
        # Ready means that a pipe takes PIPE_BUF bytes without blocking.
        self._stderr.register(2, select.POLLOUT)
        self._dropped = 0
        self._wire_from: int | None = None
        self._emit: Callable[[str, str, str, int | None], None] | None = None
        self._level_listener: Callable[[str], None] | None = None
        self._is_full: Callable[[], bool] = lambda: False
        self._window_ends = 0.0
        self._events_left = 0
        self._events_dropped = 0

    def forward(
        self,
        level: str,
        emit: Callable[[str, str, str, int | None], None],
        is_full: Callable[[], bool] = lambda: False,
    ) -> None:
        """Events from `level` on go to `emit`; while `is_full()` they are left out, and counted."""
        self._is_full = is_full
        self._wire_from = LEVELS.index(level)
        self._emit = emit
        self._tell_level()

    def on_level(self, listener: Callable[[str], None]) -> None:
        """Tells the lowest level that anybody listens to, now and when it changes."""
        self._level_listener = listener
        self._tell_level()

    def _tell_level(self) -> None:
        if self._level_listener is not None:
            wire = len(LEVELS) - 1 if self._wire_from is None else self._wire_from
            self._level_listener(LEVELS[min(wire, self._stderr_from)])

    def debug(self, message: str, request: int | None = None) -> None:
        self.write("debug", "dspex", message, request)

    def info(self, message: str, request: int | None = None) -> None:
        self.write("info", "dspex", message, request)

    def warning(self, message: str, request: int | None = None) -> None:
        self.write("warning", "dspex", message, request)

    def error(self, message: str, request: int | None = None) -> None:
        self.write("error", "dspex", message, request)

    def printed(self, line: str, request: int | None) -> None:
        """A line that Python code printed: an event where those are asked for, else on stderr."""
        if self._wire_from is not None and LEVELS.index("info") >= self._wire_from:
            self.write("info", STDOUT, line, request)
        else:
            self._print(f"{self._redactor.text(line)}\n")

    def write(self, level: str, logger: str, message: str, request: int | None = None) -> None:
        request = CURRENT_REQUEST.get() if request is None else request
        rank = LEVELS.index(level)
        to_wire = self._wire_from is not None and rank >= self._wire_from
        if rank < self._stderr_from and not to_wire:
            return
        message = self._redactor.text(message)
        if len(message) > _MAX_MESSAGE_CHARS:
            cut = len(message) - _MAX_MESSAGE_CHARS
            message = f"{message[:_MAX_MESSAGE_CHARS]}… ({cut} more characters)"
        if rank >= self._stderr_from:
            about = "" if request is None else f" [request {request}]"
            self._print(f"{logger}: {level}{about}: {message}\n")
        if to_wire and self._emit is not None and self._may_emit():
            self._emit(level, logger, message, request)

    def _may_emit(self) -> bool:
        """Whether this second has room for one more event. Two threads may both take the last."""
        now = time.monotonic()
        if now >= self._window_ends:
            dropped, self._events_dropped = self._events_dropped, 0
            self._window_ends, self._events_left = now + 1.0, MAX_EVENTS_PER_SECOND
            if dropped:
                self.warning(f"{dropped} log events were left out: too many, or nobody read them")
        if not self._events_left or self._is_full():
            self._events_dropped += 1
            return False
        self._events_left -= 1
        return True

    def _print(self, line: str) -> None:
        """Writes a line to stderr, or drops it where nobody reads that: whoever logs may be the
        thread that reads the client's requests, and must not wait for anybody."""
        if self._dropped:
            line = (
                f"dspex: warning: {self._dropped} lines were not written: stderr was full\n{line}"
            )
        data = memoryview(line.encode("utf-8", "replace"))
        try:
            while data:
                if not self._stderr.poll(0):
                    self._dropped += 1
                    return
                data = data[os.write(2, data[: select.PIPE_BUF]) :]
        except OSError:
            self._dropped += 1  # closed: there is no place left to say so
            return
        self._dropped = 0
