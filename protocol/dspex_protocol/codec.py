"""Values <-> MessagePack: section 5 of SPEC.md, in both directions, and nothing beyond it.

| Python                         | wire                                        |
|--------------------------------|---------------------------------------------|
| None, bool, int, float, str    | nil, bool, integer (64 bits), float, str    |
| bytes, bytearray, memoryview   | bin                                         |
| list, tuple, set; dict         | array; map with string keys                 |
| aware datetime                 | ext -1, cut to the microsecond, read as UTC |
| int beyond 64 bits             | ext 1                                       |
| numpy.ndarray, Tensor          | ext 2                                       |
| Decimal                        | ext 3                                       |
| date, time, naive datetime     | ISO 8601 text (written only)                |
"""

from __future__ import annotations

import sys

import msgpack

from .errors import ParseError
from .long_arrays import has_no_long_array
from .tensor import DTYPES, Tensor

__all__ = [
    "EXT_BIGINT",
    "EXT_DECIMAL",
    "EXT_TENSOR",
    "EXT_TIMESTAMP",
    "MAX_BIGINT_BYTES",
    "MAX_DECIMAL_CHARS",
    "MAX_DEPTH_WRITTEN",
    "EncodeError",
    "decode",
    "encode",
    "encode_around",
    "encode_text",
    "recover_id",
    "sendable",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

EXT_TIMESTAMP = -1
EXT_BIGINT = 1
EXT_TENSOR = 2
EXT_DECIMAL = 3

# Every reader accepts 512 levels (the envelope included) and msgpack refuses 1,025, so a writer
# stops where every reader still follows.
MAX_DEPTH_WRITTEN = 512

# Decimal("1E+999999999") is nine characters of text and a gigabyte once somebody asks for its
# digits; the text itself must not be a weapon either.
MAX_DECIMAL_CHARS = 4096

# Over 600,000 digits. The same in every reader, and half of the largest that the BEAM holds.
MAX_BIGINT_BYTES = 256 * 1024

_INT64_MIN, _UINT64_MAX = -(2**63), 2**64 - 1
_MAX_ID = 2**63 - 1
_SCALARS = frozenset({str, int, float, bool, type(None), bytes})
_CONTAINERS = (dict, list, tuple, set, frozenset)
_SHORT_TEXTS = [bytes([0xA0 | size]) for size in range(1 << 5)]
_NOT_FINITE = ("Infinity", "NaN", "sNaN")
_MAX_REASON_CHARS = 200

# What most messages fit in, and for others it grows: msgpack's 256 KiB take longer to be had.
_BUFFER_BYTES = 4096

# Where a copy costs more than to look at some of the values one by one.
_LARGE_BYTES = 64 * 1024


class EncodeError(ValueError):
    """A value that has no form on the wire."""


def encode(value: Any) -> bytes:
    """One MessagePack value. Raises EncodeError, which says what cannot be written."""
    return encode_around(value, value, 1)


def encode_around(value: Any, content: Any, depth: int) -> bytes:
    """The same of a value whose only part from elsewhere is `content`, which stands at `depth` in
    it: the rest of a message, say, was made here and needs no look."""
    try:
        if isinstance(content, _CONTAINERS):
            _check_container(content, depth)
        # Not `packb`, which takes twice as long for a small value: it hands its options on.
        packed: bytes = msgpack.Packer(default=_extended, buf_size=_BUFFER_BYTES).pack(value)
    except EncodeError:
        raise
    except UnicodeEncodeError as error:
        raise EncodeError(
            f"text with a lone surrogate (U+{ord(error.object[error.start]):04X}) is not valid "
            "Unicode and cannot be sent: repair it first"
        ) from None
    except Exception as error:  # a type's own code (a tzinfo, say) may raise anything
        raise EncodeError(f"a value cannot be written: {error}") from error
    return packed


def encode_text(text: str) -> bytes:
    """What `encode` makes of `sendable(text)`, in a fifth of the time."""
    data = text.encode("utf-8", "replace")
    size = len(data)
    if size < 1 << 5:
        return _SHORT_TEXTS[size] + data
    if size < 1 << 8:
        return b"\xd9" + size.to_bytes(1) + data
    if size < 1 << 16:
        return b"\xda" + size.to_bytes(2) + data
    return b"\xdb" + size.to_bytes(4) + data


def decode(data: bytes) -> Any:
    """The one value that `data` holds. Raises ParseError for anything else."""
    # msgpack lets byte strings pass as keys. Looking at every key costs as much as decoding, so
    # it is only done where the bytes could contain one at all.
    may_hold_bytes = 0xC4 in data or 0xC5 in data or 0xC6 in data
    try:
        if 0xDC in data or 0xDD in data:
            _check_claims(data)
        return msgpack.unpackb(
            data,
            timestamp=3,
            ext_hook=_extension,
            object_hook=_checked_map if may_hold_bytes else None,
        )
    except Exception as error:  # msgpack's errors share no other base
        raise ParseError(f"not one whole MessagePack value: {_reason(error)}") from error


def sendable(text: str) -> str:
    """The text with '?' for halves of surrogate pairs, which UTF-8 has not and `encode` refuses."""
    return text.encode("utf-8", "replace").decode()


def recover_id(head: bytes, kind: int = 0) -> int | None:
    """The id in a bad or oversized frame that begins as `[kind, id`, or None; kind 0 is a request.

    `head` is the frame's first bytes; HEAD_BYTES of them are enough.
    """
    if not head:
        return None
    tag = head[0]
    head_bytes = 1 if tag <= 0x9F else {0xDC: 3, 0xDD: 5}.get(tag, 0)
    if tag < 0x90 or not head_bytes:
        return None
    count = tag - 0x90 if tag <= 0x9F else int.from_bytes(head[1:head_bytes], "big")
    if count < 2:
        return None
    found_kind, position = _read_int(head, head_bytes)
    if found_kind != kind:
        return None
    request_id, _ = _read_int(head, position)
    return request_id if request_id is not None and 0 <= request_id <= _MAX_ID else None


# First byte -> (bytes that follow, signed), for the integers that are not in the byte itself.
_INTS = {0xCC: (1, False), 0xCD: (2, False), 0xCE: (4, False), 0xCF: (8, False)}
_INTS |= {0xD0: (1, True), 0xD1: (2, True), 0xD2: (4, True), 0xD3: (8, True)}


def _read_int(data: bytes, position: int) -> tuple[int | None, int]:
    if position >= len(data):
        return None, position
    tag = data[position]
    if tag <= 0x7F:
        return tag, position + 1
    size, signed = _INTS.get(tag, (0, False))
    start, end = position + 1, position + 1 + size
    if not size or end > len(data):
        return None, position
    return int.from_bytes(data[start:end], "big", signed=signed), end


def _check_claims(data: bytes) -> None:
    """Raises where an array claims more items than there are, without making it.

    msgpack reserves an array's slots before it has seen an item: a thousand such heads inside one
    another are 5 kB on the wire and 80 MB in memory (gigabytes before msgpack 1.2.4). Stepping over
    a value costs a quarter of making it at most, and a copy of it; only what may have a long array
    (a byte of its head is there) needs to be.
    """
    if len(data) > _LARGE_BYTES and has_no_long_array(data):
        return
    unpacker = msgpack.Unpacker(max_buffer_size=len(data))
    unpacker.feed(data)
    unpacker.skip()


def _check_container(container: Any, depth: int) -> None:
    """Refuses what msgpack would write and no reader takes: other keys than strings, depth."""
    # Not recursive: how deep a value may be is not for its caller's stack to say.
    waiting = [(container, depth)]
    while waiting:
        container, depth = waiting.pop()
        if depth > MAX_DEPTH_WRITTEN:
            raise EncodeError(f"nested deeper than {MAX_DEPTH_WRITTEN} levels")
        if isinstance(container, dict):
            for key in container:
                if not isinstance(key, str):
                    raise EncodeError(
                        f"the keys of a map are strings, got {type(key).__name__} {key!r:.80}"
                    )
            container = container.values()
        for item in container:  # most are no containers, and that is seen at once
            if type(item) not in _SCALARS and isinstance(item, _CONTAINERS):
                waiting.append((item, depth + 1))


def _extended(value: Any) -> Any:
    """Called by msgpack for what it has no form for. Modules are looked up, never imported: a
    value of a type whose module nobody has loaded cannot be here."""
    if isinstance(value, int):
        return msgpack.ExtType(EXT_BIGINT, _bigint_bytes(value))
    if isinstance(value, Tensor):
        return msgpack.ExtType(
            EXT_TENSOR, msgpack.packb([value.dtype, list(value.shape), value.data])
        )
    if isinstance(value, (set, frozenset)):
        return list(value)
    decimal = sys.modules.get("decimal")
    if decimal is not None and isinstance(value, decimal.Decimal):
        return msgpack.ExtType(EXT_DECIMAL, _decimal_bytes(value))
    datetime = sys.modules.get("datetime")
    if datetime is not None and isinstance(value, (datetime.date, datetime.time)):
        if isinstance(value, datetime.datetime) and value.utcoffset() is not None:
            return _timestamp(value, datetime.timezone.utc)
        return value.isoformat()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(value, numpy.ndarray):
            return _extended(Tensor.from_numpy(value))
        # Only plain numbers: item() makes an integer of nanoseconds out of a datetime64.
        if isinstance(value, numpy.generic) and value.dtype.kind in "biuf":
            number = value.item()
            if type(number) in _SCALARS:  # a longdouble stays one
                return number
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise EncodeError(f"a value of type {kind} has no form on the wire")


def _timestamp(value: Any, utc: Any) -> Any:
    try:
        return msgpack.Timestamp.from_datetime(value.astimezone(utc))
    except OverflowError:
        raise EncodeError(f"{value.isoformat()} is not in the years 1 to 9999 in UTC") from None


def _decimal_bytes(value: Any) -> bytes:
    text = str(value)
    if len(text) > MAX_DECIMAL_CHARS:
        raise EncodeError(f"a decimal of {len(text)} characters: at most {MAX_DECIMAL_CHARS}")
    return text.encode("ascii")


def _bigint_bytes(value: int) -> bytes:
    # One bit more than the magnitude, for the sign: -(2**71) still fits 9 bytes.
    bits = (value if value >= 0 else ~value).bit_length() + 1
    size = (bits + 7) // 8
    if size > MAX_BIGINT_BYTES:
        raise EncodeError(f"an integer of {size} bytes: at most {MAX_BIGINT_BYTES}")
    return value.to_bytes(size, "big", signed=True)


def _checked_map(value: dict[Any, Any]) -> dict[str, Any]:
    for key in value:
        if type(key) is not str:
            raise ValueError("the keys of a map are strings, got bytes")
    return value


def _extension(code: int, data: bytes) -> Any:
    if code == EXT_BIGINT:
        value = int.from_bytes(data, "big", signed=True)
        if _INT64_MIN <= value <= _UINT64_MAX:
            raise ValueError("an integer of 64 bits or less came as a big one")
        if _bigint_bytes(value) != data:  # which refuses what is over the limit, too
            raise ValueError("a big integer is not in its shortest form")
        return value
    if code == EXT_TENSOR:
        return _tensor(data)
    if code == EXT_DECIMAL:
        return _decimal(data)
    raise ValueError(f"unknown extension type {code}")


def _tensor(data: bytes) -> Any:
    if 0xDC in data or 0xDD in data:
        _check_claims(data)
    parts = msgpack.unpackb(data)
    if (
        type(parts) is not list
        or len(parts) != 3
        or type(parts[0]) is not str
        or parts[0] not in DTYPES
        or type(parts[1]) is not list
        or type(parts[2]) is not bytes
    ):
        raise ValueError("a tensor is [dtype, shape, bytes]")
    tensor = Tensor(parts[0], tuple(parts[1]), parts[2])
    try:
        return tensor.numpy()
    except ImportError:
        return tensor


def _decimal(data: bytes) -> Any:
    from decimal import Decimal, InvalidOperation

    if len(data) > MAX_DECIMAL_CHARS:
        raise ValueError(f"a decimal of {len(data)} characters: at most {MAX_DECIMAL_CHARS}")
    try:
        text = data.decode("ascii")
        value = Decimal(text)
        # Decimal() takes underscores, blanks around it and `inf`, which no other reader does.
        is_spelled_out = value.is_finite() or text.lstrip("+-").startswith(_NOT_FINITE)
        if not is_spelled_out or text != text.strip() or "_" in text:
            raise ValueError(text)
        return value
    except (ValueError, InvalidOperation):
        raise ValueError("a decimal that is no decimal number") from None


def _reason(error: Exception) -> str:
    if isinstance(error, msgpack.exceptions.ExtraData):
        return f"{len(error.extra)} bytes follow it"
    if isinstance(error, msgpack.exceptions.StackError):
        return "nested too deeply"
    if isinstance(error, msgpack.exceptions.FormatError):
        return "it has a byte that MessagePack reserves (0xC1)"
    if isinstance(error, UnicodeDecodeError):
        return "a string is not valid UTF-8"
    if isinstance(error, OverflowError):
        return "a timestamp is outside the years 1 to 9999"
    reason = str(error)
    is_cut_off = "incomplete input" in reason or " exceeds max_" in reason
    if is_cut_off or isinstance(error, msgpack.exceptions.OutOfData):
        return "it ends too early"
    if reason.endswith("strict_map_key=True"):
        return f"the keys of a map are strings, got {reason.split(maxsplit=1)[0]}"
    return reason[:_MAX_REASON_CHARS] or type(error).__name__
