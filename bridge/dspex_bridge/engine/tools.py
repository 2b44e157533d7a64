"""The client's tools as DSPy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import DSPexError

from dspex_bridge.programs.converters import InputConverter
from dspex_bridge.programs.signatures import input_schema

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from dspex_bridge.programs.spec import ToolSpec

__all__ = ["TOOL_SETTING", "make_tool"]

# The key in DSPy's settings under which a run's way to the client travels:
# `async call_tool(name, arguments)`.
TOOL_SETTING = "dspex_call_tool"


class ClientTool(dspy.Tool):  # type: ignore[misc]  # dspy ships no types
    """A tool that the client executes. What goes wrong becomes its observation in the program, in
    words: no path of Python's stands in it."""

    async def acall(self, **arguments: Any) -> Any:
        try:
            return await self.func(**arguments)
        except (DSPexError, ValueError) as error:
            return f"Execution error in {self.name}: {error}"


def make_tool(spec: ToolSpec) -> ClientTool:
    signature = spec.signature()
    schema = (spec.schema or {}) if signature is None else input_schema(signature)
    convert = None if signature is None else InputConverter(signature).convert

    async def call(**arguments: Any) -> Any:
        call_tool: Callable[[str, dict[str, Any]], Awaitable[Any]] = dspy.settings[TOOL_SETTING]
        # Typed fields are judged by our own converter; DSPy judges what has a JSON Schema.
        check = convert or (lambda given: tool._validate_and_parse_args(**given))
        return await call_tool(spec.name, check(arguments))

    tool = ClientTool(
        func=call,
        name=spec.name,
        desc=spec.description,
        args=dict(schema.get("properties") or {}),
        arg_types={},
    )
    # `call` takes any names only so that one function serves every tool.
    tool.has_kwargs = False
    return tool
