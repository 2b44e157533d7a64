"""What can be read."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum

import strawberry
from dspex_protocol.errors import NotFoundError
from sqlalchemy import ColumnElement

from dspex_server.db import models
from dspex_server.resources.datasets import find_dataset
from dspex_server.resources.programs import find_program

from .job_types import Batch, Dataset, OptimizationJob
from .pages import Connection, Page, page_of
from .scalars import Direction, ExecutionState, JobState, ProgramState, SignatureState
from .types import Execution, Info, Program, Signature, loaders_of, one_of

__all__ = ["Query"]


@strawberry.enum
class ProgramSort(Enum):
    CREATED_AT = "created_at"
    NAME = "name"
    EXECUTIONS = "executions"
    COST_USD = "cost_usd"


@strawberry.enum
class ExecutionSort(Enum):
    CREATED_AT = "created_at"
    TOTAL_TOKENS = "total_tokens"


@strawberry.input
class SignatureFilter:
    name: str | None = None
    state: list[SignatureState] | None = None


@strawberry.input
class ProgramFilter:
    name_contains: str | None = None
    module: str | None = None
    state: list[ProgramState] | None = None
    signature_id: strawberry.ID | None = None


@strawberry.input
class ExecutionFilter:
    program_id: strawberry.ID | None = None
    revision: int | None = None
    state: list[ExecutionState] | None = None
    batch_id: strawberry.ID | None = None
    trace_id: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


@strawberry.input
class JobFilter:
    program_id: strawberry.ID | None = None
    state: list[JobState] | None = None


@strawberry.type
class Query:
    @strawberry.field
    async def signature(self, info: Info, id: strawberry.ID) -> Signature | None:
        return await one_of(info, models.Signature, Signature.of, id)

    @strawberry.field(description="The newest first.")
    async def signatures(
        self,
        info: Info,
        filter: SignatureFilter | None = None,
        page: Page | None = None,
    ) -> Connection[Signature]:
        asked = filter or SignatureFilter()
        where = _equal(models.Signature.name, asked.name)
        where += _among(models.Signature.state, asked.state)
        return await page_of(
            loaders_of(info).reading,
            models.Signature,
            Signature.of,
            where=where,
            by=models.Signature.created_at,
            direction=Direction.DESC,
            page=page,
        )

    @strawberry.field(description="By its id or its name.")
    async def program(self, info: Info, id: strawberry.ID) -> Program | None:
        async with loaders_of(info).reading() as session:
            try:
                return Program.of(await find_program(session, id))
            except NotFoundError:
                return None

    @strawberry.field
    async def programs(
        self,
        info: Info,
        filter: ProgramFilter | None = None,
        sort: ProgramSort = ProgramSort.CREATED_AT,
        direction: Direction = Direction.DESC,
        page: Page | None = None,
    ) -> Connection[Program]:
        asked, table = filter or ProgramFilter(), models.Program
        where = _equal(table.module, asked.module)
        where += _among(table.state, asked.state)
        where += _equal(table.signature_id, asked.signature_id)
        if asked.name_contains is not None:
            where.append(table.name.contains(asked.name_contains, autoescape=True))
        return await page_of(
            loaders_of(info).reading,
            table,
            Program.of,
            where=where,
            by=getattr(table, sort.value),
            direction=direction,
            page=page,
        )

    @strawberry.field
    async def execution(self, info: Info, id: strawberry.ID) -> Execution | None:
        return await one_of(info, models.Execution, Execution.of, id)

    @strawberry.field
    async def executions(
        self,
        info: Info,
        filter: ExecutionFilter | None = None,
        sort: ExecutionSort = ExecutionSort.CREATED_AT,
        direction: Direction = Direction.DESC,
        page: Page | None = None,
    ) -> Connection[Execution]:
        asked, table = filter or ExecutionFilter(), models.Execution
        where = _equal(table.program_id, asked.program_id)
        where += _equal(table.revision, asked.revision)
        where += _among(table.state, asked.state)
        where += _equal(table.batch_id, asked.batch_id)
        where += _equal(table.trace_id, asked.trace_id)
        if asked.created_after is not None:
            where.append(table.created_at > _aware(asked.created_after))
        if asked.created_before is not None:
            where.append(table.created_at < _aware(asked.created_before))
        return await page_of(
            loaders_of(info).reading,
            table,
            Execution.of,
            where=where,
            by=getattr(table, sort.value),
            direction=direction,
            page=page,
        )

    @strawberry.field
    async def optimization_job(
        self,
        info: Info,
        id: strawberry.ID,
    ) -> OptimizationJob | None:
        return await one_of(info, models.OptimizationJob, OptimizationJob.of, id)

    @strawberry.field(description="The newest first.")
    async def optimization_jobs(
        self,
        info: Info,
        filter: JobFilter | None = None,
        page: Page | None = None,
    ) -> Connection[OptimizationJob]:
        asked, table = filter or JobFilter(), models.OptimizationJob
        where = _equal(table.program_id, asked.program_id) + _among(table.state, asked.state)
        return await page_of(
            loaders_of(info).reading,
            table,
            OptimizationJob.of,
            where=where,
            by=table.created_at,
            direction=Direction.DESC,
            page=page,
        )

    @strawberry.field
    async def batch(self, info: Info, id: strawberry.ID) -> Batch | None:
        return await one_of(info, models.Batch, Batch.of, id)

    @strawberry.field(description="By its id, or the newest version of a name.")
    async def dataset(self, info: Info, id: strawberry.ID) -> Dataset | None:
        async with loaders_of(info).reading() as session:
            try:
                return Dataset.of(await find_dataset(session, id))
            except NotFoundError:
                return None

    @strawberry.field(description="The newest first.")
    async def datasets(
        self, info: Info, name: str | None = None, page: Page | None = None
    ) -> Connection[Dataset]:
        return await page_of(
            loaders_of(info).reading,
            models.Dataset,
            Dataset.of,
            where=_equal(models.Dataset.name, name),
            by=models.Dataset.created_at,
            direction=Direction.DESC,
            page=page,
        )


def _equal(column: object, value: object | None) -> list[ColumnElement[bool]]:
    return [] if value is None else [column == value]  # type: ignore[list-item]


def _among(column: object, states: Sequence[Enum] | None) -> list[ColumnElement[bool]]:
    if not states:
        return []
    return [column.in_([state.value for state in states])]  # type: ignore[attr-defined]


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
