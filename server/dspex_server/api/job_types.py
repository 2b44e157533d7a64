"""Jobs and datasets as GraphQL types."""

from datetime import datetime
from typing import Self

import strawberry
from sqlalchemy import select
from strawberry.scalars import JSON

from dspex_server.db import models

from .scalars import JobState, Long
from .types import ExecutionError, Info, Program, Transition, app_of, program_of, transitions_of

__all__ = ["Batch", "Dataset", "Example", "OptimizationJob"]


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
    attempts: int
    error: ExecutionError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: models.OptimizationJob) -> Self:
        return cls(
            id=strawberry.ID(row.id),
            program_id=strawberry.ID(row.program_id),
            revision=row.revision,
            state=JobState(row.state),
            optimizer=JSON(row.optimizer),
            metric=None if row.metric is None else JSON(row.metric),
            dataset_id=None if row.dataset_id is None else strawberry.ID(row.dataset_id),
            progress=None if row.progress is None else JSON(row.progress),
            score=row.score,
            base_score=row.base_score,
            result_revision=row.result_revision,
            total_tokens=Long(row.total_tokens),
            cost_usd=row.cost_usd,
            attempts=row.attempts,
            error=ExecutionError.of(row.error),
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )

    @strawberry.field
    async def program(self, info: Info) -> Program | None:
        return await program_of(info, self.program_id)

    @strawberry.field
    async def transitions(self, info: Info) -> list[Transition]:
        return await transitions_of(info, "optimization job", self.id)


@strawberry.type(description="Many inputs of one program; each is an execution.")
class Batch:
    id: strawberry.ID
    program_id: strawberry.ID
    revision: int
    state: JobState
    total: int
    completed: int
    failed: int
    attempts: int
    error: ExecutionError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: models.Batch) -> Self:
        return cls(
            id=strawberry.ID(row.id),
            program_id=strawberry.ID(row.program_id),
            revision=row.revision,
            state=JobState(row.state),
            total=row.total,
            completed=row.completed,
            failed=row.failed,
            attempts=row.attempts,
            error=ExecutionError.of(row.error),
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )

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
        return cls(
            id=strawberry.ID(row.id),
            name=row.name,
            version=row.version,
            size=row.size,
            digest=row.digest,
            created_at=row.created_at,
        )

    @strawberry.field(description="Its rows in their order, a hundred at most.")
    async def rows(self, info: Info, first: int = 100, skip: int = 0) -> list[Example]:
        async with app_of(info).database.read() as session:
            rows = await session.scalars(
                select(models.DatasetRow)
                .where(
                    models.DatasetRow.dataset_id == self.id,
                    models.DatasetRow.position >= skip,
                )
                .order_by(models.DatasetRow.position)
                .limit(min(max(first, 0), 100))
            )
            return [Example(inputs=JSON(row.inputs), outputs=JSON(row.outputs)) for row in rows]
