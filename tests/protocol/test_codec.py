"""Values, both ways: the conformance vectors, generated values, hostile bytes, memory and time."""

from __future__ import annotations

import json
import math
import struct
import subprocess
import sys
import time
import tracemalloc
from base64 import b64decode
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from datetime import time as clock_time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dspex_protocol.codec import (
    MAX_BIGINT_BYTES,
    MAX_DECIMAL_CHARS,
    MAX_DEPTH_WRITTEN,
    EncodeError,
    decode,
    encode,
    encode_text,
    recover_id,
    sendable,
)
from dspex_protocol.errors import ParseError
from dspex_protocol.framing import HEAD_BYTES
from dspex_protocol.tensor import DTYPES, MAX_DIMENSIONS, Tensor
from hypothesis import example, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol" / "vectors" / "values.json").read_text()
)

# The same examples at every run, here and in CI: what explores with seeds of its own is a fuzzer.
FIXED = settings(derandomize=True, deadline=None, print_blob=True)


def wire_bytes(entry: dict[str, Any]) -> bytes:
    if "hex" in entry:
        return bytes.fromhex(entry["hex"])
    return b"".join(bytes.fromhex(part) * times for part, times in entry["parts"])


def value_of(notation: Any) -> Any:
    """The value that the vectors' notation stands for (see protocol/vectors/README.md)."""
    if isinstance(notation, list):
        return [value_of(item) for item in notation]
    if not isinstance(notation, dict):
        return notation
    if len(notation) == 1:
        ((key, argument),) = notation.items()
        if key in _NOTATION:
            return _NOTATION[key](argument)
        assert not key.startswith("$"), f"unknown notation {key}"
    return {key: value_of(item) for key, item in notation.items()}


def _nested(argument: list[Any]) -> Any:
    times, value = argument[0], value_of(argument[1])
    for _ in range(times):
        value = [value]
    return value


def _nested_map(argument: list[Any]) -> Any:
    times, key, value = argument[0], argument[1], value_of(argument[2])
    for _ in range(times):
        value = {key: value}
    return value


_NOTATION: dict[str, Callable[[Any], Any]] = {
    "$int": int,
    "$power": lambda parts: parts[0] ** parts[1],
    "$float": float,
    "$bytes": b64decode,
    "$timestamp": datetime.fromisoformat,
    "$decimal": lambda text: Decimal(value_of(text)),
    "$tensor": lambda parts: Tensor(parts[0], tuple(value_of(parts[1])), b64decode(parts[2])),
    "$map": lambda pairs: {key: value_of(value) for key, value in pairs},
    "$text": lambda parts: parts[0] * parts[1],
    "$zeros": bytes,
    "$repeat": lambda parts: [value_of(parts[0])] * parts[1],
    "$nested": _nested,
    "$nested_map": _nested_map,
}


def same(left: Any, right: Any) -> bool:
    """Whether a value that was read is this one, to the bit and the type: 1, 1.0 and true differ.

    A tensor is read as an array.
    """
    pending = [(left, right)]
    while pending:  # not recursive: values are nested as deep as Python's own stack
        left, right = pending.pop()
        if isinstance(left, np.ndarray):
            left = Tensor.from_numpy(left)
            right = Tensor.from_numpy(right) if isinstance(right, np.ndarray) else right
        elif isinstance(right, Tensor):
            return False
        if type(left) is not type(right):
            return False
        if isinstance(left, list):
            if len(left) != len(right):
                return False
            pending.extend(zip(left, right, strict=True))
        elif isinstance(left, dict):
            if left.keys() != right.keys():
                return False
            pending.extend((left[key], right[key]) for key in left)
        elif isinstance(left, float):
            if math.isnan(left) != math.isnan(right):
                return False
            if not math.isnan(left) and struct.pack(">d", left) != struct.pack(">d", right):
                return False
        elif isinstance(left, Decimal):
            if left.as_tuple() != right.as_tuple():
                return False
        elif isinstance(left, datetime):
            if left != right or left.utcoffset() != right.utcoffset():
                return False
        elif left != right:
            return False
    return True


def refusal(data: bytes) -> str:
    with pytest.raises(ParseError) as raised:
        decode(data)
    assert type(raised.value) is ParseError
    return str(raised.value)


def named(section: str) -> pytest.MarkDecorator:
    entries = VECTORS[section]
    return pytest.mark.parametrize("entry", entries, ids=[entry["name"] for entry in entries])


# The vectors


