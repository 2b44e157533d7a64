"""What a program is: everything that is needed to make it again, and nothing that runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_protocol.signatures import SignatureSpec

__all__ = ["EXTRA_OUTPUTS", "Demo", "Predictor", "ProgramSpec"]

# Outputs that a module makes beside those of the signature: name -> type string.
EXTRA_OUTPUTS: dict[str, dict[str, str]] = {"chain_of_thought": {"reasoning": "str"}}


@dataclass(frozen=True, slots=True)
class Demo:
    """One demonstration: values of some or all fields. `flags` are DSPy's own marks on it
    (`augmented`: made by an optimizer)."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    flags: Mapping[str, Any] = field(default_factory=dict)


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
    predictors: Mapping[str, Predictor] = field(default_factory=dict)

    @property
    def extra_outputs(self) -> Mapping[str, str]:
        return EXTRA_OUTPUTS.get(self.module, {})
