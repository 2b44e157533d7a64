"""The modules whose LM writes code: program_of_thought, code_act, rlm and flex.

The code runs in Deno and nowhere else; the modules block meanwhile, so that they run in jobs.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import ToolError
from dspy.primitives.code_interpreter import CodeInterpreterError

from dspex_bridge.params import Check, integer, record

from . import facade  # noqa: F401 - which takes the place of DSPy's own for what is made here
from .interpreter import Interpreter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dspex_bridge.engine.tools import ClientTool

    from .kinds import Parts

__all__ = [
    "OWN_NAMES",
    "PREDICTION_NAMES",
    "code_act",
    "flex",
    "options",
    "program_of_thought",
    "rlm",
]

_DEFAULT_CODE_TIMEOUT_MS = 30_000
_MAX_CODE_TIMEOUT_MS = 3_600_000

# What the code finds beside its inputs and tools.
OWN_NAMES = ("llm_query", "llm_query_batched", "SUBMIT", "print", "dspy")

# Outputs are read as attributes of a prediction, which has these already.
PREDICTION_NAMES = tuple(name for name in dir(dspy.Prediction) if not name.startswith("_"))

# How much is told of what an interpreter said.
_MAX_TOLD_CHARS = 500


def options(**own: Check) -> Check:
    return record(optional={**own, "code_timeout_ms": integer(1, _MAX_CODE_TIMEOUT_MS)})


def program_of_thought(parts: Parts) -> dspy.Module:
    return _quietly(_ProgramOfThought, parts, interpreter_factory=_factory(parts))


def code_act(parts: Parts) -> dspy.Module:
    # DSPy runs the source of the tools in the sandbox; these are the client's, who is asked.
    functions = {str(tool.name): _function(tool) for tool in parts.tools}
    module = _quietly(
        _CodeAct,
        parts,
        tools=list(parts.tools),
        interpreter_factory=_factory(parts, tools=functions),
    )
    module.tools = {}
    return module


def _function(tool: ClientTool) -> Callable[..., Any]:
    """A tool as code in the sandbox calls it."""

    async def call(**arguments: Any) -> Any:
        return await tool.acall(**arguments)

    call.__signature__ = signature(tool.func)  # type: ignore[attr-defined]
    return call


def rlm(parts: Parts) -> dspy.Module:
    return _quietly(_RLM, parts, tools=list(parts.tools), interpreter_factory=_factory(parts))


def flex(parts: Parts) -> dspy.Module:
    return _quietly(_Flex, parts, tools=list(parts.tools), interpreter_factory=_factory(parts))


def _factory(
    parts: Parts, tools: dict[str, Callable[..., Any]] | None = None
) -> Callable[[], Interpreter]:
    limit_ms = parts.options.get("code_timeout_ms") or _DEFAULT_CODE_TIMEOUT_MS
    factory = partial(Interpreter, limit_ms / 1000, tools)
    # rlm tells the LM what its interpreter can do, and reads it here.
    factory.execution_instructions = Interpreter.execution_instructions  # type: ignore[attr-defined]
    return factory


def _quietly(make: Callable[..., dspy.Module], parts: Parts, **more: Any) -> dspy.Module:
    own = {key: value for key, value in parts.options.items() if key != "code_timeout_ms"}
    with warnings.catch_warnings():
        # That a module will leave a later DSPy is news for us and not for every program.
        warnings.simplefilter("ignore", DeprecationWarning)
        return make(parts.signature, **own, **more)


@contextmanager
def _told() -> Iterator[None]:
    """What goes wrong with the code, as errors of the protocol."""
    try:
        yield
    except CodeInterpreterError as error:
        raise ToolError(f"the code cannot be run: {_first_line(error)}") from error
    except RuntimeError as error:  # so program_of_thought gives up
        raise ToolError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_MAX_TOLD_CHARS]


class _ProgramOfThought(dspy.ProgramOfThought):  # type: ignore[misc]  # dspy ships no types
    def forward(self, **inputs: Any) -> dspy.Prediction:
        with _told():
            return super().forward(**inputs)


class _CodeAct(dspy.CodeAct):  # type: ignore[misc]
    def forward(self, **inputs: Any) -> dspy.Prediction:
        with _told():
            return super().forward(**inputs)


class _RLM(dspy.RLM):  # type: ignore[misc]
    def forward(self, **inputs: Any) -> dspy.Prediction:
        with _told():
            return super().forward(**inputs)


class _Flex(dspy.Flex):  # type: ignore[misc]
    def forward(self, **inputs: Any) -> dspy.Prediction:
        with _told():
            return super().forward(**inputs)
