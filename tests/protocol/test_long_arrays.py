"""Whether there is a long array is seen without making one, by the heads of the values alone."""

from __future__ import annotations

import tracemalloc

import pytest
from dspex_protocol.codec import decode, encode
from dspex_protocol.errors import ParseError
from dspex_protocol.long_arrays import has_no_long_array
from hypothesis import given, settings
from hypothesis import strategies as st

LONG_ARRAYS = [b"\xdc\0\0", b"\xdc\xff\xff", b"\xdd\0\0\0\0", b"\xdd\xff\xff\xff\xff"]

# By first byte: a value whose other bytes could all be heads of long arrays.
LONG = b"\xdd" * 70_000
WHOLE: dict[int, bytes] = {
    **{first: bytes([first]) for first in (*range(0xA0), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100))},
    **{0xA0 + size: bytes([0xA0 + size]) + LONG[:size] for size in range(32)},
    **{first: bytes([first, 200]) + LONG[:200] for first in (0xC4, 0xD9)},
    **{first: bytes([first, 2, 1]) + LONG[:513] for first in (0xC5, 0xDA)},
    **{first: bytes([first, 0, 1, 0, 1]) + LONG[:65537] for first in (0xC6, 0xDB)},
    0xC7: b"\xc7\x05\xdd" + LONG[:5],
    0xC8: b"\xc8\2\1\xdd" + LONG[:513],
    0xC9: b"\xc9\0\1\0\1\xdd" + LONG[:65537],
    **{
        first: bytes([first]) + LONG[:size]
        for first, size in zip(range(0xCA, 0xD4), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8), strict=True)
    },
    **{0xD4 + power: bytes([0xD4 + power, 0xDD]) + LONG[: 2**power] for power in range(5)},
    0xDE: b"\xde\xdd\xdd",
    0xDF: b"\xdf\xdd\xdd\xdd\xdd",
}


def test_every_first_byte_but_those_of_long_arrays_and_the_reserved_one_is_stepped_over() -> None:
    assert sorted({*range(256)} - WHOLE.keys()) == [0xC1, 0xDC, 0xDD]


@pytest.mark.parametrize("first", WHOLE, ids=hex)
def test_a_value_is_stepped_over_to_its_end_and_no_further(first: int) -> None:
    value = WHOLE[first]
    assert has_no_long_array(value)
    assert has_no_long_array(value * 3)
    for array in LONG_ARRAYS:
        assert not has_no_long_array(value + array)
        assert not has_no_long_array(value + value + array)
    assert not has_no_long_array(value + b"\xc1")


VALUES = st.recursive(
    st.none() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(), inner, max_size=20),
    max_leaves=40,
)


def longest(value: object) -> int:
    if isinstance(value, dict):
        return max(map(longest, value.values()), default=0)
    return max(len(value), *map(longest, value), 0) if isinstance(value, list) else 0


@settings(derandomize=True, deadline=None, print_blob=True, max_examples=300)
@given(VALUES)
def test_what_has_a_long_array_is_never_said_to_have_none(value: object) -> None:
    assert not (has_no_long_array(encode(value)) and longest(value) > 15)


def test_a_large_frame_of_a_few_values_is_decoded_without_a_copy_beside_its_value() -> None:
    payload = LONG * 60
    data = encode([0, 1, "ping", {"payload": payload}])
    tracemalloc.start()
    try:
        decoded = decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * len(payload)
    finally:
        tracemalloc.stop()
    assert decoded == [0, 1, "ping", {"payload": payload}]


def test_a_claim_behind_a_large_value_reserves_nothing() -> None:
    large = encode(LONG * 2)
    data = b"\x92" + large + b"\xdd\0\1\0\0" * 1000
    tracemalloc.start()
    try:
        with pytest.raises(ParseError, match="it ends too early"):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(data) + 256 * 1024
    finally:
        tracemalloc.stop()
