"""The two codecs agree: terms go from Python to Elixir and back, and are what they were.

`scripts/fuzz` runs it as the phase `agreement`. Every kind of value of the protocol is generated,
nested and at its limits; each is decoded by the Elixir client's codec, encoded again, and compared
with the original. What Elixir refuses or changes is a difference.
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
from typing import Any

from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import FrameReader, frame
from dspex_protocol.tensor import DTYPES, Tensor

__all__ = ["DisagreementError", "agreement"]

CLIENT = Path(__file__).resolve().parent.parent / "elixir_client"
BATCH = 1000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EDGES = [0, 1, 31, 32, 127, 128, 255, 256, 65535, 65536, 2**31, 2**32, 2**53, 2**63, 2**64, 2**70]
_FLOATS = [0.0, -0.0, 1.5, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]
_TEXTS = ["", "a", "é", "🙂", "\x00", "x" * 31, "x" * 32, "x" * 255, "x" * 256]
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
    codes = (rng.choice((rng.randrange(32, 127), 0xE9, 0x1F642)) for _ in range(rng.randrange(20)))
    return "".join(map(chr, codes))


def _tensor(rng: random.Random) -> Tensor:
    name = rng.choice(list(DTYPES))
    shape = tuple(rng.randrange(4) for _ in range(rng.randrange(4)))
    size = math.prod(shape) * DTYPES[name][0]
    # Bytes of a bool are 0 or 1; those of the others are any.
    largest = 1 if name == "bool" else 255
    return Tensor(name, shape, bytes(rng.randint(0, largest) for _ in range(size)))


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
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(_same, a, b))
    if hasattr(a, "dtype"):
        return hasattr(b, "dtype") and (a.dtype, a.shape, a.tobytes()) == (
            b.dtype,
            b.shape,
            b.tobytes(),
        )
    return type(a) is type(b) and repr(a) == repr(b)


def agreement(seed: int, count: int) -> dict[str, int]:
    """Raises DisagreementError for a term that comes back different."""
    rng = random.Random(seed)
    env = {**os.environ, "LC_ALL": "C.UTF-8", "MIX_ENV": "test"}
    subprocess.run(["mix", "compile"], cwd=CLIENT, env=env, check=True, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(
        # The BEAM must not read its own stdin: that is the pipe.
        [
            "elixir",
            "--erl",
            "-noinput",
            "-pa",
            "_build/test/lib/dspex/ebin",
            "test/support/echo.exs",
        ],
        cwd=CLIENT,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    reader = FrameReader()
    try:
        for first in range(0, count, BATCH):
            sent = [encode(_term(rng, 3)) for _ in range(min(BATCH, count - first))]
            burst = b"".join(map(frame, sent))
            writer = threading.Thread(target=_write, args=(process.stdin, burst))
            writer.start()
            came: list[Any] = []
            while len(came) < len(sent):
                data = os.read(process.stdout.fileno(), 1 << 20)
                if not data:
                    raise DisagreementError(f"seed {seed}: Elixir ended")
                came += reader.feed(data)
            writer.join()
            for there, back in zip(sent, came, strict=True):
                if back == b"\xc1" or not _same(decode(there), decode(back)):
                    raise DisagreementError(f"seed {seed}: {there.hex()} became {back.hex()}")
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
    return {"terms": count, "differences": 0}


def _write(stdin: Any, data: bytes) -> None:
    stdin.write(data)
    stdin.flush()
