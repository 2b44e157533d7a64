"""The methods of the port protocol over HTTP: a POST is a request, server-sent events its answer.

Parameters, notifications and results are those of protocol/SPEC.md, as JSON. Programs are those of
the database, by their names, and an execution is a row like any other. What needs the client's own
code, files or keys is refused: an LM is one of the server's, by its name.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from dspex_bridge.params import anything, boolean, mapping, name, record, text
from dspex_bridge.programs import bundles
from dspex_bridge.programs.json_forms import from_json, to_json
from dspex_bridge.programs.signatures import input_schema, output_schema
from dspex_protocol.errors import MethodNotFoundError, NotFoundError, UnavailableError
from sqlalchemy import select

from dspex_server.db.models import Program, Revision
from dspex_server.resources import program_creation, programs

from .call_runs import COMMON, Caller, batch, evaluate, execute, in_a_bridge, optimize, stored
from .event_stream import EventStream
from .lm_names import require_lm

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from dspex_bridge.programs.spec import ProgramSpec
    from sqlalchemy import Row

    from dspex_server.app import App

    from .event_stream import Outbox

    Method = Callable[[App, dict[str, Any], Caller], Awaitable[dict[str, Any]]]

__all__ = ["METHODS", "call"]

_LOAD = record({"state": mapping, "program": name}, {"replace": boolean, **COMMON})
_NAMED = record({"program": name}, COMMON)
_LIST = record(optional={"prefix": text, **COMMON})
_DESCRIBE = record({"program": name}, {"include": anything, **COMMON})
_PING = record(optional={"payload": anything, **COMMON})

# Programs whose states are in memory at once.
_LISTED = 100

_REFUSED = {
    "configure": "the LMs of a server are given to it at its start, by --lm or --lms",
    "save": "a server keeps its programs in its database, and no files of its clients: dump gives "
    "the state of a program",
    "stats": "a server has several bridges: ask GraphQL for the counters of programs",
}


def call(app: App, method: str, body: Mapping[str, Any], trace_id: str | None) -> EventStream:
    """Raises MethodNotFoundError, UnavailableError, and InvalidParamsError for a value that is
    none; what else is wrong is told in the answer."""
    if method in _REFUSED:
        raise UnavailableError(f"{method}: not over a server. {_REFUSED[method]}")
    if method not in METHODS:
        raise MethodNotFoundError(
            f"a server has no method {method!r}. It has: {', '.join(METHODS)}"
        )
    params = {key: from_json(value, key) for key, value in body.items() if value is not None}

    async def work(outbox: Outbox) -> Mapping[str, Any]:
        answer: Mapping[str, Any] = to_json(
            await METHODS[method](app, params, Caller(outbox, trace_id))
        )
        return answer

    return EventStream(work)


async def _ping(_app: App, params: dict[str, Any], _caller: Caller) -> dict[str, Any]:
    _PING(params, "ping")
    return {"payload": params.get("payload")}


async def _create(app: App, params: dict[str, Any], _caller: Caller) -> dict[str, Any]:
    asked = {key: value for key, value in params.items() if key not in COMMON}
    require_lm(app, asked.get("lm"))
    spec = program_creation.spec_of(asked)
    return await _register(app, spec, params.get("program"), replace=params.get("replace", False))


async def _load(app: App, params: dict[str, Any], _caller: Caller) -> dict[str, Any]:
    if "path" in params:
        raise NotFoundError(
            "load: a server has no files of its clients: give the state itself",
            data={"kind": "file", "name": str(params["path"])},
        )
    _LOAD(params, "load")
    state = params["state"]
    spec = bundles.load(state)
    if any(part.get("tools") for part in (state, *state.get("steps", ()))):
        raise program_creation.no_tools()
    return await _register(app, spec, params["program"], replace=params.get("replace", False))


async def _register(
    app: App, spec: ProgramSpec, name: str | None, *, replace: bool
) -> dict[str, Any]:
    async with app.database.write() as session:
        program = await program_creation.add_program(session, spec, name=name, replace=replace)
    return {
        "program": program.name,
        "signature": spec.signature.to_map(),
        "module": spec.module,
        "input_schema": input_schema(spec.signature),
        "output_schema": output_schema(spec.signature),
        "revision": program.revision,
    }


async def _delete(app: App, params: dict[str, Any], _caller: Caller) -> dict[str, Any]:
    _NAMED(params, "delete")
    async with app.database.write() as session:
        await programs.delete_program(session, params["program"])
    return {"deleted": True}


async def _list(app: App, params: dict[str, Any], _caller: Caller) -> dict[str, Any]:
    _LIST(params, "list")
    query = (
        select(Program.name, Program.module, Program.revision, Program.executions, Revision.state)
        .join(Revision, (Revision.program_id == Program.id) & (Revision.number == Program.revision))
        .where(Program.name.startswith(params.get("prefix", ""), autoescape=True))
        .order_by(Program.created_at, Program.id)
    )
    listed: list[dict[str, Any]] = []
    async with app.database.read() as session:
        rows = await session.stream(query)
        async for some in rows.partitions(_LISTED):
            # Off the loop: states are long, and read for their signature alone.
            listed += await asyncio.to_thread(_listed, some)
    return {"programs": listed}


def _listed(rows: Sequence[Row[Any]]) -> list[dict[str, Any]]:
    return [
        {
            "program": row.name,
            "module": row.module,
            "signature": bundles.load(row.state).signature.to_string(),
            "revision": row.revision,
            "executions": row.executions,
        }
        for row in rows
    ]


async def _describe(app: App, params: dict[str, Any], _caller: Caller) -> dict[str, Any]:
    _DESCRIBE(params, "describe")
    program, revision = await stored(app, params["program"])
    about = await in_a_bridge(app, revision, "describe", params)
    return {
        **about,
        "program": program.name,
        "revision": revision.revision,
        "counters": {"executions": program.executions, "errors": program.failures},
        "base_program": about["lineage"].get("base_program"),
    }


async def _dump(app: App, params: dict[str, Any], _caller: Caller) -> dict[str, Any]:
    _NAMED(params, "dump")
    _program, revision = await stored(app, params["program"])
    return {"state": revision.state}


METHODS: dict[str, Method] = {
    "ping": _ping,
    "create": _create,
    "load": _load,
    "list": _list,
    "describe": _describe,
    "dump": _dump,
    "delete": _delete,
    "execute": execute,
    "batch": batch,
    "evaluate": evaluate,
    "optimize": optimize,
}