@named("accepted")
def test_an_accepted_vector_is_read_as_its_value_and_written_as_its_bytes(
    entry: dict[str, Any],
) -> None:
    data, value = wire_bytes(entry), value_of(entry["value"])
    assert same(decode(data), value)
    if not entry.get("decode_only"):
        assert encode(value) == data


@named("accepted")
def test_an_accepted_vector_cut_at_any_byte_or_with_one_more_is_refused(
    entry: dict[str, Any],
) -> None:
    data = wire_bytes(entry)
    cuts = [*range(len(data))]
    if len(data) > 600:  # of what is long, both ends
        cuts = [*cuts[:300], *cuts[-300:]]
    for cut in cuts:
        refusal(data[:cut])
    assert "1 bytes follow it" in refusal(data + b"\xc0")


@named("refused")
def test_a_refused_vector_is_refused_alone_and_inside_other_values(entry: dict[str, Any]) -> None:
    assert entry["error"] == "parse_error"
    data = wire_bytes(entry)
    assert len(refusal(data)) < 300, "a refusal quotes what was sent"
    refusal(b"\x92\xc0" + data)
    refusal(b"\x81\xa1a" + data)


def test_the_names_of_the_vectors_are_distinct() -> None:
    names = [entry["name"] for section in ("accepted", "refused") for entry in VECTORS[section]]
    assert len(names) > 400
    assert len(names) == len(set(names))


# Generated values

KEYS = st.text(max_size=6)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**130), 2**130),
    st.sampled_from([2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1]),
    st.floats(),
    st.text(max_size=40),
    st.binary(max_size=40),
    st.datetimes(timezones=st.just(UTC)),
    st.decimals(),
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    dtype = draw(st.sampled_from(sorted(DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    size = math.prod(shape) * DTYPES[dtype][0]
    if dtype == "bool":
        return Tensor(
            dtype,
            shape,
            bytes(draw(st.lists(st.sampled_from([0, 1]), min_size=size, max_size=size))),
        )
    return Tensor(dtype, shape, draw(st.binary(min_size=size, max_size=size)))


VALUES = st.recursive(
    SCALARS | tensors(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


@settings(FIXED, max_examples=120)
@given(VALUES)
def test_a_value_is_read_as_it_was_written(value: Any) -> None:
    assert same(decode(encode(value)), value)


@settings(FIXED, max_examples=120)
@given(VALUES)
def test_what_was_read_is_written_with_the_same_bytes(value: Any) -> None:
    data = encode(value)
    assert encode(decode(data)) == data


@pytest.mark.parametrize("size", [0, 1, 31, 32, 255, 256, 65535, 65536])
@pytest.mark.parametrize("char", ["x", "\ud800"])
def test_a_text_of_any_length_is_written_as_every_value_is(char: str, size: int) -> None:
    assert encode_text(char * size) == encode(sendable(char * size))


@settings(FIXED, max_examples=500)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_parse_error(data: bytes) -> None:
    value = value_or_refusal(data)
    if not isinstance(value, ParseError):
        assert same(decode(encode(value)), value)


def value_or_refusal(data: bytes) -> Any:
    try:
        return decode(data)
    except ParseError as error:
        return error


@settings(FIXED, max_examples=120)
@given(VALUES, st.data())
def test_a_value_with_some_bytes_changed_is_a_value_or_a_parse_error(
    value: Any, data: st.DataObject
) -> None:
    damaged = bytearray(encode(value))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    got = value_or_refusal(bytes(damaged))
    if isinstance(got, ParseError):
        assert len(str(got)) < 300
    else:
        assert same(decode(encode(got)), got)


ANYTHING: st.SearchStrategy[Any] = st.recursive(
    SCALARS
    | st.sampled_from(
        [object(), 1j, int, ..., timedelta(1), range(3), {1: 2}, {b"a": 1}, "\ud800", {"\udfff": 1}]
    )
    | st.datetimes()
    | st.dates()
    | st.times(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3) | st.integers() | st.none(), inner, max_size=3)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=3)
    ),
    max_leaves=12,
)


@settings(FIXED, max_examples=120)
@given(ANYTHING)
def test_whatever_a_program_hands_over_is_written_or_an_encode_error(value: Any) -> None:
    try:
        data = encode(value)
    except EncodeError:
        return
    decode(data)


# Written, and read as something else


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ((1, 2), [1, 2]),
        ({7}, [7]),
        (frozenset({"a"}), ["a"]),
        (bytearray(b"ab"), b"ab"),
        pytest.param(memoryview(b"ab"), b"ab", id="memoryview"),
        (date(2024, 2, 29), "2024-02-29"),
        (clock_time(1, 2, 3, 4), "01:02:03.000004"),
        (datetime(2024, 1, 1, 12), "2024-01-01T12:00:00"),
        (
            datetime(2024, 1, 1, 12, tzinfo=timezone(timedelta(hours=2))),
            datetime(2024, 1, 1, 10, tzinfo=UTC),
        ),
        (np.float32(1.5), 1.5),
        (np.int16(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.bool_(True), True),
        (np.str_("a"), "a"),
    ],
    ids=repr,
)
def test_what_has_a_near_form_is_written_in_it(value: Any, read: Any) -> None:
    assert same(decode(encode(value)), read)


def test_an_aware_datetime_of_a_derived_class_is_a_timestamp() -> None:
    class Stamp(datetime):
        pass

    assert decode(encode(Stamp(2024, 1, 1, tzinfo=UTC))) == datetime(2024, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.arange(6, dtype="f8").reshape(2, 3).T,
        np.arange(10, dtype="u1")[::-2],
        np.array(3.5, dtype="f2"),
        np.zeros((2, 0, 3), dtype="f4"),
        np.array([True, False]),
    ],
    ids=["big-endian", "transposed", "reversed and strided", "a scalar", "empty", "bool"],
)
def test_an_array_is_sent_row_by_row_in_little_endian_whatever_it_is_in_memory(
    array: np.ndarray[Any, Any],
) -> None:
    got = decode(encode(array))
    assert got.shape == array.shape
    assert got.dtype == array.dtype.newbyteorder("<")
    assert (got == array).all()


