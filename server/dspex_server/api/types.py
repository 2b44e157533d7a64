"""The resources as GraphQL types. Each is made of its row; what costs a query is a resolver."""

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any, Self, TypeVar

import strawberry
from strawberry.scalars import JSON

from dspex_server.app import App
from dspex_server.db import models

from .loaders import Loaders
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
    "loaders_of",
    "made_of",
    "one_of",
    "transitions_of",
]

Info = strawberry.Info[dict[str, Any], None]
T = TypeVar("T")


def app_of(info: Info) -> App:
    app: App = info.context["app"]
    return app


def loaders_of(info: Info) -> Loaders:
    loaders: Loaders = info.context["loaders"]
    return loaders


def made_of(kind: type[T], row: object, **others: Any) -> T:
    """A type's fields are the columns of the same names, but for `others`."""
    names = (field.name for field in fields(kind) if field.init)  # type: ignore[arg-type]
    return kind(**{name: getattr(row, name) for name in names if name not in others}, **others)


async def one_of(
    info: Info, model: type[Any], make: Callable[[Any], T], resource_id: str | None
) -> T | None:
    """The resource of that id, where there is one."""
    if resource_id is None:
        return None
    row = await loaders_of(info).one(model, resource_id)
    return None if row is None else make(row)


@strawberry.type(description="One change of a resource's state.")
class Transition:
    source: str | None
    target: str
    reason: str | None
    at: datetime


async def transitions_of(info: Info, resource: str, resource_id: str) -> list[Transition]:
    table = models.Transition
    rows = await loaders_of(info).many(
        table.resource_id,
        resource_id,
        table.resource == resource,
        # Those that were written at once: its making comes first.
        order=(table.at, table.source.is_not(None), table.id),
        name=resource,
    )
    return [made_of(Transition, row) for row in rows]


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
        return made_of(cls, row, state=SignatureState(row.state))

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
        return made_of(cls, row)


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
        return made_of(cls, row, state=ProgramState(row.state))

    @strawberry.field(description="The signature that it was made of, where it is a named one.")
    async def signature(self, info: Info) -> Signature | None:
        return await one_of(info, models.Signature, Signature.of, self.signature_id)

    @strawberry.field(description="From the first to the last.")
    async def revisions(self, info: Info) -> list[Revision]:
        table = models.Revision
        rows = await loaders_of(info).many(table.program_id, self.id, order=(table.number,))
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
        state, error = ExecutionState(row.state), ExecutionError.of(row.error)
        return made_of(cls, row, state=state, error=error)

    @strawberry.field
    async def program(self, info: Info) -> Program | None:
        return await one_of(info, models.Program, Program.of, self.program_id)

    @strawberry.field
    async def transitions(self, info: Info) -> list[Transition]:
        return await transitions_of(info, "execution", self.id)
