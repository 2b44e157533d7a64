"""Joins Python's logging and warnings to the bridge's log."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dspex_bridge.logs import Log

__all__ = ["join"]

_LEVELS = ((logging.ERROR, "error"), (logging.WARNING, "warning"), (logging.INFO, "info"))


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level = next((name for number, name in _LEVELS if record.levelno >= number), "debug")
        self._log.write(level, record.name, self.format(record))


def join(log: Log) -> None:
    """Every library's log records go to `log`, once; so do warnings."""
    handler = _Handler(log)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    # DSPy writes to stderr by a handler of its own and does not propagate.
    dspy_logger = logging.getLogger("dspy")
    dspy_logger.handlers = []
    dspy_logger.propagate = True
