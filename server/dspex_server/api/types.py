"""The resources as GraphQL types. Each is made of its row; what costs a query is a resolver."""

from datetime import datetime
from typing import Any, Self

import strawberry
from sqlalchemy import select
from strawberry.scalars import JSON

from dspex_server.app import App
from dspex_server.db import models

from .scalars import ExecutionState, Long, ProgramState, SignatureState

__all__ = [
    "Execution",
    "ExecutionError",
    "Info",
    "Program",
    "Revision",
    "Signature",
    "Transition",
    "app_of",
    "program_of",
    "transitions_of",
]

Info = strawberry.Info[dict[str, Any], None]

# Rows of one resource: a history, revisions. More than these are not asked for at once.
_MAX_ROWS = 1_000


def app_of(info: Info) -> App:
    app: App = info.context["app"]
    return app


@strawberry.type(description="One change of a resource's state.")
class Transition:
    source: str | None
    target: str
    reason: str | None
    at: datetime


async def transitions_of(info: Info, resource: str, resource_id: str) -> list[Transition]:
    table = models.Transition
    async with app_of(info).database.read() as session:
        rows = await session.scalars(
            select(table)
            .where(table.resource == resource, table.resource_id == resource_id)
            # Those that were written at once: its making comes first.
            .order_by(table.at, table.source.is_not(None), table.id)
            .limit(_MAX_ROWS)
        )
        return [
            Transition(source=r.source, target=r.target, reason=r.reason, at=r.at) for r in rows
        ]


@strawberry.type(description="One version of a named signature.")
class Signature:
    id: strawberry.ID
    name: str
    version: int
    text: str = strawberry.field(description="Names and types: `question: str -> answer: str`.")
    definition: JSON = strawberry.field(description="The whole signature as a map.")
    state: SignatureState
    created_at: datetime

    @classmethod
    def of(cls, row: models.Signature) -> Self:
        return cls(
            id=strawberry.ID(row.id),
            name=row.name,
            version=row.version,
            text=row.text,
            definition=JSON(row.definition),
            state=SignatureState(row.state),
            created_at=row.created_at,
        )

    @strawberry.field
    async def transitions(self, info: Info) -> list[Transition]:
        return await transitions_of(info, "signature", self.id)


@strawberry.type(description="One state of a program. It never changes.")
class Revision:
    number: int
    parent: int | None = strawberry.field(description="The revision that it was made of.")
    origin: str = strawberry.field(description="`created` or `optimized`.")
    job_id: strawberry.ID | None
    score: float | None
    state: JSON = strawberry.field(description="All that makes the program again, as JSON.")
    created_at: datetime

    @classmethod
    def of(cls, row: models.Revision) -> Self:
        return cls(
            number=row.number,
            parent=row.parent,
            origin=row.origin,
            job_id=None if row.job_id is None else strawberry.ID(row.job_id),
            score=row.score,
            state=JSON(row.state),
            created_at=row.created_at,
        )


@strawberry.type
class Program:
    id: strawberry.ID
    name: str
    module: str
    lm: str | None
    adapter: str | None
    config: JSON
    state: ProgramState
    revision: int = strawberry.field(description="The newest revision, or that rolled back to.")
    deployed_revision: int | None
    executions: int = strawberry.field(description="Those that have ended.")
    failures: int
    total_tokens: Long
    cost_usd: float = strawberry.field(description="The sum of the costs that are known.")
    created_at: datetime
    signature_id: strawberry.Private[str | None]

    @classmethod
    def of(cls, row: models.Program) -> Self:
        return cls(
            id=strawberry.ID(row.id),
            name=row.name,
            module=row.module,
            lm=row.lm,
            adapter=row.adapter,
            config=JSON(row.config),
            state=ProgramState(row.state),
            revision=row.revision,
            deployed_revision=row.deployed_revision,
            executions=row.executions,
            failures=row.failures,
            total_tokens=Long(row.total_tokens),
            cost_usd=row.cost_usd,
            created_at=row.created_at,
            signature_id=row.signature_id,
        )

    @strawberry.field(description="The signature that it was made of, where it is a named one.")
    async def signature(self, info: Info) -> Signature | None:
        if self.signature_id is None:
            return None
        async with app_of(info).database.read() as session:
            row = await session.get(models.Signature, self.signature_id)
        return None if row is None else Signature.of(row)

    @strawberry.field(description="From the first to the last.")
    async def revisions(self, info: Info) -> list[Revision]:
        async with app_of(info).database.read() as session:
            rows = await session.scalars(
                select(models.Revision)
                .where(models.Revision.program_id == self.id)
                .order_by(models.Revision.number)
                .limit(_MAX_ROWS)
            )
            return [Revision.of(row) for row in rows]

    @strawberry.field
    async def transitions(self, info: Info) -> list[Transition]:
        return await transitions_of(info, "program", self.id)


@strawberry.type(description="Why an execution or a job failed.")
class ExecutionError:
    code: str
    message: str
    retryable: bool
    data: JSON

    @classmethod
    def of(cls, error: dict[str, Any] | None) -> "ExecutionError | None":
        return None if error is None else cls(**{**error, "data": JSON(error["data"])})


async def program_of(info: Info, program_id: str) -> Program | None:
    async with app_of(info).database.read() as session:
        row = await session.get(models.Program, program_id)
    return None if row is None else Program.of(row)


@strawberry.type
class Execution:
    id: strawberry.ID
    program_id: strawberry.ID
    revision: int
    state: ExecutionState
    inputs: JSON
    outputs: JSON | None
    error: ExecutionError | None
    lm: str | None
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cost_usd: float | None = strawberry.field(description="Null where the price is not known.")
    duration_ms: float | None
    cached: bool | None
    trace_id: str | None
    batch_id: strawberry.ID | None
    batch_index: int | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: models.Execution) -> Self:
        return cls(
            id=strawberry.ID(row.id),
            program_id=strawberry.ID(row.program_id),
            revision=row.revision,
            state=ExecutionState(row.state),
            inputs=JSON(row.inputs),
            outputs=None if row.outputs is None else JSON(row.outputs),
            error=ExecutionError.of(row.error),
            lm=row.lm,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            total_tokens=row.total_tokens,
            cost_usd=row.cost_usd,
            duration_ms=row.duration_ms,
            cached=row.cached,
            trace_id=row.trace_id,
            batch_id=None if row.batch_id is None else strawberry.ID(row.batch_id),
            batch_index=row.batch_index,
            created_at=row.created_at,
            started_at=row.started_at,
            finished_at=row.finished_at,
        )

    @strawberry.field
    async def program(self, info: Info) -> Program | None:
        return await program_of(info, self.program_id)

    @strawberry.field
    async def transitions(self, info: Info) -> list[Transition]:
        return await transitions_of(info, "execution", self.id)
