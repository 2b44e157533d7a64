"""A worker's log: the bridge's, over the link."""

from __future__ import annotations

import os
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

from dspex_protocol.codec import sendable

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
    program's.

    A thread of its own sends what is written: a finalizer may log wherever Python collects garbage,
    with the link's own locks held, too. The queue is one that such code may put to."""

    def __init__(self, link: Link, *, is_chatty: bool) -> None:
        self._link = link
        self._is_chatty = is_chatty
        self._lines: SimpleQueue[dict[str, str] | threading.Event] = SimpleQueue()
        threading.Thread(target=self._send, name="dspex-log", daemon=True).start()

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
        self._lines.put({"level": level, "logger": logger, "message": sendable(message)})

    def flush(self) -> None:
        """Returns when everything written before is sent."""
        sent = threading.Event()
        self._lines.put(sent)
        sent.wait()

    def _send(self) -> None:
        try:
            while True:
                line = self._lines.get()
                if isinstance(line, threading.Event):
                    line.set()
                else:
                    self._link.notify("log", line)
        finally:
            # Else the job would wait for this thread, for ever.
            os._exit(1)


def hear_log(log: Log, told: Notification, request: int) -> None:
    """The bridge's side: one line of a worker that works for `request`."""
    level, logger, message = (told.params[key] for key in ("level", "logger", "message"))
    if logger == STDOUT and level == "info":
        log.printed(message, request)
    else:
        log.write(level, logger, message, request)
