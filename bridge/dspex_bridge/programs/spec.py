"""What a program is: everything that is needed to make it again, and nothing that runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dspex_protocol.signatures import Field, SignatureSpec, signature_from_map

__all__ = ["EXTRA_OUTPUTS", "Demo", "Predictor", "ProgramSpec", "ToolSpec"]

# Outputs that a module makes beside those of the signature.
EXTRA_OUTPUTS: dict[str, tuple[str, ...]] = {
    "chain_of_thought": ("reasoning",),
    "react": ("reasoning", "trajectory"),
}

# A tool's parameters are the inputs of a signature; this stands for its other side.
_RESULT = {"name": "result", "type": "any"}


@dataclass(frozen=True, slots=True)
class Demo:
    """One demonstration: values of some or all fields. `flags` are DSPy's own marks on it
    (`augmented`: made by an optimizer)."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    flags: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """A tool of the client's. Its parameters are fields, or a JSON Schema of an object."""

    name: str
    description: str
    fields: tuple[Field, ...] = ()
    schema: Mapping[str, Any] | None = None

    @classmethod
    def from_map(cls, tool: Mapping[str, Any]) -> ToolSpec:
        """Raises SignatureError for parameters that are none."""
        parameters = tool["parameters"]
        if isinstance(parameters, Mapping):
            return cls(tool["name"], tool["description"], schema=parameters)
        if not parameters:
            return cls(tool["name"], tool["description"])
        signature = signature_from_map({"inputs": parameters, "outputs": [_RESULT]})
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

    `demos` are for every predictor that `predictors` does not name.
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

    @property
    def extra_outputs(self) -> tuple[str, ...]:
        return EXTRA_OUTPUTS.get(self.module, ())
