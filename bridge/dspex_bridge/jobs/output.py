"""A worker's log: the bridge's, over the link."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_bridge.logs import STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_protocol.messages import Notification

    from dspex_bridge.logs import Log

    from .link import Link

__all__ = ["JobLog", "hear_log"]

# From here on: the bridge drops what nobody listens to.
_LEVEL = "info"


# The logger that says what this project has to say; the others are a chatty job's own talk.
_OURS = "dspex"


class JobLog:
    """What `engine.logs` writes to in a worker. Of a `chatty` kind of job, prints and what its
    libraries log are its own talk, of use to those who look for faults; of others they are the
    program's."""

    def __init__(self, link: Link, *, is_chatty: bool) -> None:
        self._link = link
        self._is_chatty = is_chatty

    def on_level(self, listener: Callable[[str], None]) -> None:
        listener(_LEVEL)

    def printed(self, line: str, request: int | None) -> None:  # noqa: ARG002 - the bridge knows
        if line.strip() and self._is_chatty:
            self.write("debug", STDOUT, line)
        elif not self._is_chatty:
            self.write("info", STDOUT, line)

    def write(
        self,
        level: str,
        logger: str,
        message: str,
        request: int | None = None,  # noqa: ARG002 - as above
    ) -> None:
        if self._is_chatty and logger != _OURS:
            level = "debug"
        text = message.encode("utf-8", "replace").decode()
        self._link.notify("log", {"level": level, "logger": logger, "message": text})


def hear_log(log: Log, told: Notification, request: int) -> None:
    """The bridge's side: one line of a worker that works for `request`."""
    level, logger, message = (told.params[key] for key in ("level", "logger", "message"))
    if logger == STDOUT and level == "info":
        log.printed(message, request)
    else:
        log.write(level, logger, message, request)
