"""Frames: an unsigned 32-bit big-endian length, then that many bytes (Erlang's `{packet, 4}`)."""

from __future__ import annotations

from struct import Struct

__all__ = [
    "DEFAULT_MAX_FRAME_BYTES",
    "HEAD_BYTES",
    "LARGEST_MAX_FRAME_BYTES",
    "SMALLEST_MAX_FRAME_BYTES",
    "FrameReader",
    "Oversized",
    "frame",
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


def frame(payload: bytes) -> bytes:
    return _LENGTH.pack(len(payload)) + payload


class FrameReader:
    """Cuts a byte stream into frames, however it is chunked, holding at most one partial frame.

    An oversized frame is reported as soon as its head is known and never buffered.
    """

    __slots__ = ("_partial", "_skip", "max_frame_bytes")

    def __init__(self, max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._partial = bytearray()
        self._skip = 0

    def feed(self, chunk: bytes) -> list[bytes | Oversized]:
        """The frames completed by `chunk`, in order."""
        data: bytes | memoryview = chunk
        if self._skip:
            skipped = min(self._skip, len(data))
            self._skip -= skipped
            data = data[skipped:]
        if self._partial:
            self._partial += data
            if not self._is_next_ready():
                return []
            # A large frame is copied once, out of here.
            data, self._partial = memoryview(self._partial), bytearray()
        frames: list[bytes | Oversized] = []
        position, end = 0, len(data)
        while (start := position + _LENGTH.size) <= end:
            (size,) = _LENGTH.unpack_from(data, position)
            stop = start + size
            if size > self.max_frame_bytes:
                if end - start < self._needed(size):
                    break
                frames.append(Oversized(size, bytes(data[start : start + self._needed(size)])))
                self._skip = max(0, stop - end)
                position = min(stop, end)
            elif stop <= end:
                frames.append(bytes(data[start:stop]))
                position = stop
            else:
                break
        if position < end:
            self._partial += data[position:]
        return frames

    def _needed(self, size: int) -> int:
        """How much of a frame of `size` bytes must be there before it is reported."""
        return size if size <= self.max_frame_bytes else min(size, HEAD_BYTES)

    def _is_next_ready(self) -> bool:
        """Whether the partial frame is whole now: asked at each feed, so it must cost nothing."""
        held = len(self._partial) - _LENGTH.size
        return held >= 0 and held >= self._needed(_LENGTH.unpack_from(self._partial)[0])

    @property
    def at_boundary(self) -> bool:
        """Whether the stream could end here without cutting a frame."""
        return not self._partial and not self._skip
