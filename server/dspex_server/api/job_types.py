"""Jobs and datasets as GraphQL types."""

from datetime import datetime
from typing import Self

import strawberry
from strawberry.scalars import JSON

from dspex_server.db import models

from .scalars import JobState, Long
from .types import (
    ExecutionError,
    Info,
    Program,
    Transition,
    loaders_of,
    made_of,
    one_of,
    transitions_of,
)

__all__ = ["Batch", "Dataset", "Example", "OptimizationJob"]


_ATTEMPTS = (
    "How often it was begun: once, again after an error that may pass, and by each server that "
    "went on with it after its own had ended."
)


@strawberry.type(description="A search for a better revision of a program.")
class OptimizationJob:
    id: strawberry.ID
    program_id: strawberry.ID
    revision: int = strawberry.field(description="The revision that it begins with.")
    state: JobState
    optimizer: JSON
    metric: JSON | None
    dataset_id: strawberry.ID | None
    progress: JSON | None = strawberry.field(description="The last that was told while it ran.")
    score: float | None
    base_score: float | None
    result_revision: int | None
    total_tokens: Long
    cost_usd: float | None
    attempts: int = strawberry.field(description=_ATTEMPTS)
    error: ExecutionError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: models.OptimizationJob) -> Self:
        state, error = JobState(row.state), ExecutionError.of(row.error)
        return made_of(cls, row, state=state, error=error)

    @strawberry.field
    async def program(self, info: Info) -> Program | None:
        return await one_of(info, models.Program, Program.of, self.program_id)

    @strawberry.field
    async def transitions(self, info: Info) -> list[Transition]:
        return await transitions_of(info, "optimization job", self.id)


@strawberry.type(
    description="Many inputs of one program. Each is an execution, found by executions(filter: "
    "{batchId}); its batchIndex is the place of its input, from 0."
)
class Batch:
    id: strawberry.ID
    program_id: strawberry.ID
    revision: int
    state: JobState
    total: int
    completed: int
    failed: int
    attempts: int = strawberry.field(description=_ATTEMPTS)
    error: ExecutionError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: models.Batch) -> Self:
        state, error = JobState(row.state), ExecutionError.of(row.error)
        return made_of(cls, row, state=state, error=error)

    @strawberry.field
    async def transitions(self, info: Info) -> list[Transition]:
        return await transitions_of(info, "batch", self.id)


@strawberry.type
class Example:
    inputs: JSON
    outputs: JSON


@strawberry.type(description="One version of a named list of examples.")
class Dataset:
    id: strawberry.ID
    name: str
    version: int
    size: int
    digest: str = strawberry.field(description="SHA-256 of its rows.")
    created_at: datetime

    @classmethod
    def of(cls, row: models.Dataset) -> Self:
        return made_of(cls, row)

    @strawberry.field(description="Its rows in their order, a hundred at most.")
    async def rows(self, info: Info, first: int = 100, skip: int = 0) -> list[Example]:
        table = models.DatasetRow
        rows = await loaders_of(info).many(
            table.dataset_id,
            self.id,
            table.position >= skip,
            order=(table.position,),
            most=min(max(first, 0), 100),
            name=skip,
        )
        return [made_of(Example, row) for row in rows]
