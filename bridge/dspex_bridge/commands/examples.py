"""Examples `{inputs, outputs}` of the rows of a file, or of a data set that came along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_protocol.types import Scalar

from dspex_bridge.datasets import NAMES, SPLITS, load

from .options import UsageError, json_or_text
from .rows import READERS, Row

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable, Mapping

    from dspex_protocol.signatures import Field, SignatureSpec

__all__ = ["SOURCES", "Examples", "read_examples"]

#: What a source may be, for --help.
SOURCES = f"a file ({', '.join(READERS)}) or {'|'.join(NAMES)}:{'|'.join(SPLITS)}"

Examples = list[dict[str, dict[str, Any]]]


def read_examples(source: str, signature: SignatureSpec, options: Namespace) -> Examples:
    """The examples of a source, for a program of that signature.

    A row of `inputs` and `outputs` is one already. Another row's columns are told apart by the
    options `inputs` and `outputs`, where they are missing by the names of the program's fields.
    Raises UsageError.
    """
    rows = _read(source)[: options.max_examples]
    if not rows:
        raise UsageError(f"{source}: there is no example in it")
    return [_example(row, signature, options) for row in rows]


def _read(source: str) -> list[Row]:
    path = Path(source)
    read = READERS.get(path.suffix.lower())
    if read is not None:
        return read(path)
    name, _, split = source.partition(":")
    try:
        examples = load(name, split)
    except ValueError as error:
        raise UsageError(f"{source!r}: expected {SOURCES}; {error}") from error
    return [Row(f"{source}, example {at}", dict(item)) for at, item in enumerate(examples, 1)]


def _example(row: Row, signature: SignatureSpec, options: Namespace) -> dict[str, dict[str, Any]]:
    given, labels = row.values, row.values
    is_example = row.values.keys() == {"inputs", "outputs"}
    if is_example:
        given, labels = row.values["inputs"], row.values["outputs"]
        if not isinstance(given, dict) or not isinstance(labels, dict):
            raise UsageError(f"{row.where}: inputs and outputs must be maps")
    sides = (
        ("inputs", given, signature.inputs, options.inputs),
        ("outputs", labels, signature.outputs, options.outputs),
    )
    example = {}
    for side, values, fields, columns in sides:
        if columns is None and is_example:
            example[side] = values
            continue
        chosen = _by_name(fields, values) if columns is None else columns
        missing = [column for column in chosen.values() if column not in values]
        if missing or not chosen:
            wanted = ", ".join(missing or (item.name for item in fields))
            raise UsageError(
                f"{row.where}: there is no column {wanted}, but: {', '.join(values)}. "
                f"--{side} FIELD=COLUMN says which columns are the {side}"
            )
        example[side] = {
            name: _value(values[column], name, fields) if row.is_text else values[column]
            for name, column in chosen.items()
        }
    return example


def _by_name(fields: Iterable[Field], values: Mapping[str, Any]) -> dict[str, str]:
    """The columns with the names of fields. The bridge says which inputs are missing."""
    return {item.name: item.name for item in fields if item.name in values}


def _value(cell: str, name: str, fields: Iterable[Field]) -> Any:
    """What a cell is by its field's type: JSON, where that is no str. An empty one is nothing."""
    if all(item.name != name or item.type == Scalar("str") for item in fields):
        return cell
    return json_or_text(cell) if cell else None
