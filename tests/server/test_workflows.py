"""What surrounds the work of a job; the jobs themselves are tested with servers."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any

import pytest
from dbos import error as dbos_error
from dspex_server import workflows
from dspex_server.errors import DatabaseUnavailableError, WrongStateError
from dspex_server.workflows import BATCH_QUEUE, Workflows

from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from pathlib import Path

TIMES = 50
WAIT_S = 30


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


class _Seen(logging.Filter):
    """What DBOS says, before anybody takes something out of it."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []
        self.has_both = threading.Event()

    def filter(self, record: logging.LogRecord) -> bool:
        self.errors += _error_of(record)
        if {dbos_error.DBOSAwaitedWorkflowCancelledError.__name__, "ZeroDivisionError"} <= {
            *self.errors
        }:
            self.has_both.set()
        return True


class _Told(logging.Handler):
    """What is left of it."""

    def __init__(self) -> None:
        super().__init__()
        self.errors: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.errors += _error_of(record)


def _error_of(record: logging.LogRecord) -> list[str]:
    return [type(record.exc_info[1]).__name__] if record.exc_info else []


class _Batches:
    """One of them fails; the others never end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    async def run(self, batch_id: str, _attempt: workflows.Attempt) -> None:
        if batch_id == "failing":
            raise ZeroDivisionError
        self.begun.set()
        await asyncio.Event().wait()


@on_a_loop
async def test_a_job_that_is_cancelled_is_no_error_in_the_log_and_one_that_fails_is(
    tmp_path: Path,
) -> None:
    seen, told = _Seen(), _Told()
    log = logging.getLogger("dbos")
    log.addFilter(seen)
    jobs = Workflows(f"sqlite:///{tmp_path}/jobs.sqlite", "me", {BATCH_QUEUE: 2})
    batches: Any = _Batches()
    nothing: Any = None
    await jobs.launch(nothing, batches)
    log.addHandler(told)
    try:
        for job in ("failing", "endless"):
            await jobs.enqueue(BATCH_QUEUE, job)
        await batches.begun.wait()
        await jobs.cancel("endless")
        assert await asyncio.to_thread(seen.has_both.wait, WAIT_S), seen.errors
    finally:
        # All that DBOS had to say is said by then.
        await jobs.close()
        log.removeFilter(seen)
    assert told.errors == ["ZeroDivisionError"]
