"""The public MessagePack vectors, through our codec."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.codec import decode, encode
from dspex_protocol.errors import ParseError

from integration.public_vectors import load_suite, suite_path

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

REFUSED = object()

#: What the protocol reads otherwise than MessagePack alone would, and why.
OTHERWISE: dict[tuple[str, str], Any] = {
    # Ext 1 is an integer beyond 64 bits, and 16 is none.
    ("ext", "[1, '10']"): REFUSED,
    # Ext 2 is a tensor: an array of a dtype, a shape and bytes.
    ("ext", "[2, '20-21']"): REFUSED,
    # Ext 3 is a decimal, and the bytes happen to be the text of one.
    ("ext", "[3, '30-31-32-33']"): Decimal("0123"),
    # The other ext types are nobody's.
    ("ext", "[4, '40-41-42-43-44-45-46-47']"): REFUSED,
    ("ext", "[5, '50-51-52-53-54-55-56-57-58-59-5a-5b-5c-5d-5e-5f']"): REFUSED,
    ("ext", "[6, '']"): REFUSED,
    ("ext", "[7, '70-71-72']"): REFUSED,
    # Years are from 1 to 9999, and this is the year 0.
    ("timestamp", "[-62167219200, 0]"): REFUSED,
}


Vectors = list[tuple[str, Any, list[bytes]]]


@pytest.fixture(scope="module")
def vectors() -> Vectors:
    """(kind, content, forms) of every vector."""
    found = []
    for group in load_suite().values():
        for vector in group:
            # A large integer has a `number`, too, which not every JSON reader gets right.
            kind = next(key for key in ("bignum", *vector) if key in vector and key != "msgpack")
            found.append((kind, vector[kind], [to_bytes(form) for form in vector["msgpack"]]))
    return found


def to_bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("-", " "))


def value_of(kind: str, content: Any) -> Any:
    """The value that we read. Of a timestamp, what is finer than a microsecond is cut."""
    if (kind, str(content)) in OTHERWISE:
        return OTHERWISE[kind, str(content)]
    if kind == "binary":
        return to_bytes(content)
    if kind == "bignum":
        return int(content)
    if kind == "timestamp":
        seconds, nanoseconds = content
        return EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    return content


def read(form: bytes) -> Any:
    try:
        return decode(form)
    except ParseError:
        return REFUSED


def is_right(value: Any, wanted: Any, form: bytes) -> bool:
    """Some forms of a number are floats; otherwise the type is that of the vector, too."""
    is_float_form = form[0] in (0xCA, 0xCB) and type(value) is float
    return bool(value == wanted) and (type(value) is type(wanted) or is_float_form)


def test_the_suite_is_whole_and_the_table_names_nothing_else(vectors: Vectors) -> None:
    assert len(vectors) == 85
    assert sum(len(forms) for _, _, forms in vectors) == 233
    assert set(OTHERWISE) <= {(kind, str(content)) for kind, content, _ in vectors}


def test_a_cached_file_that_is_another_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = suite_path()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    other = tmp_path / "dspex" / good.name
    other.parent.mkdir()
    other.write_text("{}")
    with pytest.raises(
        ValueError, match=r"not the file of msgpack-test-suite@1\.0\.0: .* \(remove it"
    ):
        load_suite()


def test_every_form_of_every_value_is_read_as_it_should_be(vectors: Vectors) -> None:
    wrong = [
        (kind, content, form.hex(), read(form))
        for kind, content, forms in vectors
        for form in forms
        if not is_right(read(form), value_of(kind, content), form)
    ]
    assert wrong == []


def test_every_value_is_written_in_one_of_its_forms(vectors: Vectors) -> None:
    wrong = [
        (kind, content, encode(value_of(kind, content)).hex())
        for kind, content, forms in vectors
        if (kind, str(content)) not in OTHERWISE  # there is no such value here
        and not (kind == "timestamp" and content[1] % 1000)  # which is cut
        and encode(value_of(kind, content)) not in forms
    ]
    assert wrong == []
