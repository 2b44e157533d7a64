"""DSPy's signature classes from our own specifications."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from dspex_bridge.engine.dspy_types import check_history
from dspex_bridge.programs.annotations import annotation
from dspex_bridge.programs.signatures import prompt_constraints

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_protocol.signatures import Field, SignatureSpec

__all__ = ["make_signature"]


def make_signature(spec: SignatureSpec) -> type[dspy.Signature]:
    """Raises SignatureError for a type that the engine has no class for."""
    check_history(spec)
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
