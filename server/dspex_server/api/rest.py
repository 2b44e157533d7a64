"""Programs, executions and datasets as JSON, for those without a GraphQL client."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from dspex_bridge.params import anything, boolean, integer, mapping, record, text
from dspex_bridge.programs.json_forms import from_json
from dspex_bridge.shapes import ADAPTER, CONFIG, LIMITS
from dspex_protocol.errors import DSPexError, InvalidParamsError, NotFoundError, ValidationError
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dspex_server.db.models import Dataset, Execution, Program
from dspex_server.executing import Call
from dspex_server.importing import read_rows
from dspex_server.resources.datasets import create_dataset
from dspex_server.resources.executions import find_execution
from dspex_server.resources.program_creation import create_program, no_tools
from dspex_server.resources.programs import delete_program, find_program

from .calls import call
from .json_body import parsed
from .lm_names import lm_name, require_lm
from .openapi import CREATE, document
from .refusals import refusal

if TYPE_CHECKING:
    from starlette.requests import Request

    from dspex_server.app import App

__all__ = ["routes", "trace_of"]

_STATUS = {
    "already_exists": 409,
    "wrong_state": 409,
    "overloaded": 503,
    "shutting_down": 503,
    "unavailable": 503,
    "database_unavailable": 503,
    "timeout": 504,
    "internal_error": 500,
    "method_not_found": 404,
}
_MAX_LIST = 500
_EXECUTE = record(
    {"inputs": mapping},
    {
        "lm": lm_name,
        "adapter": ADAPTER,
        "config": CONFIG,
        "limits": LIMITS,
        "timeout_ms": integer(1),
    },
)
# What else a program is made of is looked at where it is made.
_CREATE = record(
    optional={
        **dict.fromkeys(CREATE, anything),
        **{"name": text, "draft": boolean, "replace": boolean},
    }
)

Handler = Callable[["Request"], Awaitable[Response]]


def routes() -> list[Route]:
    return [
        Route("/v1/openapi.json", _openapi, methods=["GET"]),
        Route("/v1/programs", _told(_list_programs), methods=["GET"]),
        Route("/v1/programs", _told(_create), methods=["POST"]),
        Route("/v1/programs/{program}", _told(_get_program), methods=["GET"]),
        Route("/v1/programs/{program}", _told(_delete), methods=["DELETE"]),
        Route("/v1/programs/{program}/execute", _told(_execute), methods=["POST"]),
        Route("/v1/datasets/{dataset}", _told(_import_dataset), methods=["PUT"]),
        Route("/v1/executions/{execution}", _told(_get_execution), methods=["GET"]),
        Route("/v1/executions/{execution}/cancel", _told(_cancel), methods=["POST"]),
        Route("/v1/calls/{method}", _told(_call), methods=["POST"]),
    ]


def trace_of(request: Any) -> str | None:
    """The trace id of W3C's traceparent, where the caller sent one."""
    parts = request.headers.get("traceparent", "").split("-")
    is_one = len(parts) == 4 and len(parts[1]) == 32
    return parts[1] if is_one and all(c in "0123456789abcdef" for c in parts[1]) else None


def _told(handler: Handler) -> Handler:
    """The boundary: errors become answers here."""

    async def told(request: Request) -> Response:
        try:
            return await handler(request)
        except DSPexError as error:
            return _error(error)
        except IntegrityError:
            text = "somebody else made the same thing at once: try again"
            return _error(DSPexError(text, retryable=True), 409)
        except RecursionError:
            return _error(InvalidParamsError("a value is nested too deep"))

    return told


def _error(error: DSPexError, status: int | None = None) -> JSONResponse:
    if status is None:
        default = 422 if isinstance(error, ValidationError) else 400
        status = _STATUS.get(error.code, 404 if isinstance(error, NotFoundError) else default)
    return refusal(status, error.code, error.message, retryable=error.retryable, data=error.data)


async def _body(request: Request) -> dict[str, Any]:
    value = parsed(await request.body())
    mapping(value, "the body")
    body: dict[str, Any] = value
    return body


def _app(request: Request) -> App:
    app: App = request.app.state.app
    return app


async def _openapi(_request: Request) -> Response:
    return JSONResponse(document())


