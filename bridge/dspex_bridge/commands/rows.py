"""Rows of files: JSON Lines, CSV and Parquet."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from .options import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["READERS", "Row"]

# A cell may be as long as a frame; the csv module's own limit is 128 KiB.
_MAX_CELL_CHARS = 16 * 1024 * 1024


@dataclass(frozen=True)
class Row:
    """`where` it stands, for errors; `is_text`: the file knows no types, all values are str."""

    where: str
    values: dict[str, Any]
    is_text: bool = False


def _jsonl(path: Path) -> list[Row]:
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise UsageError(f"{where}: it is no JSON: {error}") from error
            if not isinstance(values, dict):
                raise UsageError(f"{where}: expected a map, got {line.strip()[:40]}")
            rows.append(Row(where, values))
    return rows


def _csv(path: Path) -> list[Row]:
    rows = []
    csv.field_size_limit(_MAX_CELL_CHARS)
    # utf-8-sig: spreadsheets write a mark before the first column's name.
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise UsageError(f"{path}: two columns have the same name: {', '.join(header)}")
            for cells in filter(None, reader):
                where = f"{path}, line {reader.line_num}"
                if len(cells) != len(header):
                    raise UsageError(
                        f"{where}: it has {len(cells)} cells, and the header has {len(header)}"
                    )
                rows.append(Row(where, dict(zip(header, cells, strict=True)), is_text=True))
        except csv.Error as error:
            raise UsageError(f"{path}, line {reader.line_num}: {error}") from error
    return rows


def _parquet(path: Path) -> list[Row]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise UsageError(
            f"{path}: Parquet needs the package pyarrow: pip install 'dspex[data]'"
        ) from error
    try:
        with path.open("rb") as file:
            table = parquet.read_table(file).to_pylist()
    except ArrowException as error:
        raise UsageError(f"{path}: it is no Parquet that can be read: {error}") from error
    return [
        Row(f"{path}, row {number}", {key: _plain(value) for key, value in values.items()})
        for number, values in enumerate(table, start=1)
    ]


def _plain(value: Any) -> Any:
    """Dates and times without a form of their own on the wire, as the text that they are there."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    is_local = isinstance(value, datetime) and value.tzinfo is None
    if is_local or (isinstance(value, (date, time)) and not isinstance(value, datetime)):
        return value.isoformat()
    return value


def _checked(read: Callable[[Path], list[Row]]) -> Callable[[Path], list[Row]]:
    def checked(path: Path) -> list[Row]:
        try:
            return read(path)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{path}: cannot be read: {error}") from error

    return checked


#: The rows of a file, by the end of its name. They raise UsageError.
READERS: dict[str, Callable[[Path], list[Row]]] = {
    ".jsonl": _checked(_jsonl),
    ".csv": _checked(_csv),
    ".parquet": _checked(_parquet),
}