def test_an_array_that_was_read_cannot_be_changed_by_accident() -> None:
    array = decode(encode(Tensor("u8", (2,), b"ab")))
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_without_numpy_a_tensor_is_read_as_a_tensor_and_refused_by_the_same_rules() -> None:
    script = """
import sys
sys.modules["numpy"] = None  # an import of it fails
from dspex_protocol.codec import decode, encode
from dspex_protocol.errors import ParseError
from dspex_protocol.tensor import Tensor
tensor = Tensor("f32", (2, 1), b"abcdefgh")
assert decode(encode(tensor)) == tensor
for bad in sys.argv[1:]:
    try:
        decode(bytes.fromhex(bad))
    except ParseError:
        continue
    raise SystemExit(bad + " was accepted")
print("ok")
"""
    bad = [wire_bytes(e).hex() for e in VECTORS["refused"] if e["name"].startswith("tensor")]
    bad.append(tensor_bytes("f32", [0, 2**62]).hex())
    bad.append(tensor_bytes("u8", [1] * (MAX_DIMENSIONS + 1), b"\0").hex())
    run = subprocess.run(
        [sys.executable, "-c", script, *bad],
        capture_output=True,
        check=False,
        text=True,
        timeout=30,
    )
    assert (run.stdout, run.stderr) == ("ok\n", "")


def tensor_bytes(dtype: str, shape: list[int], data: bytes = b"") -> bytes:
    parts = encode([dtype, shape, data])
    return b"\xc8" + len(parts).to_bytes(2, "big") + b"\x02" + parts


@pytest.mark.parametrize(
    ("shape", "data"),
    [
        ([0, 2**62], b""),
        ([2**63, 0], b""),
        ([2**40, 2**40, 0], b""),
        ([1] * (MAX_DIMENSIONS + 1), b"\0\0\0\0"),
    ],
)
def test_a_tensor_that_numpy_could_not_hold_is_refused(shape: list[int], data: bytes) -> None:
    assert "tensor" in refusal(tensor_bytes("f32", shape, data))


def test_a_tensor_of_the_most_dimensions_is_read() -> None:
    shape = [1] * MAX_DIMENSIONS
    assert decode(tensor_bytes("u8", shape, b"\7")).shape == tuple(shape)


