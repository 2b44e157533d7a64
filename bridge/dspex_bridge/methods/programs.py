"""Programs as things: create, describe, list, delete, dump, load."""

from __future__ import annotations

from dspex_bridge.params import boolean, mapping, name, record, text
from dspex_bridge.shapes import CREATE as CREATE_SHAPE

from .method import Method

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.host import Host

__all__ = ["CREATE", "DELETE", "DESCRIBE", "DUMP", "LIST", "LOAD"]


def _create(host: Host, call: Call) -> dict[str, Any]:
    return host.require_programs().create(call.params).created()


def _describe(host: Host, call: Call) -> dict[str, Any]:
    return host.require_programs().describe(call.params["program"])


def _list(host: Host, call: Call) -> dict[str, Any]:
    programs = host.require_programs().list(call.params.get("prefix") or "")
    return {"programs": [program.listed() for program in programs]}


def _delete(host: Host, call: Call) -> dict[str, Any]:
    host.require_programs().delete(call.params["program"])
    return {"deleted": True}


def _dump(host: Host, call: Call) -> dict[str, Any]:
    return {"state": host.require_programs().dump(call.params["program"])}


def _load(host: Host, call: Call) -> dict[str, Any]:
    return host.require_programs().load(call.params).created()


_PROGRAM = record({"program": name})

CREATE = Method("create", _create, CREATE_SHAPE)
DESCRIBE = Method("describe", _describe, _PROGRAM)
LIST = Method("list", _list, record(optional={"prefix": text}))
DELETE = Method("delete", _delete, _PROGRAM)
DUMP = Method("dump", _dump, _PROGRAM)
LOAD = Method("load", _load, record({"state": mapping}, {"program": name, "replace": boolean}))
