"""The two codecs agree: terms go from Python to Elixir and back, and are what they were.

`scripts/fuzz` runs it as the phases `agreement` and `refusals`. Every kind of value of the protocol
is generated, nested and at its limits; each is decoded by the Elixir client's codec, encoded again,
and compared with the original. What Elixir refuses or changes is a difference. In the second phase
the bytes are damaged first: then both refuse them, or both read the same.
"""

from __future__ import annotations

import math
import os
import random
import subprocess
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from dspex_protocol.codec import decode, encode
from dspex_protocol.errors import ParseError
from dspex_protocol.framing import FrameReader, frame
from dspex_protocol.tensor import DTYPES, Tensor

from integration.damage import damaged

__all__ = ["DisagreementError", "agreement", "refusals"]

CLIENT = Path(__file__).resolve().parent.parent / "elixir_client"
EBIN = "_build/test/lib/dspex/ebin"
BATCH = 1000

# What the other side answers where it refuses a frame: no MessagePack value begins so.
REFUSED = b"\xc1"

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EDGES = [0, 1, 31, 32, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32, 2**53, 2**63, 2**64, 2**70]
_FLOATS = [0.0, -0.0, 1.5, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]
_TEXTS = ["", "a", "é", "🙂", "\x00", "x" * 31, "x" * 32, "x" * 255, "x" * 256]
_ALPHABET = "".join(map(chr, range(32, 127))) + "é🙂" * 40
_DECIMALS = ["0", "-0", "1.50", "1E+400", "-0.001", "123456789012345678901234567890.5"]


class DisagreementError(Exception):
    """A term that did not come back as it went."""


def _integer(rng: random.Random) -> int:
    edge = rng.choice(_EDGES) + rng.randint(-2, 2)
    return -edge if rng.random() < 0.5 else edge


def _datetime(rng: random.Random) -> datetime:
    seconds = rng.choice((rng.randint(-62135596800, 253402300799), rng.randint(0, 2**34)))
    microseconds = rng.choice((0, 1, 999_999, rng.randrange(1_000_000)))
    return _EPOCH + timedelta(seconds=seconds, microseconds=microseconds)


def _text(rng: random.Random) -> str:
    if rng.random() < 0.0005:
        return "ÿ" * 40_000  # the longest head; rare, or nothing else would be generated
    if rng.random() < 0.5:
        return rng.choice(_TEXTS)
    return "".join(rng.choices(_ALPHABET, k=rng.randrange(20)))


def _tensor(rng: random.Random) -> Tensor:
    name = rng.choice(list(DTYPES))
    shape = tuple(rng.randrange(4) for _ in range(rng.randrange(4)))
    size = math.prod(shape) * DTYPES[name][0]
    # Bytes of a bool are 0 or 1; those of the others are any.
    data = rng.choices(b"\0\1", k=size) if name == "bool" else rng.randbytes(size)
    return Tensor(name, shape, bytes(data))


_SCALARS: tuple[Callable[[random.Random], Any], ...] = (
    lambda rng: rng.choice((None, True, False)),
    _integer,
    _integer,
    lambda rng: rng.choice((*_FLOATS, rng.gauss(0, 1e6))),
    _text,
    lambda rng: rng.randbytes(rng.choice((0, 1, 31, 255, 256, 300))),
    _datetime,
    lambda rng: Decimal(rng.choice(_DECIMALS)),
    _tensor,
)


def _term(rng: random.Random, depth: int) -> Any:
    if depth and rng.random() < 0.4:
        size = rng.choice((0, 1, 2, 3, 15, 16, 17)) if depth > 1 else rng.randrange(4)
        if rng.random() < 0.5:
            return [_term(rng, depth - 1) for _ in range(size)]
        return {_text(rng)[:40]: _term(rng, depth - 1) for _ in range(size)}
    return rng.choice(_SCALARS)(rng)


def _same(a: Any, b: Any) -> bool:
    pending = [(a, b)]
    while pending:  # not recursive: what is damaged may be as deep as Python's own stack
        a, b = pending.pop()
        if type(a) is not type(b):
            return False
        if isinstance(a, dict):
            if a.keys() != b.keys():
                return False
            pending.extend((a[key], b[key]) for key in a)
        elif isinstance(a, list):
            if len(a) != len(b):
                return False
            pending.extend(zip(a, b, strict=True))
        elif hasattr(a, "dtype"):
            if (a.dtype, a.shape, a.tobytes()) != (b.dtype, b.shape, b.tobytes()):
                return False
        elif isinstance(a, float | Decimal):
            if repr(a) != repr(b):  # NaN is NaN, -0.0 is not 0.0, 1.5 is not 1.50
                return False
        elif a != b:
            return False
    return True


class Elixir:
    """A process that decodes every frame, encodes what it found, and sends that back."""

    def __enter__(self) -> Self:
        env = {**os.environ, "LC_ALL": "C.UTF-8", "MIX_ENV": "test"}
        compile_it = ("mix", "compile")
        subprocess.run(compile_it, cwd=CLIENT, env=env, check=True, stdout=subprocess.DEVNULL)
        # The BEAM must not read its own stdin: that is the pipe.
        echo = ("elixir", "--erl", "-noinput", "-pa", EBIN, "test/support/echo.exs")
        self._process = subprocess.Popen(
            echo, cwd=CLIENT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._reader = FrameReader()
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def echo(self, payloads: list[bytes]) -> list[bytes]:
        """What came back for each; REFUSED for what Elixir refuses."""
        assert self._process.stdout is not None
        writer = threading.Thread(target=self._write, args=(b"".join(map(frame, payloads)),))
        writer.start()
        came: list[bytes] = []
        while len(came) < len(payloads):
            data = os.read(self._process.stdout.fileno(), 1 << 16)
            if not data:
                raise DisagreementError("Elixir ended")
            for item in self._reader.feed(data):
                assert isinstance(item, bytes), "an answer over the limit"
                came.append(item)
        writer.join()
        return came

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        self._process.stdin.flush()


def agreement(seed: int, count: int) -> dict[str, int]:
    """Sends good terms. Raises DisagreementError for one that comes back different."""
    rng = random.Random(seed)
    with Elixir() as elixir:
        for first in range(0, count, BATCH):
            sent = [encode(_term(rng, 3)) for _ in range(min(BATCH, count - first))]
            for there, back in zip(sent, elixir.echo(sent), strict=True):
                # The order of a map's pairs is nobody's; all else comes back to the byte.
                if back != there and (back == REFUSED or not _same(decode(there), decode(back))):
                    raise DisagreementError(f"seed {seed}: {there.hex()} became {back.hex()}")
    return {"terms": count, "differences": 0}


def refusals(seed: int, count: int) -> dict[str, int]:
    """Sends damaged terms. Raises DisagreementError for one that only one side refuses, or that the
    two read differently."""
    rng = random.Random(seed)
    refused = 0
    with Elixir() as elixir:
        for first in range(0, count, BATCH):
            sent = [damaged(rng, encode(_term(rng, 2))) for _ in range(min(BATCH, count - first))]
            for there, back in zip(sent, elixir.echo(sent), strict=True):
                try:
                    value = decode(there)
                except ParseError:
                    refused += 1
                    is_agreed = back == REFUSED
                else:
                    is_agreed = back != REFUSED and _same(value, decode(back))
                if not is_agreed:
                    raise DisagreementError(f"seed {seed}: {there.hex()} became {back.hex()}")
    return {"frames": count, "refused": refused, "differences": 0}
