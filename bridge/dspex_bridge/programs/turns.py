"""Histories, code and tool calls as clients send them: plain lists, texts and maps."""

from __future__ import annotations

import json
from typing import Any

from .scalars import RefusedError

__all__ = ["code", "history", "tool_calls"]

_FENCE = "```"


def history(value: Any) -> list[dict[str, Any]]:
    """The turns, oldest first: each a map of values by the names of the signature's fields."""
    if isinstance(value, dict) and set(value) == {"messages"}:
        value = value["messages"]
    if not isinstance(value, list) or not all(isinstance(turn, dict) for turn in value):
        raise RefusedError("a history is a list of maps with values of the signature's fields")
    return value


def code(value: Any) -> str:
    """Source text; of a whole block of Markdown what is in it."""
    if isinstance(value, dict) and set(value) == {"code"}:
        value = value["code"]
    if not isinstance(value, str):
        raise RefusedError("code is text")
    text = value.strip()
    if not text.startswith(_FENCE) or not text.endswith(_FENCE) or len(text) < 2 * len(_FENCE):
        return value
    inside = text[len(_FENCE) : -len(_FENCE)]
    first, line_end, rest = inside.partition("\n")
    return (rest if line_end else first).strip()


def tool_calls(value: Any) -> list[dict[str, Any]]:
    """Maps with `name`, `args` and, where it is known, `id`."""
    if isinstance(value, dict) and set(value) <= {"tool_calls", "tool_call_results"}:
        value = value.get("tool_calls")
    if not isinstance(value, list):
        raise RefusedError("tool calls are a list of maps with name and args")
    return [_tool_call(call) for call in value]


def _tool_call(call: Any) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise RefusedError("a tool call is a map with name and args")
    said = call.get("function", call)
    if not isinstance(said, dict):
        raise RefusedError("the function of a tool call is a map with name and arguments")
    name, arguments = said.get("name"), said.get("args", said.get("arguments", {}))
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            raise RefusedError("the arguments of a tool call are no JSON") from None
    if not isinstance(name, str) or not name or not isinstance(arguments, dict):
        raise RefusedError("a tool call is a map with name (text) and args (a map)")
    made: dict[str, Any] = {"name": name, "args": arguments}
    identity = call.get("id") or call.get("call_id")
    if identity is not None:
        if not isinstance(identity, str):
            raise RefusedError("the id of a tool call is text")
        made["id"] = identity
    return made
