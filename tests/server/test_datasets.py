"""Datasets: other rows are another version."""

from __future__ import annotations

from dspex_server.resources.datasets import create_dataset, examples_of

from tests.server.background import on_a_loop
from tests.server.resources import opened


@on_a_loop
async def test_a_dataset_with_other_rows_is_a_new_version(url: str) -> None:
    rows = [{"inputs": {"question": str(i)}, "outputs": {"answer": i}} for i in range(3)]
    async with opened(url) as database:
        versions = []
        for examples in (rows, rows, rows[:2], rows):
            async with database.write() as session:
                dataset = await create_dataset(session, "three", examples)
                versions.append(dataset.version)
        assert versions == [1, 1, 2, 3]
        async with database.read() as session:
            assert await examples_of(session, dataset.id) == rows
