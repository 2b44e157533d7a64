"""What surrounds the work of a job; the jobs themselves are tested with servers."""

from __future__ import annotations

import pytest
from dspex_server import workflows
from dspex_server.errors import DatabaseUnavailableError, WrongStateError

from tests.server.background import on_a_loop

TIMES = 50


@on_a_loop
async def test_a_job_begins_again_for_as_long_as_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workflows, "_PAUSE_S", 0.0)
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun < TIMES:
            raise DatabaseUnavailableError("it is away")

    await workflows.outlasting(work)
    assert begun == TIMES


@on_a_loop
async def test_another_error_of_a_job_is_its_own() -> None:
    async def work() -> None:
        raise WrongStateError("no")

    with pytest.raises(WrongStateError):
        await workflows.outlasting(work)
