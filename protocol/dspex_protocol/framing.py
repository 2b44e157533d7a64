"""Frames: an unsigned 32-bit big-endian length, then that many bytes (Erlang's `{packet, 4}`)."""

from __future__ import annotations

from io import BytesIO
from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "DEFAULT_MAX_FRAME_BYTES",
    "HEAD_BYTES",
    "LARGEST_MAX_FRAME_BYTES",
    "PREFIX_BYTES",
    "SMALLEST_MAX_FRAME_BYTES",
    "FrameReader",
    "Oversized",
    "frame",
    "prefix",
]

# A frame can grow to 92 times its size as Python objects (two bytes are a map of one pair, which
# takes 184), so the limit is no larger than large payloads need.
DEFAULT_MAX_FRAME_BYTES = 16 * 1024 * 1024

# Under any limit from here an error can be sent, so that every request can be answered.
SMALLEST_MAX_FRAME_BYTES = 4096

# What the length prefix can say.
LARGEST_MAX_FRAME_BYTES = 2**32 - 1

# How much of a frame that is skipped is looked at for the id of its request: an array header
# (at most 5 bytes), the kind (at most 9) and the id (at most 9), with room to spare.
HEAD_BYTES = 64

_LENGTH = Struct(">I")
PREFIX_BYTES = _LENGTH.size


class Oversized:
    """A frame over the limit. Its bytes are skipped as they come; only its `head` is kept."""

    __slots__ = ("head", "size")

    def __init__(self, size: int, head: bytes) -> None:
        self.size = size
        self.head = head

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Oversized) and (self.size, self.head) == (other.size, other.head)

    __hash__ = None  # type: ignore[assignment]  # compared in tests, never a key

    def __repr__(self) -> str:
        return f"Oversized(size={self.size}, head={self.head!r})"


#: What stands in front of a payload of so many bytes.
prefix: Callable[[int], bytes] = _LENGTH.pack


def frame(payload: bytes) -> bytes:
    return prefix(len(payload)) + payload


class FrameReader:
    """Cuts a byte stream into frames, however it is chunked, holding at most one partial frame.

    An oversized frame is reported as soon as its head is known and never buffered.
    """

    __slots__ = ("_body", "_missing", "_start", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        # The first bytes of a frame, as long as they do not say what is to be done with it.
        self._start = b""
        # How much is still to come of a frame that has begun, and what there is of it: None where
        # it is skipped.
        self._missing = 0
        self._body: BytesIO | None = None

    def feed(self, chunk: bytes) -> list[bytes | Oversized]:
        """The frames completed by `chunk`, in order."""
        frames: list[bytes | Oversized] = []
        data = self._start + chunk if self._start else chunk
        position, end = 0, len(data)
        if self._missing:
            position = self._continue(data, frames)
        while (start := position + PREFIX_BYTES) <= end:
            (size,) = _LENGTH.unpack_from(data, position)
            stop = start + size
            if size > self.max_frame_bytes:
                if end - start < min(size, HEAD_BYTES):
                    break
                frames.append(Oversized(size, data[start : min(stop, start + HEAD_BYTES)]))
            elif stop <= end:
                frames.append(data[start:stop])
                position = stop
                continue
            else:
                # It grows as its bytes come, whatever its length promises.
                self._body = BytesIO()
                self._body.write(data[start:])
            position = min(stop, end)
            self._missing = stop - position
        self._start = data[position:]
        return frames

    def _continue(self, data: bytes, frames: list[bytes | Oversized]) -> int:
        """Adds to the frame that has begun. Returns where in `data` the next one begins."""
        stop = min(self._missing, len(data))
        self._missing -= stop
        if self._body is not None:
            self._body.write(data if stop == len(data) else data[:stop])
            if not self._missing:
                # What was written, and no copy of it: a large frame is not copied at all.
                frames.append(self._body.getvalue())
                self._body = None
        return stop

    @property
    def at_boundary(self) -> bool:
        """Whether the stream could end here without cutting a frame."""
        return not self._start and not self._missing