@pytest.mark.parametrize(
    ("dtype", "shape", "data", "message"),
    [
        ("f8", (1,), b"", "unknown tensor dtype 'f8': expected one of f16, f32, f64"),
        ("u8", (-1,), b"", "the sizes in a tensor's shape are integers from 0, got -1"),
        ("u8", (True,), b"a", "the sizes in a tensor's shape are integers from 0, got bool"),
        ("f32", (2, 3), b"a", "a f32 tensor of shape [2, 3] has 24 bytes, got 1"),
        ("u8", (1,) * 65, b"a", "a tensor has at most 64 dimensions, got 65"),
        ("u8", (0, 2**63), b"", "the sizes in a tensor's shape multiply to 2^63 bytes or more"),
        ("bool", (2,), b"\1\2", "the bytes of a bool tensor are 0 or 1"),
    ],
)
def test_a_tensor_whose_parts_do_not_agree_says_what_does_not(
    dtype: str, shape: tuple[int, ...], data: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        Tensor(dtype, shape, data)
    assert str(raised.value).startswith(message)


def test_tensors_are_equal_by_what_they_hold() -> None:
    tensor = Tensor("u8", (2,), b"ab")
    assert tensor == Tensor("u8", (2,), b"ab")
    assert len({tensor, Tensor("u8", (2,), b"ab")}) == 1
    assert tensor != Tensor("i8", (2,), b"ab")
    assert tensor != Tensor("u8", (1, 2), b"ab")
    assert repr(tensor) == "Tensor(u8, [2], 2 bytes)"


# Refused when written


class RaisingZone(tzinfo):
    def utcoffset(self, _when: datetime | None) -> timedelta:
        raise RuntimeError("no offset")

    def dst(self, _when: datetime | None) -> None:
        return None

    def tzname(self, _when: datetime | None) -> None:
        return None


CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "a value of type builtins.object has no form on the wire"),
        ({1: 2}, "the keys of a map are strings, got int 1"),
        ({b"a": 1}, "the keys of a map are strings, got bytes b'a'"),
        ([{"a": [{None: 1}]}], "the keys of a map are strings, got NoneType None"),
        ("a\ud800", "text with a lone surrogate (U+D800) is not valid Unicode and cannot be sent"),
        ({"\udfff": 1}, "text with a lone surrogate (U+DFFF) is not valid Unicode"),
        (1j, "a value of type builtins.complex has no form on the wire"),
        (timedelta(1), "a value of type datetime.timedelta has no form on the wire"),
        (np.datetime64("2024-01-01T00:00:00", "ns"), "a value of type numpy.datetime64 has no"),
        (np.timedelta64(1, "ns"), "a value of type numpy.timedelta64 has no form"),
        (np.complex64(1), "a value of type numpy.complex64 has no form"),
        (np.longdouble(1), "a value of type numpy.longdouble has no form"),
        (np.array(["a"]), "a value cannot be written: a NumPy array of dtype <U1 has no wire form"),
        (np.array([object()]), "a value cannot be written: a NumPy array of dtype object has no"),
        (memoryview(b"abcd")[::2], "a value cannot be written: "),
        (datetime(2024, 1, 1, tzinfo=RaisingZone()), "a value cannot be written: no offset"),
        (
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            "0001-01-01T00:00:00+01:00 is not in the years 1 to 9999 in UTC",
        ),
        (CYCLE, "nested deeper than 512 levels"),
        (Decimal("1" * 4097), "a decimal of 4097 characters: at most 4096"),
        (1 << (8 * MAX_BIGINT_BYTES), "an integer of 262145 bytes: at most 262144"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_value_without_a_form_is_refused_with_a_message_that_says_which(
    value: Any, message: str
) -> None:
    with pytest.raises(EncodeError) as raised:
        encode(value)
    assert str(raised.value).startswith(message)
    assert len(str(raised.value)) < 300
    with pytest.raises(EncodeError):
        encode({"a": [value]})


def test_a_key_of_any_length_is_quoted_in_part() -> None:
    with pytest.raises(EncodeError) as raised:
        encode({("x" * 10_000,): 1})
    assert len(str(raised.value)) < 200


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "arrays": lambda value: [value],
    "tuples": lambda value: (value,),
    "maps": lambda value: {"": value},
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())
@pytest.mark.parametrize("innermost", [None, [], {}, (), {1}, frozenset()], ids=repr)
def test_the_deepest_value_that_is_written_is_read_and_a_deeper_one_is_not_written(
    wrap: Callable[[Any], Any], innermost: Any
) -> None:
    value = innermost
    for _ in range(MAX_DEPTH_WRITTEN - (innermost is not None)):
        value = wrap(value)
    decode(encode(value))
    with pytest.raises(EncodeError, match="nested deeper than 512 levels"):
        encode(wrap(value))


def test_how_deep_a_value_may_be_is_not_for_the_stack_of_who_writes_it_to_say() -> None:
    value: Any = None
    for _ in range(MAX_DEPTH_WRITTEN):
        value = [value]

    def far_below(frames: int) -> bytes:
        return far_below(frames - 1) if frames else encode(value)

    assert far_below(700) == encode(value)


