"""The chunks of one streamed execute, sent as the client's credit allows."""

from __future__ import annotations

from _thread import allocate_lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["DEFAULT_MAX_CHARS", "DEFAULT_WINDOW", "MAX_WINDOW", "ChunkStream"]

DEFAULT_WINDOW = 32

# A client that wants more at once is one that does not want flow control.
MAX_WINDOW = 1_000_000

# Text that gathered while there was no credit goes in chunks of this size.
DEFAULT_MAX_CHARS = 64 * 1024


class ChunkStream:
    """At most `window` chunks are outstanding; `grant` gives credit for more.

    Without credit text gathers per field, and `finish` sends the rest whatever the credit; no chunk
    has more than `max_chars()` characters, which may change meanwhile. `prepare` takes what chunks
    have beside their id and their text, and gives what sends such chunks, each with the text that
    it is given: False from that means that nobody listens any more. `put` and `finish` belong to
    the event loop, `grant` to the reader.
    """

    def __init__(
        self,
        prepare: Callable[[dict[str, Any]], Callable[[str], bool]],
        window: int,
        max_chars: Callable[[], int] = lambda: DEFAULT_MAX_CHARS,
    ) -> None:
        self._prepare = prepare
        self._credit = window
        self._max_chars = max_chars
        # Field -> (pieces of text, done), in the order in which they began to wait.
        self._pending: dict[str, tuple[list[str], bool]] = {}
        # Field -> its attempt, from 1: those of one LM call begin theirs together.
        self._attempts: dict[str, int] = {}
        # (field, done) -> what sends the chunks of its attempt.
        self._senders: dict[tuple[str, bool], Callable[[str], bool]] = {}
        self._lock = allocate_lock()

    def begin_attempt(self, fields: Iterable[str]) -> None:
        """The LM starts over with these: what waits belongs to an answer that will not be."""
        with self._lock:
            for field in fields:
                self._attempts[field] = self._attempts.get(field, 0) + 1
                self._pending.pop(field, None)
                self._senders.pop((field, False), None)
                self._senders.pop((field, True), None)

    def put(self, field: str, text: str, *, done: bool = False) -> None:
        with self._lock:
            if not self._pending and self._credit > 0 and len(text) <= self._max_chars():
                self._send(field, text, done)
                return
            waiting, _ = self._pending.get(field) or ([], False)
            waiting.append(text)
            self._pending[field] = (waiting, done)
            self._send_pending(limited=True)

    def grant(self, chunks: int) -> None:
        with self._lock:
            self._credit += chunks
            self._send_pending(limited=True)

    def finish(self) -> None:
        """Sends everything that waits. Called before the response, after which nothing goes."""
        with self._lock:
            self._send_pending(limited=False)

    def _send_pending(self, *, limited: bool) -> None:
        while self._pending and (self._credit > 0 or not limited):
            field = next(iter(self._pending))
            waiting, done = self._pending[field]
            text = "".join(waiting)
            length = self._max_chars()
            rest = text[length:]
            if rest:
                text, self._pending[field] = text[:length], ([rest], done)
            else:
                del self._pending[field]
            if not self._send(field, text, done and not rest):
                self._pending.clear()

    def _send(self, field: str, text: str, done: bool) -> bool:
        self._credit -= 1
        send = self._senders.get((field, done))
        if send is None:
            attempt = self._attempts.get(field, 0)
            send = self._prepare({"field": field, "attempt": attempt, "done": done})
            self._senders[field, done] = send
        return send(text)
