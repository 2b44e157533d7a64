"""Programs as things: create, describe, list, delete, dump, load, save."""

from __future__ import annotations

from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.params import array, boolean, mapping, name, one_of, record, text
from dspex_bridge.shapes import CREATE as CREATE_SHAPE

from .method import Method
from .state_files import parse_state, write_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.host import Host

__all__ = ["CREATE", "DELETE", "DESCRIBE", "DUMP", "LIST", "LOAD", "SAVE"]


def _create(host: Host, call: Call) -> dict[str, Any]:
    return host.require_programs().create(call.params).created()


def _describe(host: Host, call: Call) -> dict[str, Any]:
    programs, name = host.require_programs(), call.params["program"]
    described = programs.describe(name)
    if "function_schemas" in (call.params.get("include") or ()):
        from dspex_bridge.programs.function_schemas import function_schemas

        described["function_schemas"] = function_schemas(programs.get(name).spec.signature, name)
    return described


def _list(host: Host, call: Call) -> dict[str, Any]:
    programs = host.require_programs().list(call.params.get("prefix") or "")
    return {"programs": [program.listed() for program in programs]}


def _delete(host: Host, call: Call) -> dict[str, Any]:
    host.require_programs().delete(call.params["program"])
    return {"deleted": True}


def _dump(host: Host, call: Call) -> dict[str, Any]:
    return {"state": host.require_programs().dump(call.params["program"])}


def _load(host: Host, call: Call) -> dict[str, Any]:
    params = call.params
    state, path = params.get("state"), params.get("path")
    if (state is None) is (path is None):
        raise InvalidParamsError(
            "load: either the parameter 'state' or the parameter 'path' is needed, and not both.",
            data={"param": "state"},
        )
    if path is not None:
        # Now, in its turn: what comes behind may want the program.
        params = {**params, "state": parse_state(host.state_dir.read(path), path)}
    return host.require_programs().load(params).created()


def _save(host: Host, call: Call) -> Callable[[], Coroutine[Any, Any, dict[str, Any]]]:
    """Takes the program as it stands in its turn; the file is there when it is answered."""
    path, data = call.params["path"], write_state(_dump(host, call)["state"])

    async def write() -> dict[str, Any]:
        import asyncio

        # A disk takes its time, which is nobody else's.
        await asyncio.to_thread(host.state_dir.write, path, data)
        return {"path": path, "bytes": len(data)}

    return write


_PROGRAM = record({"program": name})

CREATE = Method("create", _create, CREATE_SHAPE)
DESCRIBE = Method(
    "describe",
    _describe,
    record({"program": name}, {"include": array(one_of("function_schemas"))}),
)
LIST = Method("list", _list, record(optional={"prefix": text}))
DELETE = Method("delete", _delete, _PROGRAM)
DUMP = Method("dump", _dump, _PROGRAM)
LOAD = Method(
    "load",
    _load,
    record(optional={"state": mapping, "path": text, "program": name, "replace": boolean}),
)
SAVE = Method("save", _save, record({"program": name, "path": text}))