def test_a_decimal_and_an_integer_at_their_limits_are_written_and_read() -> None:
    longest = Decimal("1" * MAX_DECIMAL_CHARS)
    largest = (1 << (8 * MAX_BIGINT_BYTES - 1)) - 1
    assert decode(encode(longest)) == longest
    assert decode(encode(largest)) == largest


def test_a_decimal_and_an_integer_beyond_their_limits_are_refused() -> None:
    decimal = b"\xc8" + (MAX_DECIMAL_CHARS + 1).to_bytes(2, "big") + b"\x03"
    assert "4097 characters: at most 4096" in refusal(decimal + b"1" * (MAX_DECIMAL_CHARS + 1))
    integer = b"\xc9" + (MAX_BIGINT_BYTES + 1).to_bytes(4, "big") + b"\x01\x7f"
    assert "262145 bytes: at most 262144" in refusal(integer + b"\0" * MAX_BIGINT_BYTES)


# What a refusal says


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "it ends too early"),
        ("c1", "it has a byte that MessagePack reserves (0xC1)"),
        ("c0c0", "1 bytes follow it"),
        ("9301", "it ends too early"),
        ("dcffff", "it ends too early"),
        ("91" * 1025 + "c0", "nested too deeply"),
        ("a1ff", "a string is not valid UTF-8"),
        ("810101", "the keys of a map are strings, got int"),
        ("81c4016101", "the keys of a map are strings, got bytes"),
        ("d40700", "unknown extension type 7"),
        ("c70cff00000000fffffff1886e08ff", "a timestamp is outside the years 1 to 9999"),
        ("d40100", "an integer of 64 bits or less came as a big one"),
        ("c70a0100010000000000000000", "a big integer is not in its shortest form"),
        ("d502c0c0", "1 bytes follow it"),
        ("d402c0", "a tensor is [dtype, shape, bytes]"),
        ("d40378", "a decimal that is no decimal number"),
    ],
)
def test_a_refusal_says_what_is_wrong(data: str, reason: str) -> None:
    assert refusal(bytes.fromhex(data)) == f"not one whole MessagePack value: {reason}"


# The id in a frame that is not a message


@pytest.mark.parametrize(
    ("head", "kind", "request_id"),
    [
        ("940005", 0, 5),
        ("920005", 0, 5),
        ("9f0005", 0, 5),
        ("dc00040005", 0, 5),
        ("ddffffffff0005", 0, 5),
        ("94cc0005", 0, 5),
        ("94d30000000000000000cf7fffffffffffffff", 0, 2**63 - 1),
        ("9400cf8000000000000000", 0, None),
        ("9400ff", 0, None),
        ("9400d3ffffffffffffffff", 0, None),
        ("9400c0", 0, None),
        ("9400cb4014000000000000", 0, None),
        ("9400a135", 0, None),
        ("9400", 0, None),
        ("9400cd01", 0, None),
        ("94", 0, None),
        ("", 0, None),
        ("94c20005", 0, None),
        ("900005", 0, None),
        ("910005", 0, None),
        ("dc00010005", 0, None),
        ("dc00", 0, None),
        ("dd0000000100 05", 0, None),
        ("840005", 0, None),
        ("a40005", 0, None),
        ("940105", 0, None),
        ("940105", 1, 5),
        ("940005", 1, None),
    ],
)
def test_an_id_is_recovered_where_the_first_bytes_are_an_array_with_a_kind_and_an_id(
    head: str, kind: int, request_id: int | None
) -> None:
    assert recover_id(bytes.fromhex(head), kind) == request_id


@FIXED
@given(st.binary(max_size=HEAD_BYTES))
@example(b"\xdd\xff\xff\xff\xff\xcf\0\0\0\0\0\0\0\0\xcf\x7f" + b"\xff" * 7)
def test_an_id_is_looked_for_in_any_bytes(head: bytes) -> None:
    request_id = recover_id(head)
    assert request_id is None or 0 <= request_id < 2**63


# Memory and time

MIB = 1024 * 1024


