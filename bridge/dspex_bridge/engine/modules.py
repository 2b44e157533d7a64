"""DSPy modules from specifications."""

from __future__ import annotations

from collections.abc import Callable  # noqa: TC003 - NamedTuple reads it
from typing import TYPE_CHECKING, Any, NamedTuple

import dspy
from dspex_protocol.errors import InvalidParamsError, SignatureError

from dspex_bridge.params import Check, integer, record
from dspex_bridge.programs.signatures import annotation, prompt_constraints
from dspex_bridge.programs.spec import Demo, Predictor

from .tools import make_tool

if TYPE_CHECKING:
    from dspex_protocol.signatures import Field, SignatureSpec

    from dspex_bridge.programs.spec import ProgramSpec, ToolSpec

__all__ = ["build_module", "predictors_of"]


class _Module(NamedTuple):
    """How a module is made, its options, and names that its signature cannot use."""

    make: Callable[..., dspy.Module]
    options: Check = record()
    has_tools: bool = False
    own_fields: tuple[str, ...] = ()


# DSPy's own limit of steps is 20; a program that needs more than this is lost.
_MAX_ITERATIONS = 1000

_MODULES = {
    "predict": _Module(dspy.Predict),
    "chain_of_thought": _Module(dspy.ChainOfThought, own_fields=("reasoning",)),
    "react": _Module(
        dspy.ReAct,
        options=record(optional={"max_iters": integer(1, _MAX_ITERATIONS)}),
        has_tools=True,
        own_fields=(
            *("reasoning", "trajectory", "next_thought", "next_tool_name", "next_tool_args"),
            "max_iters",
        ),
    ),
}


def build_module(spec: ProgramSpec) -> dspy.Module:
    """The module of a specification, with its instructions and demonstrations in place.

    Raises SignatureError and InvalidParamsError.
    """
    kind = _MODULES[spec.module]
    kind.options(spec.options, f"options of {spec.module}")
    _check_fields(spec, kind.own_fields)
    arguments: dict[str, Any] = dict(spec.options)
    if kind.has_tools:
        arguments["tools"] = [make_tool(tool) for tool in _checked_tools(spec.tools)]
    elif spec.tools:
        raise InvalidParamsError(
            f"the module {spec.module} takes no tools: those that do are "
            f"{', '.join(name for name, other in _MODULES.items() if other.has_tools)}",
            data={"param": "tools"},
        )
    module = kind.make(_signature(spec.signature), **arguments)
    input_names = [item.name for item in spec.signature.inputs]
    for name, predictor in module.named_predictors():
        state = spec.predictors.get(name)
        demos = spec.demos if state is None else state.demos
        predictor.demos = [_example(demo, input_names) for demo in demos]
        if state is not None and state.instructions is not None:
            predictor.signature = predictor.signature.with_instructions(state.instructions)
    return module


def _check_fields(spec: ProgramSpec, own: tuple[str, ...]) -> None:
    for item in (*spec.signature.inputs, *spec.signature.outputs):
        if item.name in own:
            raise SignatureError(
                f"the module {spec.module} has a field {item.name!r} of its own: "
                "rename this one, or leave it out of the signature",
                data={"field": item.name},
            )


def _checked_tools(tools: tuple[ToolSpec, ...]) -> tuple[ToolSpec, ...]:
    names: set[str] = set()
    for tool in tools:
        if tool.name in names or tool.name == "finish" or not tool.name.isidentifier():
            raise InvalidParamsError(
                f"tools: {tool.name!r} cannot be the name of a tool: names are identifiers, each "
                "one once, and 'finish' is the module's own",
                data={"param": "tools"},
            )
        names.add(tool.name)
    return tools


def predictors_of(module: dspy.Module, input_names: set[str]) -> dict[str, Predictor]:
    """The instructions and demonstrations of every predictor, by its name in the module."""
    return {
        name: Predictor(
            instructions=predictor.signature.instructions,
            demos=tuple(_demo(example, input_names) for example in predictor.demos),
        )
        for name, predictor in module.named_predictors()
    }


def _signature(spec: SignatureSpec) -> type[dspy.Signature]:
    # Never from text: DSPy's own parser of strings imports modules by name.
    fields: dict[str, Any] = {
        **{
            item.name: (annotation(item.type), _field(item, dspy.InputField))
            for item in spec.inputs
        },
        **{
            item.name: (annotation(item.type), _field(item, dspy.OutputField))
            for item in spec.outputs
        },
    }
    name = (spec.name or "Signature").rpartition(".")[2]
    signature: type[dspy.Signature] = dspy.Signature(fields, spec.instructions, signature_name=name)
    return signature


def _field(item: Field, make: Callable[..., Any]) -> Any:
    field = make() if item.description is None else make(desc=item.description)
    # Told to the LM here, enforced by the converters. DSPy writes such a line itself, for the
    # constraints that a field of its own declares.
    constraints = prompt_constraints(item)
    if constraints is not None:
        field.json_schema_extra["constraints"] = constraints
    return field


def _example(demo: Demo, input_names: list[str]) -> dspy.Example:
    example = dspy.Example(**demo.inputs, **demo.outputs, **demo.flags)
    return example.with_inputs(*input_names)


def _demo(example: Any, input_names: set[str]) -> Demo:
    values = dict(example.items())
    flags = {key: values.pop(key) for key in ("augmented",) if key in values}
    return Demo(
        inputs={key: value for key, value in values.items() if key in input_names},
        outputs={key: value for key, value in values.items() if key not in input_names},
        flags=flags,
    )
