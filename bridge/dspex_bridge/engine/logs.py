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
        try:
            message = self.format(record)
        except Exception as error:  # noqa: BLE001 - a library's bad log call must not fail its caller
            message = f"(a log record that cannot be formatted: {error})"
        self._log.write(level, record.name, message)


# Loggers with handlers of their own, which would write around `log` and its redaction. DSPy has
# them by now; LiteLLM makes its own when it is imported, later.
_OWN_HANDLERS = ("dspy", "LiteLLM", "LiteLLM Router", "LiteLLM Proxy")

_LEVEL_NUMBERS = {name: number for number, name in _LEVELS} | {"debug": logging.DEBUG}


def _refuse_handler(hdlr: logging.Handler) -> None:
    """A logger's `addHandler` that adds none."""


def join(log: Log) -> None:
    """Every library's log records go to `log`, once; so do warnings."""
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
