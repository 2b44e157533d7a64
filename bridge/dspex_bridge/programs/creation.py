"""The specification of a program from the parameters of `create`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import InputValidationError, ValidationError
from dspex_protocol.signature_size import SignatureSize
from dspex_protocol.signatures import signature_from_wire

from dspex_bridge.variables import check_variables

from .converters import InputConverter, OutputConverter
from .pipelines import UnlinkedStep, link
from .spec import PIPELINE, Demo, ProgramSpec, ToolSpec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["check_examples", "checked", "program_spec"]


def program_spec(params: Mapping[str, Any]) -> ProgramSpec:
    """Raises SignatureError, and InputValidationError for a demonstration that does not fit."""
    shared: dict[str, Any] = {
        "lm": params.get("lm"),
        "adapter": params.get("adapter"),
        "config": params.get("config") or {},
        "limits": params.get("limits") or {},
        "variables": params.get("variables") or {},
    }
    names = tuple(step["name"] for step in params.get("steps") or ())
    check_variables(shared["variables"], "variables", names)
    # Of all signatures in the request: what they cost to build is the loop's time.
    size = SignatureSize()
    if "steps" in params:
        steps = [
            UnlinkedStep(step["name"], _module(step, size), step.get("from") or {})
            for step in params["steps"]
        ]
        pipeline, signature = link(params["inputs"], steps, params["outputs"], size)
        return ProgramSpec(signature=signature, module=PIPELINE, pipeline=pipeline, **shared)
    return replace(_module(params, size), **shared)


def checked(spec: ProgramSpec, path: tuple[str | int, ...] = ()) -> ProgramSpec:
    """The specification with the values of its demonstrations converted, also those of its steps.

    Raises InputValidationError; `path` says where in the parameters the specification stands.
    """
    if spec.ensemble is not None:
        programs = tuple(
            checked(program, (*path, "programs", index))
            for index, program in enumerate(spec.ensemble.programs)
        )
        return replace(spec, ensemble=replace(spec.ensemble, programs=programs))
    demos = tuple(
        _checked_demo(demo, spec, (*path, "demos", index)) for index, demo in enumerate(spec.demos)
    )
    if spec.pipeline is None:
        return replace(spec, demos=demos)
    steps = tuple(
        replace(step, program=checked(step.program, (*path, "steps", index)))
        for index, step in enumerate(spec.pipeline.steps)
    )
    return replace(spec, demos=demos, pipeline=replace(spec.pipeline, steps=steps))


def check_examples(spec: ProgramSpec, examples: Sequence[Mapping[str, Any]], where: str) -> None:
    """Raises InputValidationError where an example's inputs are not the program's, or one of its
    outputs is not of the program's type. Outputs that the program has not are the metric's."""
    inputs = InputConverter(spec.signature)
    for index, example in enumerate(examples):
        labelled = tuple(item for item in spec.signature.outputs if item.name in example["outputs"])
        try:
            inputs.convert(example["inputs"])
            OutputConverter(replace(spec.signature, outputs=labelled)).convert(
                {item.name: example["outputs"][item.name] for item in labelled}
            )
        except ValidationError as error:
            side = "inputs" if isinstance(error, InputValidationError) else "outputs"
            for item in error.data["errors"]:
                item["path"] = [where, index, side, *item["path"]]
            raise InputValidationError(f"{where}[{index}]: {error}", data=error.data) from error


def _module(params: Mapping[str, Any], size: SignatureSize) -> ProgramSpec:
    signature = signature_from_wire(params["signature"], size)
    if params.get("instructions") is not None:
        signature = replace(signature, instructions=params["instructions"])
    return ProgramSpec(
        signature=signature,
        module=params.get("module") or "predict",
        options=params.get("options") or {},
        demos=tuple(
            Demo(inputs=demo["inputs"], outputs=demo["outputs"])
            for demo in params.get("demos") or ()
        ),
        tools=tuple(ToolSpec.from_map(tool, size) for tool in params.get("tools") or ()),
    )


def _checked_demo(demo: Demo, spec: ProgramSpec, path: tuple[str | int, ...]) -> Demo:
    """A demonstration with its values converted. It may leave fields out, but not add any."""
    extra = {k: v for k, v in demo.outputs.items() if k in spec.extra_outputs}
    own = {k: v for k, v in demo.outputs.items() if k not in spec.extra_outputs}
    signature = replace(
        spec.signature,
        inputs=tuple(item for item in spec.signature.inputs if item.name in demo.inputs),
        outputs=tuple(item for item in spec.signature.outputs if item.name in own),
    )
    try:
        return replace(
            demo,
            inputs=InputConverter(signature).convert(demo.inputs),
            outputs={**OutputConverter(signature).convert(own), **extra},
        )
    except ValidationError as error:
        side = "inputs" if isinstance(error, InputValidationError) else "outputs"
        for item in error.data["errors"]:
            item["path"] = [*path, side, *item["path"]]
        where = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        raise InputValidationError(f"{where}: {error}", data=error.data) from error
