"""Damage to bytes: bits flipped; bytes cut, repeated, inserted, replaced; lengths and counts blown
up; depth; noise. The same for the same random numbers."""

from __future__ import annotations

import random
from collections.abc import Callable

__all__ = ["damaged"]


def damaged(rng: random.Random, good: bytes) -> bytes:
    """`good` with one to four changes."""
    data = bytearray(good)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        rng.choice(_MUTATORS)(rng, data)
    return bytes(data)


def _flip(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _replace(rng: random.Random, data: bytearray) -> None:
    if data:
        data[rng.randrange(len(data))] = rng.randrange(256)


def _cut(rng: random.Random, data: bytearray) -> None:
    del data[rng.randint(0, len(data)) :]


def _drop(rng: random.Random, data: bytearray) -> None:
    at = rng.randint(0, len(data))
    del data[at : at + rng.randint(1, 8)]


def _insert(rng: random.Random, data: bytearray) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.randbytes(rng.randint(1, 8))


def _repeat(rng: random.Random, data: bytearray) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = data[at : at + rng.randint(1, 64)] * rng.randint(1, 4)


def _type_byte(rng: random.Random, data: bytearray) -> None:
    """A MessagePack tag where there may have been none, with a hostile length behind it."""
    at = rng.randint(0, len(data))
    data[at:at] = bytes([rng.randrange(0xC0, 0xE0)]) + b"\xff" * rng.randint(0, 5)


def _nest(rng: random.Random, data: bytearray) -> None:
    at = rng.randint(0, len(data))
    data[at:at] = rng.choice((b"\x91", b"\x81\xa0", b"\xdc\x00\x01")) * rng.choice((3, 600, 1100))


def _noise(rng: random.Random, data: bytearray) -> None:
    data[:] = rng.randbytes(rng.randint(0, 64))


_MUTATORS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *(_flip, _replace, _cut, _drop, _insert, _repeat, _type_byte, _nest, _noise),
)
