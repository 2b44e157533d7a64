"""What can be changed. Every answer is the resource, or one of the errors."""

from collections.abc import Mapping
from typing import Annotated, Any

import strawberry
from dspex_bridge.programs.json_forms import from_json
from dspex_protocol.errors import InvalidParamsError
from strawberry.scalars import JSON

from dspex_server.db import models
from dspex_server.executing import Call
from dspex_server.resources import programs, signatures
from dspex_server.resources.datasets import create_dataset
from dspex_server.resources.jobs import MAX_BATCH
from dspex_server.resources.program_creation import create_program

from .errors import (
    InvalidInput,
    InvalidValues,
    NotFound,
    RequestFailed,
    WrongState,
    as_problem,
    telling,
)
from .job_types import Batch, Dataset, OptimizationJob
from .lm_names import require_lm
from .types import Execution, Info, Program, Signature, app_of

__all__ = ["ExecuteInput", "Mutation"]


@strawberry.input(description="A named signature: its text, or its definition as a map.")
class SignatureInput:
    name: str
    text: str | None = None
    definition: JSON | None = None
    instructions: str | None = None
    draft: bool = False


@strawberry.input(
    description="One of signatureId, signature (a text) and definition (a map), or a pipeline's "
    "inputs, steps and outputs in `pipeline`. The rest is as `create` of the port protocol has it."
)
class ProgramInput:
    name: str | None = None
    signature_id: strawberry.ID | None = None
    signature: str | None = None
    definition: JSON | None = None
    pipeline: JSON | None = None
    module: str | None = None
    options: JSON | None = None
    instructions: str | None = None
    demos: JSON | None = None
    lm: str | None = None
    adapter: str | None = None
    config: JSON | None = None
    limits: JSON | None = None
    variables: JSON | None = None
    draft: bool = False
    replace: bool = strawberry.field(
        default=False, description="Whether a program of that name gets another revision."
    )

    def params(self) -> dict[str, Any]:
        given = {
            name: getattr(self, name)
            for name in (
                *("signature", "module", "options", "instructions", "demos"),
                *("lm", "adapter", "config", "limits", "variables"),
            )
        }
        found = {name: value for name, value in given.items() if value is not None}
        kinds = [
            name
            for name in ("signature_id", "signature", "definition", "pipeline")
            if getattr(self, name) is not None
        ]
        if len(kinds) != 1:
            raise InvalidParamsError(
                "createProgram: exactly one of signatureId, signature, definition and pipeline is "
                f"needed, got {', '.join(kinds) or 'none'}",
                data={"param": "signature"},
            )
        if self.definition is not None:
            found["signature"] = self.definition
        if self.pipeline is not None:
            found |= _mapping(self.pipeline, "pipeline")
        if "demos" in found:
            found["demos"] = from_json(found["demos"], "demos")
        return found


@strawberry.input
class ExecuteInput:
    program: strawberry.ID = strawberry.field(description="Its id or its name.")
    inputs: JSON
    lm: str | None = None
    adapter: str | None = None
    config: JSON | None = None
    limits: JSON | None = None
    timeout_ms: int | None = None

    def call(self, trace_id: str | None) -> Call:
        return Call(
            lm=self.lm,
            adapter=self.adapter,
            config=None if self.config is None else _mapping(self.config, "config"),
            limits=None if self.limits is None else _mapping(self.limits, "limits"),
            timeout_ms=self.timeout_ms,
            trace_id=trace_id,
        )


@strawberry.input
class BatchInput:
    program: strawberry.ID = strawberry.field(description="Its id or its name.")
    inputs: list[JSON] = strawberry.field(
        description=f"1 to {MAX_BATCH} maps. More belong in several batches."
    )
    idempotency_key: str | None = strawberry.field(
        default=None, description="The same again is the same batch, and runs nothing."
    )


@strawberry.input(description="The parameters of `optimize` in the port protocol.")
class OptimizeInput:
    program: strawberry.ID
    optimizer: str
    params: JSON | None = None
    dataset: strawberry.ID | None = strawberry.field(
        default=None, description="Its id, or the newest version of a name."
    )
    valset: strawberry.ID | None = None
    metric: JSON | None = None
    seed: int | None = None
    limits: JSON | None = None
    on_stop: str | None = None
    idempotency_key: str | None = None


@strawberry.input(description="Rows `{inputs, outputs}`.")
class DatasetInput:
    name: str
    rows: list[JSON]


@strawberry.type
class DeletedProgram:
    id: strawberry.ID


_Errors = InvalidValues | InvalidInput | NotFound | WrongState | RequestFailed
SignatureResult = Annotated[Signature | _Errors, strawberry.union("SignatureResult")]
ProgramResult = Annotated[Program | _Errors, strawberry.union("ProgramResult")]
DeleteResult = Annotated[DeletedProgram | _Errors, strawberry.union("DeleteProgramResult")]
ExecutionResult = Annotated[Execution | _Errors, strawberry.union("ExecutionResult")]
BatchResult = Annotated[Batch | _Errors, strawberry.union("BatchResult")]
OptimizationResult = Annotated[OptimizationJob | _Errors, strawberry.union("OptimizationResult")]
JobResult = Annotated[OptimizationJob | Batch | _Errors, strawberry.union("JobResult")]
DatasetResult = Annotated[Dataset | _Errors, strawberry.union("DatasetResult")]


