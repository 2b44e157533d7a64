"""What a program is: everything that is needed to make it again, and nothing that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dspex_protocol.grammar import parse_type
from dspex_protocol.signatures import Field, SignatureSpec, signature_from_map

from .wire_values import to_wire

if TYPE_CHECKING:
    from dspex_protocol.signature_size import SignatureSize
    from dspex_protocol.types import Type

__all__ = [
    "ENSEMBLE",
    "EXTRA_OUTPUTS",
    "PIPELINE",
    "Demo",
    "EnsembleSpec",
    "PipelineSpec",
    "Predictor",
    "ProgramSpec",
    "Step",
    "ToolSpec",
]

# What these are called where the other programs have the name of their module.
PIPELINE = "pipeline"
ENSEMBLE = "ensemble"

# Outputs that a module makes beside those of the signature, with their types.
EXTRA_OUTPUTS: dict[str, dict[str, str]] = {
    "chain_of_thought": {"reasoning": "str"},
    "react": {"reasoning": "str", "trajectory": "dict"},
    "react_v2": {"termination_reason": "str", "history": "list"},
    "multi_chain_comparison": {"rationale": "str"},
    "program_of_thought": {"reasoning": "str"},
    "code_act": {"reasoning": "str", "trajectory": "dict"},
    "rlm": {"final_reasoning": "str", "trajectory": "list"},
}

# Modules around another one, which is their option `module`: what they make, it makes.
_AROUND = frozenset({"best_of_n", "refine", "knn"})

# A tool's parameters are the inputs of a signature; this stands for its other side.
_RESULT = {"name": "result", "type": "any"}


@dataclass(frozen=True, slots=True)
class Demo:
    """One demonstration: values of some or all fields. `flags` are DSPy's own marks on it
    (`augmented`: made by an optimizer)."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    flags: Mapping[str, Any] = field(default_factory=dict)

    def to_map(self) -> dict[str, Any]:
        """As `create` takes it: without the marks."""
        return {"inputs": to_wire(dict(self.inputs)), "outputs": to_wire(dict(self.outputs))}


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool of the client's. Its parameters are fields, or a JSON Schema of an object."""

    name: str
    description: str
    fields: tuple[Field, ...] = ()
    schema: Mapping[str, Any] | None = None

    @classmethod
    def from_map(cls, tool: Mapping[str, Any], size: SignatureSize) -> ToolSpec:
        """Raises SignatureError for parameters that are none; `size` counts them."""
        parameters = tool["parameters"]
        if isinstance(parameters, Mapping):
            return cls(tool["name"], tool["description"], schema=parameters)
        if not parameters:
            return cls(tool["name"], tool["description"])
        signature = signature_from_map({"inputs": parameters, "outputs": [_RESULT]}, size)
        return cls(tool["name"], tool["description"], fields=signature.inputs)

    def to_map(self) -> dict[str, Any]:
        parameters = self.schema if self.schema is not None else [f.to_map() for f in self.fields]
        return {"name": self.name, "description": self.description, "parameters": parameters}

    def signature(self) -> SignatureSpec | None:
        """The parameters as the inputs of a signature; None where there are none, or a schema."""
        return (
            SignatureSpec(inputs=self.fields, outputs=(Field("result"),)) if self.fields else None
        )


@dataclass(frozen=True, slots=True)
class Predictor:
    """What an optimizer may have changed in one predictor of the module."""

    instructions: str | None
    demos: tuple[Demo, ...]


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """A program as data. `lm` and `adapter` are names, None for the default ones.

    `demos` are for every predictor that `predictors` does not name. Of a pipeline the signature is
    its own, the module `PIPELINE`, and options, demos and tools are in its steps; of an ensemble
    the module is `ENSEMBLE`, and all of these, and the signature, are its programs'.
    """

    signature: SignatureSpec
    module: str = "predict"
    options: Mapping[str, Any] = field(default_factory=dict)
    lm: str | None = None
    adapter: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    demos: tuple[Demo, ...] = ()
    tools: tuple[ToolSpec, ...] = ()
    predictors: Mapping[str, Predictor] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, Any] = field(default_factory=dict)
    # Which optimizer made it of which program, and what that gained; empty where none did.
    lineage: Mapping[str, Any] = field(default_factory=dict)

    pipeline: PipelineSpec | None = None
    ensemble: EnsembleSpec | None = None

    @property
    def extra_outputs(self) -> tuple[str, ...]:
        return tuple(self._extra_types())

    @property
    def output_types(self) -> dict[str, Type]:
        """The types of all outputs, the module's own ones included."""
        own = {name: parse_type(type_) for name, type_ in self._extra_types().items()}
        return {**{item.name: item.type for item in self.signature.outputs}, **own}

    @property
    def streamable(self) -> list[str]:
        """The outputs that can be streamed; of a pipeline those of every step."""
        names = [item.name for item in self.signature.outputs]
        if self.pipeline is None:
            return [*names, *self.extra_outputs]
        return names + [
            f"{step.name}.{field}"
            for step in self.pipeline.steps
            for field in step.program.output_types
        ]

    def _extra_types(self) -> dict[str, str]:
        module = self.module
        if module in _AROUND:
            module = self.options.get("module") or "predict"
        return EXTRA_OUTPUTS.get(module, {})


@dataclass(frozen=True, slots=True)
class Step:
    """One program of a pipeline. `sources` says where its inputs come from: a `field` of the
    pipeline's inputs or `step.field`; inputs that are not in it have their default."""

    name: str
    program: ProgramSpec
    sources: Mapping[str, str]

    @property
    def needs(self) -> frozenset[str]:
        """The names of the steps that go before this one."""
        return frozenset(
            source.partition(".")[0] for source in self.sources.values() if "." in source
        )


@dataclass(frozen=True, slots=True)
class EnsembleSpec:
    """Programs that answer together, or `size` of them, drawn anew for each execution. `reduce` is
    how one answer comes of theirs: `majority`, for each output by itself."""

    programs: tuple[ProgramSpec, ...]
    reduce: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """Steps, each after those that it needs, and the outputs among theirs: `step.field`."""

    steps: tuple[Step, ...]
    outputs: tuple[str, ...]

    @property
    def step_names(self) -> tuple[str, ...]:
        return tuple(step.name for step in self.steps)