async def _list_programs(request: Request) -> Response:
    async with _app(request).database.read() as session:
        query = select(Program).order_by(Program.created_at.desc(), Program.id).limit(_MAX_LIST)
        return JSONResponse({"programs": [_program(row) for row in await session.scalars(query)]})


async def _create(request: Request) -> Response:
    params = await _body(request)
    if "tools" in params:
        raise no_tools()
    _CREATE(params, "createProgram")
    name = params.pop("name", None)
    draft, replace = (bool(params.pop(key, False)) for key in ("draft", "replace"))
    if "demos" in params:
        params["demos"] = from_json(params["demos"], "demos")
    require_lm(_app(request), params.get("lm"))
    async with _app(request).database.write() as session:
        row = await create_program(session, params, name=name, draft=draft, replace=replace)
    return JSONResponse(_program(row), 201)


async def _get_program(request: Request) -> Response:
    async with _app(request).database.read() as session:
        return JSONResponse(_program(await find_program(session, request.path_params["program"])))


async def _delete(request: Request) -> Response:
    async with _app(request).database.write() as session:
        await delete_program(session, request.path_params["program"])
    return Response(status_code=204)


async def _execute(request: Request) -> Response:
    body = await _body(request)
    _EXECUTE(body, "executeProgram")
    named = {key: value for key, value in body.items() if key != "inputs"}
    row = await _app(request).executor.execute(
        request.path_params["program"],
        body["inputs"],
        Call(**named, trace_id=trace_of(request)),
    )
    is_invalid = row.error is not None and row.error["code"] == "input_validation"
    return JSONResponse(_execution(row), 422 if is_invalid else 200)


async def _import_dataset(request: Request) -> Response:
    query = request.query_params
    unknown = [key for key in query if key not in ("file", "inputs", "outputs")]
    if unknown or "file" not in query:
        raise InvalidParamsError(
            "the query has file (a name whose end tells the format), and maybe inputs and outputs "
            "(names of columns with commas between)",
            data={"param": unknown[0] if unknown else "file"},
        )
    columns = {
        side: [name for name in query.get(side, "").split(",") if name]
        for side in ("inputs", "outputs")
    }
    data = await request.body()
    # Off the loop: a long file takes its time.
    rows = await asyncio.to_thread(read_rows, query["file"], data, **columns)
    async with _app(request).database.write() as session:
        row = await create_dataset(session, request.path_params["dataset"], rows)
    return JSONResponse(_dataset(row), 201)


def _dataset(row: Dataset) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "version": row.version,
        "size": row.size,
        "digest": row.digest,
        "created_at": row.created_at.isoformat(),
    }


async def _get_execution(request: Request) -> Response:
    async with _app(request).database.read() as session:
        row = await find_execution(session, request.path_params["execution"])
    return JSONResponse(_execution(row))


async def _cancel(request: Request) -> Response:
    row = await _app(request).executor.cancel(request.path_params["execution"])
    return JSONResponse(_execution(row))


async def _call(request: Request) -> Response:
    body = await _body(request)
    return call(_app(request), request.path_params["method"], body, trace_of(request))


def _program(row: Program) -> dict[str, Any]:
    return {
        "id": row.id,
        "name": row.name,
        "module": row.module,
        "state": row.state,
        "revision": row.revision,
        "deployed_revision": row.deployed_revision,
        "executions": row.executions,
        "failures": row.failures,
        "total_tokens": row.total_tokens,
        "cost_usd": row.cost_usd,
        "created_at": row.created_at.isoformat(),
    }


def _execution(row: Execution) -> dict[str, Any]:
    def time(at: Any) -> str | None:
        return None if at is None else at.isoformat()

    return {
        "id": row.id,
        "program_id": row.program_id,
        "revision": row.revision,
        "state": row.state,
        "inputs": row.inputs,
        "outputs": row.outputs,
        "error": row.error,
        "lm": row.lm,
        "total_tokens": row.total_tokens,
        "cost_usd": row.cost_usd,
        "duration_ms": row.duration_ms,
        "cached": row.cached,
        "trace_id": row.trace_id,
        "created_at": time(row.created_at),
        "started_at": time(row.started_at),
        "finished_at": time(row.finished_at),
    }
