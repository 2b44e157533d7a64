"""Frames: cut from a stream however it comes, and never more held than was sent."""

from __future__ import annotations

import time
import tracemalloc

import pytest
from dspex_protocol.framing import (
    DEFAULT_MAX_FRAME_BYTES,
    HEAD_BYTES,
    FrameReader,
    Oversized,
    frame,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

# The same examples at every run, here and in CI: what explores with seeds of its own is a fuzzer.
FIXED = settings(derandomize=True, deadline=None, print_blob=True)

LIMIT = 100
SMALL = st.binary(max_size=20)
NEAR_THE_LIMIT = st.integers(LIMIT - 2, LIMIT + 2).map(lambda size: b"x" * size)
OVERSIZED = st.integers(LIMIT + 1, 3 * LIMIT).map(lambda size: (bytes(range(100)) * 3)[:size])
PAYLOADS = st.lists(SMALL | NEAR_THE_LIMIT | OVERSIZED, max_size=8)


def expected(payloads: list[bytes], limit: int) -> list[bytes | Oversized]:
    return [
        payload if len(payload) <= limit else Oversized(len(payload), payload[:HEAD_BYTES])
        for payload in payloads
    ]


def fed(reader: FrameReader, chunks: list[bytes]) -> list[bytes | Oversized]:
    return [item for chunk in chunks for item in reader.feed(chunk)]


@settings(FIXED, max_examples=200)
@given(PAYLOADS, st.data(), st.sampled_from([0, 1, 5, 63, 64, 65, LIMIT]))
@example([b"x" * 20], None, 10)
def test_a_stream_gives_the_same_frames_whole_byte_by_byte_and_in_any_chunks(
    payloads: list[bytes], data: st.DataObject | None, limit: int
) -> None:
    stream = b"".join(map(frame, payloads))
    chunkings = [[stream], [stream[at : at + 1] for at in range(len(stream))]]
    if data is not None:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
        chunkings.append(
            [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
        )
    for chunks in chunkings:
        reader = FrameReader(limit)
        assert fed(reader, chunks) == expected(payloads, limit)
        assert reader.at_boundary


@settings(FIXED, max_examples=100)
@given(PAYLOADS, st.binary(min_size=1, max_size=120), st.data())
def test_what_trails_a_frame_waits_for_its_rest(
    payloads: list[bytes], last: bytes, data: st.DataObject
) -> None:
    whole = frame(last)
    cut = data.draw(st.integers(1, len(whole) - 1))
    reader = FrameReader(LIMIT)
    got = reader.feed(b"".join(map(frame, payloads)) + whole[:cut])
    assert not reader.at_boundary
    got += reader.feed(whole[cut:])
    assert got == expected([*payloads, last], LIMIT)
    assert reader.at_boundary


def test_an_empty_frame_is_a_frame() -> None:
    assert FrameReader().feed(frame(b"")) == [b""]
    assert FrameReader(0).feed(frame(b"") + frame(b"a")) == [b"", Oversized(1, b"a")]


def test_a_frame_of_the_limit_passes_and_of_one_byte_more_does_not() -> None:
    reader = FrameReader(LIMIT)
    assert reader.feed(frame(b"x" * LIMIT)) == [b"x" * LIMIT]
    assert reader.feed(frame(b"x" * (LIMIT + 1))) == [Oversized(LIMIT + 1, b"x" * HEAD_BYTES)]


def test_an_oversized_frame_is_reported_with_its_head_before_its_rest_has_come() -> None:
    reader = FrameReader(LIMIT)
    stream = frame(bytes(range(200)))
    assert reader.feed(stream[: 4 + HEAD_BYTES - 1]) == []
    assert reader.feed(stream[4 + HEAD_BYTES - 1 : 4 + HEAD_BYTES]) == [
        Oversized(200, bytes(range(HEAD_BYTES)))
    ]
    assert not reader.at_boundary
    assert reader.feed(stream[4 + HEAD_BYTES :]) == []
    assert reader.at_boundary


@pytest.mark.parametrize("size", [11, 63, 64, 65])
def test_an_oversized_frame_shorter_than_a_head_is_reported_with_its_last_byte(size: int) -> None:
    reader = FrameReader(10)
    stream = frame(b"x" * size)
    needed = 4 + min(size, HEAD_BYTES)
    for byte in stream[: needed - 1]:
        assert reader.feed(bytes([byte])) == []
    assert reader.feed(stream[needed - 1 : needed]) == [Oversized(size, b"x" * min(size, 64))]


def test_the_default_limit_is_16_mib() -> None:
    assert FrameReader().max_frame_bytes == DEFAULT_MAX_FRAME_BYTES == 16 * 1024 * 1024


def test_a_frame_is_its_length_in_four_bytes_and_its_payload() -> None:
    assert frame(b"") == b"\0\0\0\0"
    assert frame(b"abc") == b"\0\0\0\3abc"
    assert frame(b"x" * 0x010203)[:4] == b"\0\1\2\3"


def test_an_oversized_frame_says_its_size_and_equals_its_like() -> None:
    oversized = Oversized(200, b"ab")
    assert repr(oversized) == "Oversized(size=200, head=b'ab')"
    assert oversized == Oversized(200, b"ab")
    assert oversized != Oversized(201, b"ab")
    assert oversized != Oversized(200, b"ac")
    assert oversized != 200


KIB = 1024
CHUNK = bytes(64 * KIB)


@pytest.mark.parametrize("length", [b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\1\0\0\0"])
def test_a_claimed_length_reserves_no_memory(length: bytes) -> None:
    tracemalloc.start()
    try:
        reader = FrameReader()
        for at in range(4):
            assert reader.feed(length[at : at + 1]) == []
        reader.feed(b"\x94\0\5")
        assert tracemalloc.get_traced_memory()[1] < 8 * KIB
    finally:
        tracemalloc.stop()


def test_a_frame_of_a_gigabyte_is_skipped_with_no_more_memory_than_a_chunk() -> None:
    size = 1024**3
    reader = FrameReader()
    tracemalloc.start()
    try:
        got = reader.feed(size.to_bytes(4, "big") + CHUNK)
        left = size - len(CHUNK)
        while left > 0:
            got += reader.feed(CHUNK[:left] if left < len(CHUNK) else CHUNK)
            left -= len(CHUNK)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(CHUNK)
    finally:
        tracemalloc.stop()
    assert got == [Oversized(size, bytes(HEAD_BYTES))]
    assert reader.at_boundary
    assert reader.feed(frame(b"next")) == [b"next"]


def test_a_large_frame_is_held_once_while_it_comes_and_when_it_is_there() -> None:
    size = 8 * 1024 * KIB
    reader = FrameReader()
    reader.feed(size.to_bytes(4, "big"))
    tracemalloc.start()
    try:
        got = fed(reader, [CHUNK] * (size // len(CHUNK)))
        # The buffer grows by an eighth.
        assert tracemalloc.get_traced_memory()[1] < 1.2 * size
    finally:
        tracemalloc.stop()
    assert got == [bytes(size)]


def test_a_large_frame_in_small_chunks_is_read_in_linear_time() -> None:
    """Twice the frame takes about twice the time: looking for its end costs nothing at a chunk."""

    def seconds(size: int) -> float:
        chunks = [b"x" * 256] * (size // 256)
        best = float("inf")
        for _ in range(3):
            reader = FrameReader()
            started = time.thread_time()
            reader.feed(size.to_bytes(4, "big"))
            got = fed(reader, chunks)
            best = min(best, time.thread_time() - started)
            assert [len(item) for item in got if isinstance(item, bytes)] == [size]
        return best

    # 16 times the frame; a reader that looked at all it holds would take 256 times as long.
    assert seconds(4096 * KIB) < 80 * max(seconds(256 * KIB), 0.0005)


@FIXED
@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_are_frames_or_the_beginning_of_one(chunks: list[bytes]) -> None:
    reader = FrameReader(LIMIT)
    for item in fed(reader, chunks):
        if isinstance(item, Oversized):
            assert item.size > LIMIT
            assert len(item.head) == HEAD_BYTES
        else:
            assert len(item) <= LIMIT
