"""protocol/SPEC.md as data: its tables, and its examples of messages.

`python -m tests.protocol.spec_page` writes the bytes of every example anew, from its JSON. An
example is made by writing the JSON, and behind it an empty block of the kind `hex`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack
from dspex_bridge.conformance.literals import from_json
from dspex_protocol.codec import encode
from dspex_protocol.framing import frame

__all__ = ["TEXT", "Example", "Table", "code", "codes", "examples", "headings", "render", "table"]
__all__ += ["tables"]

PAGE = Path(__file__).parents[2] / "protocol" / "SPEC.md"
TEXT = PAGE.read_text(encoding="utf-8")

_HEADING = re.compile(r"(#+) (.*)")
_ROW = re.compile(r" {0,2}\|")
_CELL = re.compile(r"(?<!\\)\|")
_CODE = re.compile(r"`([^`]+)`")
_EXAMPLE = re.compile(r"^```json frame\n(.*?)\n```\n```hex\n(.*?)```$", re.M | re.S)
_FENCE = re.compile(r"^```(hex|json frame)$", re.M)


@dataclass(frozen=True)
class Table:
    """`section` is the headings above it, outermost first, without their backquotes."""

    section: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Example:
    """A message in the notation of the vectors, its frame, and how the page shows that."""

    literal: Any
    frame: bytes
    shown: str


def tables() -> list[Table]:
    found = []
    section: list[str] = []
    rows: list[tuple[str, ...]] = []
    for line in [*TEXT.splitlines(), ""]:
        heading = _HEADING.fullmatch(line)
        if heading is not None:
            section = [*section[: len(heading[1]) - 1], heading[2].replace("`", "")]
        if _ROW.match(line):
            cells = _CELL.split(line.strip())[1:-1]
            rows.append(tuple(cell.strip().replace("\\|", "|") for cell in cells))
        elif rows:
            header, _rule, *content = rows
            found.append(Table(tuple(section), header, tuple(content)))
            rows = []
    return found


def table(*words: str) -> Table:
    """The one table that has the first word as its first header, under a heading that is the
    second one, where there is one."""
    first, *under = words
    fits = [
        found
        for found in tables()
        if found.header[0] == first and all(word in found.section for word in under)
    ]
    assert len(fits) == 1, f"{len(fits)} tables {words}"
    return fits[0]


def headings(section: str) -> list[str]:
    """The headings right below one, in order."""
    start = TEXT.index(f"\n## {section}\n")
    end = TEXT.find("\n## ", start + 1)
    return re.findall(r"^### `?([^`\n]*)`?$", TEXT[start:end], re.M)


def code(cell: str) -> str:
    """What stands in the one pair of backquotes of a cell."""
    (only,) = _CODE.findall(cell)
    return str(only)


def codes(cell: str) -> list[str]:
    return _CODE.findall(cell)


def examples() -> list[Example]:
    found = [
        Example(json.loads(literal), bytes.fromhex(re.sub(r"#.*", "", hexadecimal)), hexadecimal)
        for literal, hexadecimal in _EXAMPLE.findall(TEXT)
    ]
    assert 2 * len(found) == len(_FENCE.findall(TEXT)), "an example without its other half"
    return found


# Writing the bytes

# The most that stand on one line: of a long text, and of a key with its value.
_LINE_BYTES, _PAIR_BYTES = 16, 24

# How far in, the bytes (of a key, and of its value), what they are.
_Line = tuple[int, tuple[bytes, ...], str]


def render(literal: Any) -> str:
    """The frame of a message as the page shows it: its bytes in lines, and what each of them is."""
    data = frame(encode(from_json(literal)))
    lines = [(0, (data[:4],), f"the length: {len(data) - 4}"), *_lines(from_json(literal), 0)]
    assert b"".join(part for _, parts, _ in lines for part in parts) == data
    texts = ["  " * level + "  ".join(part.hex(" ") for part in parts) for level, parts, _ in lines]
    width = max(map(len, texts))
    return "".join(
        f"{text:{width}}  # {comment}".rstrip(" #") + "\n"
        for text, (_, _, comment) in zip(texts, lines, strict=True)
    )


def _lines(value: Any, level: int) -> list[_Line]:
    if isinstance(value, list) and value:
        head = msgpack.Packer().pack_array_header(len(value))
        items = [line for item in value for line in _lines(item, level + 1)]
        return [(level, (head,), f"an array of {len(value)}"), *items]
    if isinstance(value, dict) and value:
        head = msgpack.Packer().pack_map_header(len(value))
        pairs = [line for pair in value.items() for line in _pair(*pair, level)]
        return [(level, (head,), f"a map of {len(value)}"), *pairs]
    data = encode(value)
    rest = [data[at : at + _LINE_BYTES] for at in range(_LINE_BYTES, len(data), _LINE_BYTES)]
    return [(level, (data[:_LINE_BYTES],), _text(value)), *((level, (part,), "") for part in rest)]


def _pair(key: str, value: Any, level: int) -> list[_Line]:
    first, data = encode(key), encode(value)
    is_short = not (isinstance(value, list | dict) and value)
    if is_short and len(first) + len(data) <= _PAIR_BYTES:
        return [(level, (first, data), f"{_text(key)}: {_text(value)}")]
    return [(level, (first,), f"{_text(key)}:"), *_lines(value, level + 1)]


def _text(value: Any) -> str:
    if value in ([], {}):
        return "an empty array" if value == [] else "an empty map"
    return "nil" if value is None else json.dumps(value, ensure_ascii=False)


def main() -> None:
    def written(found: re.Match[str]) -> str:
        return f"```json frame\n{found[1]}\n```\n```hex\n{render(json.loads(found[1]))}```"

    PAGE.write_text(_EXAMPLE.sub(written, TEXT), encoding="utf-8")


if __name__ == "__main__":
    main()
