"""Jobs: what is checked when one is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from dspex_protocol.errors import (
    InvalidParamsError,
)
from dspex_server.resources import jobs, programs
from dspex_server.resources.datasets import create_dataset

from tests.server.background import on_a_loop
from tests.server.resources import make_program, opened


@on_a_loop
async def test_a_job_is_checked_when_it_is_asked_for_and_its_key_gives_the_same_one(
    url: str,
) -> None:
    async with opened(url) as database:
        program_id = await make_program(database)

        async def ask(optimizer: dict[str, Any], key: str | None = None, **asked: Any) -> str:
            async with database.write() as session:
                program = await programs.find_program(session, program_id)
                dataset = await create_dataset(
                    session,
                    "examples",
                    [{"inputs": {"question": "a"}, "outputs": {"answer": "b"}}],
                )
                job, _ = await jobs.create_optimization(
                    session,
                    program,
                    1,
                    {"optimizer": optimizer, **asked},
                    dataset=dataset,
                    valset=None,
                    idempotency_key=key,
                )
                return job.id

        metric = {"name": "exact_match"}
        first = await ask({"name": "bootstrap_few_shot"}, "key", metric=metric)
        assert await ask({"name": "bootstrap_few_shot"}, "key", metric=metric) == first
        assert await ask({"name": "bootstrap_few_shot"}, metric=metric) != first
        cases: list[tuple[dict[str, Any], dict[str, Any], str]] = [
            ({"name": "coppro"}, {}, "Did you mean 'copro'"),
            ({"name": "copro"}, {}, "needs a metric"),
            ({"name": "copro"}, {"metric": {"callback": "f"}}, "this server has none"),
            ({"name": "copro", "params": {"bredth": 1}}, {"metric": metric}, "bredth"),
        ]
        for optimizer, asked, text in cases:
            with pytest.raises(InvalidParamsError, match=text):
                await ask(optimizer, **asked)
