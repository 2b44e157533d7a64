"""protocol/SPEC.md as data: its tables, and its examples of messages."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["TEXT", "Example", "Table", "code", "codes", "examples", "headings", "table", "tables"]

TEXT = (Path(__file__).parents[2] / "protocol" / "SPEC.md").read_text(encoding="utf-8")

_HEADING = re.compile(r"(#+) (.*)")
_ROW = re.compile(r" {0,2}\|")
_CELL = re.compile(r"(?<!\\)\|")
_CODE = re.compile(r"`([^`]+)`")
_EXAMPLE = re.compile(r"^```json frame\n(.*?)\n```\n```hex\n(.*?)\n```$", re.M | re.S)
_FENCE = re.compile(r"^```(hex|json frame)$", re.M)


@dataclass(frozen=True)
class Table:
    """`section` is the headings above it, outermost first, without their backquotes."""

    section: tuple[str, ...]
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Example:
    """A message in the notation of the vectors, and its frame."""

    literal: Any
    frame: bytes


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
        Example(json.loads(literal), bytes.fromhex(re.sub(r"#.*", "", hexadecimal)))
        for literal, hexadecimal in _EXAMPLE.findall(TEXT)
    ]
    assert 2 * len(found) == len(_FENCE.findall(TEXT)), "an example without its other half"
    return found
