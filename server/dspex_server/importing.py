"""Examples of a file that was sent: JSON Lines, CSV or Parquet, by its name's end."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from dspex_bridge.commands.options import UsageError
from dspex_bridge.commands.rows import READERS
from dspex_bridge.programs.json_forms import to_json
from dspex_protocol.errors import InvalidParamsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dspex_bridge.commands.rows import Row

__all__ = ["MAX_PARQUET_ROWS", "read_rows"]

# A row takes a kilobyte of memory and more while it is imported. JSON and CSV are as long as their
# file, which is a request's body.
MAX_PARQUET_ROWS = 100_000
_MAX_PARQUET_VALUES = 1_000_000


def read_rows(
    name: str, data: bytes, *, inputs: Sequence[str], outputs: Sequence[str]
) -> list[dict[str, Any]]:
    """The rows as `{inputs, outputs}`. `name` tells the format; `inputs` and `outputs` are the
    columns of each side, for a file whose rows are not examples already.

    Blocks. Raises InvalidParamsError, which names the line or the row.
    """
    ending = PurePath(name).suffix.lower()
    read = READERS.get(ending)
    if read is None:
        raise InvalidParamsError(
            f"the file's name must end in {', '.join(READERS)}, and is {name[:80]!r}",
            data={"param": "file"},
        )
    # Parquet is read from its end, and the readers tell errors by the file's name.
    with tempfile.TemporaryDirectory(prefix="dspex-import-") as folder:
        path = Path(folder) / f"file{ending}"
        path.write_bytes(data)
        if ending == ".parquet":
            _require_small(path, name)
        try:
            rows = read(path)
        except UsageError as error:
            text = str(error).replace(str(path), name[:80])
            raise InvalidParamsError(text, data={"param": "file"}) from error
    return [_example(row, str(path), name, inputs, outputs) for row in rows]


def _require_small(path: Path, name: str) -> None:
    """A few kilobytes of Parquet may be millions of rows: it tells how many before they are."""
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        return  # the reader tells what is missing
    try:
        with path.open("rb") as file:
            told = parquet.read_metadata(file)
    except (ArrowException, OSError):
        return  # the reader tells what is wrong with it
    values = sum(
        told.row_group(group).column(column).num_values
        for group in range(told.num_row_groups)
        for column in range(told.num_columns)
    )
    if told.num_rows > MAX_PARQUET_ROWS or values > _MAX_PARQUET_VALUES:
        raise InvalidParamsError(
            f"{name[:80]!r} has {told.num_rows} rows with {values} values: at most "
            f"{MAX_PARQUET_ROWS} rows and {_MAX_PARQUET_VALUES} values are imported",
            data={"param": "file"},
        )


def _example(
    row: Row, path: str, name: str, inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, Any]:
    where = row.where.replace(path, name[:80])
    values = row.values
    if not inputs and not outputs:
        sides = {side: values.get(side) for side in ("inputs", "outputs")}
        if any(not isinstance(side, Mapping) for side in sides.values()):
            raise InvalidParamsError(
                f"{where}: a row has the maps inputs and outputs, or the columns of each side are "
                f"named; it has {', '.join(values)[:200]}",
                data={"param": "inputs"},
            )
        return {side: to_json(value) for side, value in sides.items()}
    for column in (*inputs, *outputs):
        if column not in values:
            raise InvalidParamsError(
                f"{where}: there is no column {column!r}; it has {', '.join(values)[:200]}",
                data={"param": "inputs" if column in inputs else "outputs"},
            )
    return {
        "inputs": {column: to_json(values[column]) for column in inputs},
        "outputs": {column: to_json(values[column]) for column in outputs},
    }
