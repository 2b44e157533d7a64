"""What can be followed, over graphql-transport-ws."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any

import strawberry
from dspex_bridge.streams import DEFAULT_WINDOW
from dspex_protocol.errors import DSPexError, InvalidParamsError, NotFoundError

from dspex_server.db import models

from .errors import (
    InvalidInput,
    InvalidValues,
    NotFound,
    RequestFailed,
    WrongState,
    as_problem,
    problem_of,
)
from .job_types import OptimizationJob
from .mutations import ExecuteInput
from .types import Execution, Info, app_of

__all__ = ["Subscription"]

_FINAL = frozenset({"completed", "failed", "cancelled"})


@strawberry.type(description="A piece of a field's text. A new `attempt` begins the text anew.")
class Chunk:
    field: str
    attempt: int
    text: str
    done: bool


StreamEvent = Annotated[
    Chunk | Execution | InvalidValues | InvalidInput | NotFound | WrongState | RequestFailed,
    strawberry.union("StreamEvent"),
]


@strawberry.type
class Subscription:
    @strawberry.subscription(
        description="An execution, or those of a program or of a batch, at every change of state. "
        "One execution's are told from its present state to its end."
    )
    async def execution_updates(
        self,
        info: Info,
        execution_id: strawberry.ID | None = None,
        program_id: strawberry.ID | None = None,
        batch_id: strawberry.ID | None = None,
    ) -> AsyncGenerator[Execution, None]:
        topics = [topic for topic in (execution_id, program_id, batch_id) if topic is not None]
        if len(topics) != 1:
            raise InvalidParamsError(
                "executionUpdates: exactly one of executionId, programId and batchId is needed"
            )
        app = app_of(info)
        with app.events.listening(topics[0]) as news:
            if execution_id is not None:
                news.add(execution_id)
            async for changed in news:
                async with app.database.read() as session:
                    row = await session.get(models.Execution, changed)
                if row is None:
                    if execution_id is not None:
                        raise NotFoundError(f"there is no execution {execution_id}")
                    continue  # another resource of the same program
                yield Execution.of(row)
                if execution_id is not None and row.state in _FINAL:
                    return

    @strawberry.subscription(description="A job, from its present state to its end.")
    async def optimization_updates(
        self, info: Info, job_id: strawberry.ID
    ) -> AsyncGenerator[OptimizationJob, None]:
        app = app_of(info)
        with app.events.listening(job_id) as news:
            news.add(job_id)
            async for _ in news:
                async with app.database.read() as session:
                    row = await session.get(models.OptimizationJob, job_id)
                if row is None:
                    raise NotFoundError(f"there is no optimization job {job_id}")
                yield OptimizationJob.of(row)
                if row.state in _FINAL:
                    return

    @strawberry.subscription(
        description="Runs a program: the text of its outputs as it comes, then the execution. Who "
        "unsubscribes before that cancels it."
    )
    async def execution_stream(
        self,
        info: Info,
        input: ExecuteInput,
        fields: list[str] | None = None,
    ) -> AsyncGenerator[StreamEvent, None]:
        app = app_of(info)
        chunks: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        stream: dict[str, Any] = {"window": DEFAULT_WINDOW}
        if fields is not None:
            stream["fields"] = fields
        if not isinstance(input.inputs, dict):
            yield InvalidInput(
                code="invalid_params",
                message="inputs must be a map",
                retryable=False,
                param="inputs",
                position=None,
            )
            return
        running = asyncio.create_task(
            app.executor.execute(
                input.program,
                input.inputs,
                input.call(info.context.get("trace_id")),
                stream=stream,
                chunk=chunks.put_nowait,
            )
        )
        running.add_done_callback(lambda _: chunks.put_nowait(None))
        try:
            while (chunk := await chunks.get()) is not None:
                yield Chunk(
                    field=chunk["field"],
                    attempt=chunk["attempt"],
                    text=chunk["text"],
                    done=chunk["done"],
                )
                chunk["grant"]()
            try:
                row = await running
            except DSPexError as error:
                yield problem_of(error)  # type: ignore[misc]
                return
            if row.error is not None and row.error["code"] == "input_validation":
                yield as_problem(row.error, row.id)  # type: ignore[misc]
            else:
                yield Execution.of(row)
        finally:
            running.cancel()
