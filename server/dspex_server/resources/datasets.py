"""Datasets: named and versioned lists of examples, each checked when it is written."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import InvalidParamsError, NotFoundError
from sqlalchemy import insert, select

from dspex_server.db.models import Dataset, DatasetRow

from .names import check_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy.ext.asyncio import AsyncSession

__all__ = ["MAX_ROWS", "create_dataset", "examples_of", "find_dataset"]

# An optimizer is sent all of them in one frame.
MAX_ROWS = 100_000


async def create_dataset(
    session: AsyncSession, name: str, examples: Sequence[Mapping[str, Any]]
) -> Dataset:
    """The newest version of a name: a new one where the rows are others than before.

    An example is `{inputs: {..}, outputs: {..}}`, its values as JSON.
    """
    check_name(name, "name")
    if not 0 < len(examples) <= MAX_ROWS:
        raise InvalidParamsError(
            f"createDataset: a dataset has 1 to {MAX_ROWS} rows, got {len(examples)}",
            data={"param": "rows"},
        )
    digest = _digest(examples)
    newest = await session.scalar(
        select(Dataset)
        .where(Dataset.name == name)
        .order_by(Dataset.version.desc())
        .limit(1)
        .with_for_update()
    )
    if newest is not None and newest.digest == digest:
        return newest
    dataset = Dataset(
        name=name,
        version=1 if newest is None else newest.version + 1,
        size=len(examples),
        digest=digest,
    )
    session.add(dataset)
    await session.flush()
    await session.execute(
        insert(DatasetRow),
        [
            {
                "dataset_id": dataset.id,
                "position": position,
                "inputs": dict(example["inputs"]),
                "outputs": dict(example["outputs"]),
            }
            for position, example in enumerate(examples)
        ],
    )
    return dataset


async def find_dataset(session: AsyncSession, dataset_id: str) -> Dataset:
    """By its id, or the newest of a name. Raises NotFoundError."""
    found = await session.scalar(
        select(Dataset)
        .where((Dataset.id == dataset_id) | (Dataset.name == dataset_id))
        .order_by((Dataset.id == dataset_id).desc(), Dataset.version.desc())
        .limit(1)
    )
    if found is None:
        raise NotFoundError(
            f"there is no dataset {dataset_id!r}", data={"kind": "dataset", "name": dataset_id}
        )
    return found


async def examples_of(session: AsyncSession, dataset_id: str) -> list[dict[str, Any]]:
    rows = await session.execute(
        select(DatasetRow.inputs, DatasetRow.outputs)
        .where(DatasetRow.dataset_id == dataset_id)
        .order_by(DatasetRow.position)
    )
    return [{"inputs": inputs, "outputs": outputs} for inputs, outputs in rows.all()]


def _digest(examples: Sequence[Mapping[str, Any]]) -> str:
    """SHA-256 of the rows in their order; the order of a map's keys is nothing."""
    found = hashlib.sha256()
    for example in examples:
        found.update(json.dumps(example, sort_keys=True).encode() + b"\n")
    return found.hexdigest()
