"""Plays a session against a bridge."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dspex_protocol.codec import encode
from dspex_protocol.framing import frame

from .literals import from_json
from .patterns import MismatchError, match, shown
from .peer import Peer, PeerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from .sessions import Session

__all__ = ["play"]

# Every session that leaves the bridge alive ends like this: nothing else has come, and it ends.
_CANARY_ID = 2**62 + 1
_SHUTDOWN_ID = 2**62 + 2
_EPILOGUE: tuple[dict[str, Any], ...] = (
    {"send": [[0, _CANARY_ID, "ping", {"payload": "canary"}]]},
    {"expect": [1, _CANARY_ID, None, {"payload": "canary"}]},
    {"send": [[0, _SHUTDOWN_ID, "shutdown", {}]]},
    {"expect": [1, _SHUTDOWN_ID, None, {"completed": 0, "cancelled": 0}]},
    {"expect_exit": 0},
)

# May come at any time, and are nothing to a session that does not ask for them.
_UNASKED = ("ready", "log", "unhealthy")


def play(session: Session, command: Sequence[str], timeout_s: float) -> str | None:
    """None where the bridge did all that the session expects, else what went wrong first.

    Raises OSError where the command cannot be started.
    """
    with Peer([*command, *session.options], timeout_s) as peer:
        playing = _Playing(peer)
        epilogue = () if _ends_by_itself(session) else _EPILOGUE
        for number, step in enumerate((*session.steps, *epilogue), 1):
            place = f"step {number}" if number <= len(session.steps) else "at the end"
            try:
                playing.take(step)
            except EOFError:
                problem = "the bridge closed its stdout, or ended"
            except (MismatchError, PeerError) as error:
                problem = str(error)
            else:
                continue
            return "\n".join([f"{place}: {problem}", *playing.account(step)])
    return None


def _ends_by_itself(session: Session) -> bool:
    return any("expect_exit" in step for step in session.steps)


class _Playing:
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._saved: dict[str, Any] = {}
        self._last: Any = None

    def take(self, step: dict[str, Any]) -> None:
        """Raises MismatchError, PeerError or EOFError."""
        name = next(key for key in step if key in _STEPS)
        _STEPS[name](self, step)

    def account(self, step: dict[str, Any]) -> Iterable[str]:
        """What else helps to find the cause."""
        if "why" in step:
            yield f"because: {step['why']}"
        yield f"the step: {shown({key: item for key, item in step.items() if key != 'why'})}"
        if self._last is not None:
            yield f"the message: {shown(self._last)}"
        words = self._peer.last_words()
        if words:
            yield f"the end of its stderr:\n{words}"

    def send(self, step: dict[str, Any]) -> None:
        self._peer.send(b"".join(frame(encode(self._value(item))) for item in step["send"]))

    def send_sized(self, step: dict[str, Any]) -> None:
        size = self._saved[step["bytes"]] if isinstance(step["bytes"], str) else step["bytes"]
        self._peer.send(frame(_sized(step["send_sized"], size + step.get("plus", 0))))

    def send_frame(self, step: dict[str, Any]) -> None:
        self._peer.send(frame(_bytes(step["send_frame"])))

    def send_bytes(self, step: dict[str, Any]) -> None:
        data = _bytes(step["send_bytes"])
        size = 1 if step.get("one_by_one") else max(1, len(data))
        for start in range(0, len(data), size):
            self._peer.send(data[start : start + size])

    def close_stdin(self, _step: dict[str, Any]) -> None:
        self._peer.close_stdin()

    def expect(self, step: dict[str, Any]) -> None:
        match(step["expect"], self._next(step["expect"]), self._saved)

    def expect_all(self, step: dict[str, Any]) -> None:
        patterns = list(step["expect_all"])
        while patterns:
            message = self._next(*patterns)
            fits = next((p for p in patterns if self._is_fit(p, message)), None)
            if fits is None:
                raise MismatchError("", f"one of {shown(patterns)}", shown(message))
            match(fits, message, self._saved)
            patterns.remove(fits)

    def expect_stream(self, step: dict[str, Any]) -> None:
        """The chunks of a streamed execute, and its response."""
        wanted = step["expect_stream"]
        chunks: list[dict[str, Any]] = []
        while (message := self._next())[:2] == [2, "chunk"]:
            match(_chunk(wanted["id"]), message, self._saved)
            chunks.append(message[2])
        match([1, wanted["id"], *wanted["response"]], message, self._saved)
        count = {"$any": "integer", "min": wanted["min_chunks"], "max": wanted["max_chunks"]}
        match(count, len(chunks), self._saved, "the number of chunks")
        if chunks and message[2] is None:
            _check_text(chunks, message[3]["outputs"])

    def expect_exit(self, step: dict[str, Any]) -> None:
        within_ms = step.get("within_ms")
        bound = None if within_ms is None else within_ms / 1000
        started = time.monotonic()
        try:
            message = self._next(timeout_s=bound)
        except EOFError:
            left = None if bound is None else max(0.0, started + bound - time.monotonic())
            status = self._peer.wait(left)
            match(step["expect_exit"], status, self._saved, "the exit status")
        else:
            raise MismatchError("", "nothing more", shown(message))

    def _next(self, *patterns: Any, timeout_s: float | None = None) -> Any:
        """The next message, without those that no pattern is about and that may always come."""
        asked = [pattern[1] for pattern in patterns if pattern[0] == 2]
        while True:
            self._last = None
            self._last = message = self._peer.receive(timeout_s)
            if type(message) is not list or not message:
                raise MismatchError("", "a message", shown(message))
            if message[0] != 2 or message[1] not in _UNASKED or message[1] in asked:
                return message

    def _is_fit(self, pattern: Any, message: Any) -> bool:
        try:
            match(pattern, message, dict(self._saved))
        except MismatchError:
            return False
        return True

    def _value(self, literal: Any) -> Any:
        """A literal in which `{"$saved": name}` stands for what was remembered."""
        if isinstance(literal, list):
            return [self._value(item) for item in literal]
        if isinstance(literal, dict) and "$saved" in literal:
            return self._saved[literal["$saved"]]
        if isinstance(literal, dict) and not any(key.startswith("$") for key in literal):
            return {key: self._value(item) for key, item in literal.items()}
        return from_json(literal)


def _chunk(request_id: int) -> list[Any]:
    field = {"field": {"$any": "string"}, "text": {"$any": "string"}, "done": {"$any": "boolean"}}
    return [2, "chunk", {"id": request_id, "attempt": {"$any": "integer", "min": 1}, **field}]


def _check_text(chunks: list[dict[str, Any]], outputs: dict[str, Any]) -> None:
    """The chunks of the last attempt joined are the final value of a str field."""
    attempts = [chunk["attempt"] for chunk in chunks]
    if attempts != sorted(attempts):
        raise MismatchError("the attempts of the chunks", "never falling", shown(attempts))
    last = [chunk for chunk in chunks if chunk["attempt"] == attempts[-1]]
    for field in {chunk["field"] for chunk in last}:
        own = [chunk for chunk in last if chunk["field"] == field]
        done = [chunk["done"] for chunk in own]
        if done != [False] * (len(own) - 1) + [True]:
            expected = "true in the last chunk alone"
            raise MismatchError(f"done in the chunks of {field!r}", expected, shown(done))
        text = "".join(chunk["text"] for chunk in own)
        if isinstance(outputs.get(field), str) and text != outputs[field]:
            place = f"the chunks of {field!r}, joined"
            raise MismatchError(place, shown(outputs[field]), shown(text))


def _sized(message: Any, size: int) -> bytes:
    """The payload of a message whose `{"$fill": true}` is text that makes it `size` bytes long."""
    filler = size
    for _ in range(4):  # the head of the text may take a byte more or less
        payload = encode(_filled(message, filler))
        if len(payload) == size:
            return payload
        filler += size - len(payload)
    raise ValueError(f"no text makes this message {size} bytes long")


def _filled(literal: Any, size: int) -> Any:
    if isinstance(literal, list):
        return [_filled(item, size) for item in literal]
    if isinstance(literal, dict):
        if "$fill" in literal:
            return "x" * size
        return {key: _filled(item, size) for key, item in literal.items()}
    return literal


def _bytes(text: str | list[Any]) -> bytes:
    """Hexadecimal digits, or a list of [digits, how often]."""
    if isinstance(text, str):
        return bytes.fromhex(text)
    return b"".join(bytes.fromhex(part) * count for part, count in text)


_STEPS: dict[str, Callable[[_Playing, dict[str, Any]], None]] = {
    "send": _Playing.send,
    "send_sized": _Playing.send_sized,
    "send_frame": _Playing.send_frame,
    "send_bytes": _Playing.send_bytes,
    "close_stdin": _Playing.close_stdin,
    "expect": _Playing.expect,
    "expect_all": _Playing.expect_all,
    "expect_stream": _Playing.expect_stream,
    "expect_exit": _Playing.expect_exit,
}
