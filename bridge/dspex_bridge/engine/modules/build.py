"""A module from the specification of a program: checked, made, filled."""

from __future__ import annotations

import keyword
from typing import TYPE_CHECKING

from dspex_protocol.errors import InvalidParamsError, SignatureError

from dspex_bridge.engine.in_job import InJob
from dspex_bridge.engine.predictors import fill_predictors
from dspex_bridge.engine.tools import make_tool

from .deno import require_deno
from .ensemble import Ensemble
from .kinds import MODULES, Parts
from .pipeline import Pipeline
from .signature import make_signature

if TYPE_CHECKING:
    import dspy

    from dspex_bridge.programs.spec import ProgramSpec, ToolSpec

    from .kinds import Kind, Resources

__all__ = ["build_module"]


def build_module(spec: ProgramSpec, resources: Resources | None = None) -> dspy.Module:
    """The module of a specification, with its instructions and demonstrations in place.

    Raises SignatureError, InvalidParamsError, NotFoundError and UnavailableError.
    """
    if spec.ensemble is not None:
        programs = [build_module(program, resources) for program in spec.ensemble.programs]
        ensemble = Ensemble(spec.ensemble, programs, resources)
        fill_predictors(ensemble, None, spec.predictors)
        return ensemble
    if spec.pipeline is None:
        module = _module(spec, resources)
        fill_predictors(module, spec.demos, spec.predictors)
        return module
    steps = {step.name: build_module(step.program, resources) for step in spec.pipeline.steps}
    pipeline = Pipeline(spec.pipeline, steps)
    fill_predictors(pipeline, None, spec.predictors)
    return pipeline


def _module(spec: ProgramSpec, resources: Resources | None) -> dspy.Module:
    kind = MODULES[spec.module]
    kind.options(spec.options, f"options of {spec.module}")
    _check_fields(spec, kind)
    _check_tools(spec, kind)
    if kind.needs_deno:
        require_deno(spec.module)
    module = kind.make(
        Parts(
            signature=make_signature(spec.signature),
            options={key: value for key, value in spec.options.items() if value is not None},
            tools=[make_tool(tool) for tool in spec.tools],
            demos=spec.demos,
            resources=resources,
        )
    )
    return InJob(spec, module) if kind.needs_deno else module


def _check_fields(spec: ProgramSpec, kind: Kind) -> None:
    for item in (*spec.signature.inputs, *spec.signature.outputs):
        if item.name in kind.own_fields or (
            kind.own_prefix is not None and item.name.startswith(kind.own_prefix)
        ):
            raise SignatureError(
                f"the module {spec.module} has a field {item.name!r} of its own: "
                "rename this one, or leave it out of the signature",
                data={"field": item.name},
            )


def _check_tools(spec: ProgramSpec, kind: Kind) -> None:
    if spec.tools and not kind.has_tools:
        raise InvalidParamsError(
            f"the module {spec.module} takes no tools: those that do are "
            f"{', '.join(name for name, other in MODULES.items() if other.has_tools)}",
            data={"param": "tools"},
        )
    taken = {*kind.own_tools, *(item.name for item in spec.signature.inputs)}
    for tool in spec.tools:
        _check_tool(tool, taken, kind)
        taken.add(tool.name)


def _check_tool(tool: ToolSpec, taken: set[str], kind: Kind) -> None:
    if tool.name in taken or not tool.name.isidentifier() or keyword.iskeyword(tool.name):
        own = "".join(f", {name!r} is the module's own" for name in kind.own_tools)
        raise InvalidParamsError(
            f"tools: {tool.name!r} cannot be the name of a tool: names are identifiers, each "
            f"one once, and none is an input's{own}",
            data={"param": "tools"},
        )
