"""Pipelines: steps whose inputs come from the program's inputs and from one another.

An input of a step comes from where `from` says; else from the latest earlier step that has an
output of its name; else from the program's input of its name; else it has a default.
"""

from __future__ import annotations

import keyword
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from dspex_protocol.errors import SignatureError
from dspex_protocol.signatures import MAX_FIELDS, MISSING, Field, signature_from_map
from dspex_protocol.spelling import did_you_mean

from .fitting import fits
from .spec import PipelineSpec, Step

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dspex_protocol.signature_size import SignatureSize
    from dspex_protocol.signatures import SignatureSpec
    from dspex_protocol.types import Type

    from .spec import ProgramSpec

__all__ = ["UnlinkedStep", "link", "pipeline_map"]

_STEP_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

# A signature has to have outputs; those of a pipeline are known once its steps are linked.
_NO_OUTPUTS = [{"name": "dspex_output", "type": "any"}]


class UnlinkedStep(NamedTuple):
    """A step as it was written: `given` is its `from`."""

    name: str
    program: ProgramSpec
    given: Mapping[str, str]


def link(
    inputs: Sequence[Mapping[str, Any]],
    steps: Sequence[UnlinkedStep],
    outputs: Sequence[str],
    size: SignatureSize,
) -> tuple[PipelineSpec, SignatureSpec]:
    """The pipeline with its links made, and its signature; `size` is that of its steps. Raises
    SignatureError."""
    own = signature_from_map({"inputs": list(inputs), "outputs": _NO_OUTPUTS}, size).inputs
    if len(outputs) > MAX_FIELDS:
        raise SignatureError(
            f"a signature has at most {MAX_FIELDS} outputs, this one has {len(outputs)}",
            data={"path": ["outputs"]},
        )
    if not steps:
        raise SignatureError("a pipeline has at least one step", data={"path": ["steps"]})
    linker = _Linker(own)
    linked = tuple(linker.add(index, step) for index, step in enumerate(steps))
    fields = [linker.output(index, output) for index, output in enumerate(outputs)]
    # Again as a whole: names are distinct over both sides.
    signature = signature_from_map(
        {"inputs": list(inputs), "outputs": [field.to_map() for field in fields]}
    )
    return PipelineSpec(linked, tuple(outputs)), signature


class _Linker:
    """Goes through the steps in order and knows what there is so far."""

    def __init__(self, inputs: Sequence[Field]) -> None:
        self._inputs: dict[str, Type] = {item.name: item.type for item in inputs}
        self._steps: dict[str, ProgramSpec] = {}

    def add(self, index: int, step: UnlinkedStep) -> Step:
        self._check_name(index, step.name)
        fields = {item.name: item for item in step.program.signature.inputs}
        for name in step.given:
            if name not in fields:
                raise _wrong(
                    index,
                    f"step {step.name!r} has no input {name!r}{did_you_mean(name, fields)}; "
                    f"its inputs are {', '.join(fields)}",
                    input=name,
                )
        sources = {}
        for name, field in fields.items():
            source = step.given[name] if name in step.given else self._found(name)
            if source is not None:
                self._check_link(index, step, field, source)
                sources[name] = source
            elif field.default is MISSING:
                raise _wrong(
                    index,
                    f"the input {name!r} of step {step.name!r} is open: no earlier step has an "
                    f"output {name!r} and the pipeline has no such input"
                    f"{did_you_mean(name, self._known())}; say where it comes from in 'from'",
                    input=name,
                )
        self._steps[step.name] = step.program
        return Step(step.name, step.program, sources)

    def output(self, index: int, output: str) -> Field:
        """The field of the pipeline's signature for one of its outputs."""
        step, dot, name = output.partition(".")
        program = self._steps.get(step)
        if not dot or program is None or name not in program.output_types:
            known = [known for known in self._known() if "." in known]
            raise SignatureError(
                f"outputs[{index}]: there is no {output!r}{did_you_mean(output, known)}; an output "
                f"is 'step.field', one of {', '.join(known)}",
                data={"path": ["outputs", index]},
            )
        for item in program.signature.outputs:
            if item.name == name:
                return item
        return Field(name, program.output_types[name])

    def _check_name(self, index: int, name: str) -> None:
        if not _STEP_NAME.fullmatch(name) or keyword.iskeyword(name):
            raise _wrong(index, f"{name!r} is no name of a step; use ASCII letters, digits and '_'")
        if name in self._steps:
            raise _wrong(index, f"there are two steps {name!r}; names are distinct")

    def _found(self, name: str) -> str | None:
        for step, program in reversed(self._steps.items()):
            if any(item.name == name for item in program.signature.outputs):
                return f"{step}.{name}"
        return name if name in self._inputs else None

    def _check_link(self, index: int, step: UnlinkedStep, field: Field, source: str) -> None:
        owner, dot, name = source.partition(".")
        program = self._steps.get(owner) if dot else None
        given = (program.output_types if program is not None else {}).get(name)
        given = given if dot else self._inputs.get(source)
        if given is None:
            raise _wrong(
                index,
                f"the input {field.name!r} of step {step.name!r} is to come from {source!r}, which "
                f"is no input of the pipeline and no output of an earlier step"
                f"{did_you_mean(source, self._known())}; there are {', '.join(self._known())}",
                input=field.name,
                source=source,
            )
        if not fits(given, field.type):
            raise _wrong(
                index,
                f"the input {field.name!r} of step {step.name!r} is of the type '{field.type}' and "
                f"comes from {source!r}, which is of the type '{given}'",
                input=field.name,
                source=source,
            )

    def _known(self) -> list[str]:
        """Everything that a step can take, as `from` names it."""
        return [
            *self._inputs,
            *(f"{step}.{name}" for step, spec in self._steps.items() for name in spec.output_types),
        ]


def _wrong(index: int, message: str, **data: str) -> SignatureError:
    return SignatureError(f"steps[{index}]: {message}", data={"path": ["steps", index], **data})


def pipeline_map(spec: ProgramSpec) -> dict[str, Any]:
    """The steps and outputs of a pipeline as `create` takes them, every link said; else nothing."""
    if spec.pipeline is None:
        return {}
    return {
        "steps": [_step_map(step) for step in spec.pipeline.steps],
        "outputs": list(spec.pipeline.outputs),
    }


def _step_map(step: Step) -> dict[str, Any]:
    program = step.program
    return {
        "name": step.name,
        "signature": program.signature.to_map(),
        "module": program.module,
        "options": dict(program.options),
        "tools": [tool.to_map() for tool in program.tools],
        "demos": [demo.to_map() for demo in program.demos],
        "from": dict(step.sources),
    }
