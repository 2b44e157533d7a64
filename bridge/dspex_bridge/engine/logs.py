"""Joins Python's logging, warnings and prints to the bridge's log, each with its request."""

from __future__ import annotations

import io
import logging
import sys
import threading
from typing import TYPE_CHECKING

import dspy

from dspex_bridge.logs import CURRENT_REQUEST

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    class Sink(Protocol):
        """Where lines go: the bridge's Log, or in a worker the way to it."""

        def on_level(self, listener: Callable[[str], None]) -> None: ...

        def write(self, level: str, logger: str, message: str, request: int | None) -> None: ...

        def printed(self, line: str, request: int | None) -> None: ...


__all__ = ["REQUEST_SETTING", "join"]

# The key in DSPy's settings under which the id of a run's request travels: into the threads that
# DSPy makes, which get its settings and no context.
REQUEST_SETTING = "dspex_request"

# What was printed without the end of its line waits for it, but no longer text than this.
_MAX_LINE_CHARS = 10_000

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))


class _Handler(logging.Handler):
    def __init__(self, log: Sink) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for number, name in _LEVELS if record.levelno >= number), "debug")
        try:
            message = self.format(record)
        except Exception as error:  # noqa: BLE001 - a library's bad log call must not fail its caller
            message = f"(a log record that cannot be formatted: {error})"
        self._log.write(level, record.name, message, _request())


class _Stdout(io.TextIOBase):
    """What Python code prints, line by line and request by request."""

    def __init__(self, log: Sink) -> None:
        self._log = log
        # By request: the beginning of a line.
        self._begun: dict[int | None, str] = {}
        # A finalizer may print in the middle of another line's writing, on the same thread.
        self._lock = threading.RLock()

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        request = _request()
        with self._lock:
            *lines, rest = (self._begun.pop(request, "") + text).split("\n")
            while len(rest) > _MAX_LINE_CHARS:
                lines.append(rest[:_MAX_LINE_CHARS])
                rest = rest[_MAX_LINE_CHARS:]
            if rest:
                self._begun[request] = rest
        for line in lines:
            self._log.printed(line, request)
        return len(text)

    def flush(self) -> None:
        """Called at the end of a run: nothing of it waits for ever."""
        request = _request()
        with self._lock:
            line = self._begun.pop(request, "")
        if line:
            self._log.printed(line, request)


def _request() -> int | None:
    request = CURRENT_REQUEST.get()
    return dspy.settings.get(REQUEST_SETTING) if request is None else request


# Loggers with handlers of their own, which would write around `log` and its redaction. DSPy has
# them by now; LiteLLM makes its own when it is imported, later.
_OWN_HANDLERS = ("dspy", "LiteLLM", "LiteLLM Router", "LiteLLM Proxy")

_LEVEL_NUMBERS = {name: number for number, name in _LEVELS} | {"debug": logging.DEBUG}


def _refuse_handler(hdlr: logging.Handler) -> None:
    """A logger's `addHandler` that adds none."""


def join(log: Sink) -> None:
    """Every library's log records go to `log`, once; so do warnings, and what is printed."""
    sys.stdout = _Stdout(log)
    handler = _Handler(log)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], force=True)
    log.on_level(lambda level: logging.getLogger().setLevel(_LEVEL_NUMBERS[level]))
    for name in _OWN_HANDLERS:
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.addHandler = _refuse_handler  # type: ignore[method-assign]
        logger.propagate = True
