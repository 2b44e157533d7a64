"""Whether there is a long array in MessagePack: seen by the heads of the values, without any."""

from __future__ import annotations

__all__ = ["has_no_long_array"]

# A large frame is mostly a few large values among few others. So many are looked at, in some
# microseconds.
_LOOKED_AT = 64

# By a value's first byte: how many bytes it has, that one included. What is in a map or in an array
# counts by itself. 0 where its length is told (`_TOLD`), for long arrays, and for what is nothing.
_SIZES = [1] * 0xA0 + [1 + size for size in range(0x20)] + [0] * 0x20 + [1] * 0x20
_SIZES[0xC0] = _SIZES[0xC2] = _SIZES[0xC3] = 1  # nil, false, true
_SIZES[0xCA:0xD4] = 5, 9, 2, 3, 5, 9, 2, 3, 5, 9  # floats and integers
_SIZES[0xD4:0xD9] = 3, 4, 6, 10, 18  # extensions of a fixed size
_SIZES[0xDE:0xE0] = 3, 5  # maps

# First byte -> (bytes of the length behind it, bytes behind those that the length does not count).
_TOLD = {0xC4: (1, 0), 0xC5: (2, 0), 0xC6: (4, 0), 0xC7: (1, 1), 0xC8: (2, 1), 0xC9: (4, 1)}
_TOLD |= {0xD9: (1, 0), 0xDA: (2, 0), 0xDB: (4, 0)}


def has_no_long_array(data: bytes) -> bool:
    """Whether the values in `data` are few, and none of them is an array of more than 15 items.

    True of bytes that end too early as well: nothing is reserved for what is in front of the end.
    """
    position, end = 0, len(data)
    for _ in range(_LOOKED_AT):
        if position >= end:
            return True
        first = data[position]
        if first in _TOLD:
            width, uncounted = _TOLD[first]
            start = position + 1 + width
            position = start + uncounted + int.from_bytes(data[position + 1 : start], "big")
        elif _SIZES[first]:
            position += _SIZES[first]
        else:
            return False
    return False
