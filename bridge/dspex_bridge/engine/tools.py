"""The client's tools as DSPy's."""

from __future__ import annotations

from inspect import Parameter, Signature, signature
from keyword import iskeyword
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import DSPexError

from dspex_bridge.programs.converters import InputConverter
from dspex_bridge.programs.signatures import input_schema

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from dspex_bridge.programs.spec import ToolSpec

__all__ = ["TOOL_SETTING", "ClientTool", "make_tool"]

# The key in DSPy's settings under which a run's way to the client travels:
# `async call_tool(name, arguments)`.
TOOL_SETTING = "dspex_call_tool"

# Of the parameters of a function, the one that takes those without a name of their own.
_OTHERS = "others"


class ClientTool(dspy.Tool):  # type: ignore[misc]  # dspy ships no types
    """A tool that the client executes. What goes wrong becomes its observation in the program, in
    words: no path of Python's stands in it."""

    async def acall(self, **arguments: Any) -> Any:
        try:
            return await super().acall(**arguments)
        except (DSPexError, ValueError) as error:
            return self._observation(error)

    def __call__(self, **arguments: Any) -> Any:
        try:
            return super().__call__(**arguments)
        except (DSPexError, ValueError) as error:
            return self._observation(error)

    def _observation(self, error: Exception) -> str:
        return f"Execution error in {self.name}: {error}"

    def _validate_and_parse_args(self, **arguments: Any) -> Any:
        parameters = signature(self.func).parameters
        given = {
            name: value
            for name, value in arguments.items()
            if value is not None or name not in parameters or parameters[name].default is not None
        }
        return super()._validate_and_parse_args(**given)


class _TypedTool(ClientTool):
    """Its arguments are judged by the converter of its fields."""

    def _validate_and_parse_args(self, **arguments: Any) -> Any:
        return arguments


def make_tool(spec: ToolSpec) -> ClientTool:
    """Typed fields are judged by our own converter, by DSPy what has a JSON Schema."""
    fields = spec.signature()
    schema = (spec.schema or {}) if fields is None else input_schema(fields)
    convert = None if fields is None else InputConverter(fields).convert

    async def ask(**arguments: Any) -> Any:
        call_tool: Callable[[str, dict[str, Any]], Awaitable[Any]] = dspy.settings[TOOL_SETTING]
        return await call_tool(spec.name, arguments if convert is None else convert(arguments))

    ask.__signature__ = _parameters(schema)  # type: ignore[attr-defined]
    return (ClientTool if convert is None else _TypedTool)(
        func=ask,
        name=spec.name,
        desc=spec.description,
        args=dict(schema.get("properties") or {}),
        arg_types={},
    )


def _parameters(schema: Mapping[str, Any]) -> Signature:
    """What the tool takes, as a function: code in a sandbox calls it as one.

    Those that may be left out have their default, or None, which stands for having been left out.
    Names that no parameter of Python's can have (`from`, `user-id`) are taken all the same.
    """
    required = schema.get("required") or ()
    properties = schema.get("properties") or {}
    sayable = {name: item for name, item in properties.items() if _is_sayable(name)}
    parameters = [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD)
        if name in required
        else Parameter(
            name,
            Parameter.POSITIONAL_OR_KEYWORD,
            default=field.get("default") if isinstance(field, dict) else None,
        )
        for name, field in sayable.items()
    ]
    # As Python wants them: those without a default first.
    parameters.sort(key=lambda one: one.default is not Parameter.empty)
    if len(sayable) < len(properties):
        parameters.append(Parameter(_OTHERS, Parameter.VAR_KEYWORD))
    return Signature(parameters)


def _is_sayable(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name) and name != _OTHERS