def array_of(items: bytes, count: int = 1, size: int = MIB // 16) -> bytes:
    """A frame of `size` bytes: an array of `items`, which are `count` values, again and again."""
    times = (size - 5) // len(items)
    return b"\xdd" + (times * count).to_bytes(4, "big") + items * times


KEYS_OF_THEIR_OWN = b"".join(b"\x81\xa2%c%c\xc0" % (n // 64 + 32, n % 64 + 32) for n in range(4096))

# What costs most for its bytes, of each kind. (Its size makes no difference: see the last one.)
WORST = {
    "empty maps": array_of(b"\x80"),
    "empty arrays": array_of(b"\x90"),
    "maps of one pair in one another": array_of(b"\x81\xa0" * 1000 + b"\xc0"),
    "arrays of one item in one another": array_of(b"\x91" * 1000 + b"\xc0"),
    "maps of an empty map": array_of(b"\x81\xa0\x80"),
    "maps of keys of their own": array_of(KEYS_OF_THEIR_OWN, 4096),
    "short strings": array_of(b"\xa2ab"),
    "strings of one wide character": array_of(b"\xa4\xf0\x9f\x98\x80"),
    "short bins": array_of(b"\xc4\x02ab"),
    "timestamps": array_of(b"\xd6\xff\0\0\0\1"),
    "decimals": array_of(b"\xd4\x03\x31"),
    "tensors": array_of(b"\xc7\x09\x02\x93\xa3f32\x91\0\xc4\0"),
    "integers beyond 64 bits": array_of(b"\xc7\x09\x01\x01" + b"\0" * 8),
    "1 MiB of the worst": array_of(b"\x81\xa0" * 1000 + b"\xc0", size=MIB),
}


# Decodes the frames on stdin, each after its size, and prints what each took at its most.
PEAKS = """
import sys, tracemalloc
from dspex_protocol.codec import decode
while size := sys.stdin.buffer.read(4):
    frame = sys.stdin.buffer.read(int.from_bytes(size, "big"))
    decode(frame)  # imports what is imported when it is first needed
    tracemalloc.start()
    decode(frame)
    print(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


@pytest.fixture(scope="module")
def peaks() -> dict[str, int]:
    """By name of `WORST`, in bytes. Taken in a process of its own: keys are interned, and the table
    of a process that has seen many grows by megabytes at a time."""
    frames = b"".join(len(frame).to_bytes(4, "big") + frame for frame in WORST.values())
    done = subprocess.run(
        [sys.executable, "-c", PEAKS], input=frames, capture_output=True, check=True
    )
    return dict(zip(WORST, map(int, done.stdout.split()), strict=True))


@pytest.mark.parametrize("name", WORST)
def test_a_frame_grows_to_less_than_100_times_its_size(name: str, peaks: dict[str, int]) -> None:
    assert peaks[name] < 100 * len(WORST[name])


CLAIMS = {
    "one of 2^32 - 1 items": b"\xdd\xff\xff\xff\xff",
    "one of 2^32 - 1 pairs": b"\xdf\xff\xff\xff\xff",
    "one of 2^32 - 1 bytes": b"\xc6\xff\xff\xff\xff",
    "one of as many items as there are bytes": b"\xdd\0\x0f\xff\xff" + b"\xc0" * (MIB - 64),
    "many in one another": b"\xdd\0\x0f\xff\xff" * 1000 + b"\xc0" * (MIB - 5100),
    "many in one another, in 64 KiB": b"\xdd\0\0\xff\xff" * 1000 + b"\xc0" * (65536 - 5000),
    "many in one another, in 4 KiB": b"\xdc\x0f\xff" * 1000 + b"\xc0" * 1000,
    "many in one another, inside a tensor": b"\xc8\x0f\xa4\x02"
    + b"\xdc\x0f\xa0" * 1000
    + b"\xc0" * 1004,
}


@pytest.mark.parametrize("data", CLAIMS.values(), ids=CLAIMS.keys())
def test_a_claimed_length_reserves_no_memory_and_is_refused_within_50_ms(data: bytes) -> None:
    started = time.thread_time()
    refusal(data)
    assert time.thread_time() - started < 0.05
    # Half of it is the copy that is stepped over; 128 KiB are the stack of the step.
    assert peak_bytes(lambda: refusal(data)) < 2 * len(data) + 256 * 1024


def test_a_shape_of_many_dimensions_is_refused_before_it_is_multiplied() -> None:
    sizes = (b"\xcf\x7f" + b"\xff" * 7) * 100_000
    parts = b"\x93\xa3f32\xdd" + (100_000).to_bytes(4, "big") + sizes + b"\xc4\0"
    data = b"\xc9" + len(parts).to_bytes(4, "big") + b"\x02" + parts
    started = time.thread_time()
    assert "at most 64 dimensions, got 100000" in refusal(data)
    assert time.thread_time() - started < 1


def peak_bytes(run: Callable[[], Any]) -> int:
    tracemalloc.start()
    try:
        run()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