@strawberry.type
class Mutation:
    @strawberry.mutation(
        description="The newest version of a name: a new one where the definition is another."
    )
    @telling
    async def create_signature(self, info: Info, input: SignatureInput) -> SignatureResult:
        if (input.text is None) == (input.definition is None):
            raise InvalidParamsError(
                "createSignature: either text or definition is needed, and not both",
                data={"param": "text"},
            )
        definition: Any = input.text if input.definition is None else input.definition
        async with app_of(info).database.write() as session:
            row = await signatures.create_signature(
                session,
                input.name,
                definition,
                instructions=input.instructions,
                draft=input.draft,
            )
        return Signature.of(row)

    @strawberry.mutation(description="Programs are made of it no more.")
    @telling
    async def deprecate_signature(self, info: Info, id: strawberry.ID) -> SignatureResult:
        async with app_of(info).database.write() as session:
            await signatures.SIGNATURES.move(session, id, "deprecated")
            return Signature.of(await signatures.find_signature(session, id))

    @strawberry.mutation
    @telling
    async def create_program(self, info: Info, input: ProgramInput) -> ProgramResult:
        params = input.params()
        require_lm(app_of(info), params.get("lm"))
        async with app_of(info).database.write() as session:
            signature = None
            if input.signature_id is not None:
                signature = await signatures.usable_signature(session, input.signature_id)
            row = await create_program(
                session,
                params,
                name=input.name,
                signature=signature,
                draft=input.draft,
                replace=input.replace,
            )
        return Program.of(row)

    @strawberry.mutation(description="Runs it and answers when it has ended, however it did.")
    @telling
    async def execute_program(self, info: Info, input: ExecuteInput) -> ExecutionResult:
        row = await app_of(info).executor.execute(
            input.program,
            _mapping(input.inputs, "inputs"),
            input.call(info.context.get("trace_id")),
        )
        if row.error is not None and row.error["code"] in ("input_validation", "output_validation"):
            return as_problem(row.error, row.id)  # type: ignore[return-value]
        return Execution.of(row)

    @strawberry.mutation(
        description="Many inputs, as a job that outlives this server. Answers when it is queued; "
        "the results are executions(filter: {batchId})."
    )
    @telling
    async def execute_batch(self, info: Info, input: BatchInput) -> BatchResult:
        app = app_of(info)
        inputs = [_mapping(item, f"inputs[{index}]") for index, item in enumerate(input.inputs)]
        row = await app.jobs.start_batch(
            input.program,
            inputs,
            idempotency_key=input.idempotency_key,
            trace_id=info.context.get("trace_id"),
        )
        return Batch.of(row)

    @strawberry.mutation(description="A search for a better revision, as a job.")
    @telling
    async def optimize_program(self, info: Info, input: OptimizeInput) -> OptimizationResult:
        asked: dict[str, Any] = {"optimizer": {"name": input.optimizer}}
        if input.params is not None:
            asked["optimizer"]["params"] = input.params
        for name in ("metric", "seed", "limits", "on_stop"):
            if getattr(input, name) is not None:
                asked[name] = getattr(input, name)
        row = await app_of(info).jobs.start_optimization(
            input.program,
            asked,
            dataset=input.dataset,
            valset=input.valset,
            idempotency_key=input.idempotency_key,
        )
        return OptimizationJob.of(row)

    @strawberry.mutation
    @telling
    async def cancel_execution(self, info: Info, id: strawberry.ID) -> ExecutionResult:
        return Execution.of(await app_of(info).executor.cancel(id))

    @strawberry.mutation(description="An optimization or a batch. What it has done stays done.")
    @telling
    async def cancel_job(self, info: Info, id: strawberry.ID) -> JobResult:
        row = await app_of(info).jobs.cancel(id)
        if isinstance(row, models.Batch):
            return Batch.of(row)
        return OptimizationJob.of(row)

    @strawberry.mutation(description="A revision, the newest by default, runs until another does.")
    @telling
    async def deploy_program(
        self,
        info: Info,
        id: strawberry.ID,
        revision: int | None = None,
    ) -> ProgramResult:
        async with app_of(info).database.write() as session:
            return Program.of(await programs.deploy_program(session, id, revision))

    @strawberry.mutation(description="An earlier revision becomes the one that runs.")
    @telling
    async def rollback_program(
        self,
        info: Info,
        id: strawberry.ID,
        revision: int,
    ) -> ProgramResult:
        async with app_of(info).database.write() as session:
            return Program.of(await programs.rollback_program(session, id, revision))

    @strawberry.mutation(description="It runs no more; all that it did stays.")
    @telling
    async def archive_program(self, info: Info, id: strawberry.ID) -> ProgramResult:
        async with app_of(info).database.write() as session:
            return Program.of(await programs.archive_program(session, id))

    @strawberry.mutation(description="It and all that it did. Refused while it runs.")
    @telling
    async def delete_program(self, info: Info, id: strawberry.ID) -> DeleteResult:
        async with app_of(info).database.write() as session:
            return DeletedProgram(id=strawberry.ID(await programs.delete_program(session, id)))

    @strawberry.mutation(description="The newest version of a name: a new one for other rows.")
    @telling
    async def create_dataset(self, info: Info, input: DatasetInput) -> DatasetResult:
        rows = []
        for index, row in enumerate(input.rows):
            example = _mapping(row, f"rows[{index}]")
            sides = {
                side: _mapping(example.get(side), f"rows[{index}].{side}")
                for side in ("inputs", "outputs")
            }
            rows.append(sides)
        async with app_of(info).database.write() as session:
            return Dataset.of(await create_dataset(session, input.name, rows))


def _mapping(value: object, param: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidParamsError(
            f"{param} must be a map, got {type(value).__name__}", data={"param": param}
        )
    return dict(value)
