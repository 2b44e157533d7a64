"""Examples from the wire as DSPy's."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dspy

from dspex_bridge.programs.converters import InputConverter, OutputConverter

if TYPE_CHECKING:
    from dspex_bridge.programs.spec import ProgramSpec

__all__ = ["to_examples"]


def to_examples(spec: ProgramSpec, examples: list[dict[str, Any]]) -> list[dspy.Example]:
    """Examples whose values are as the program takes and gives them.

    An example may leave outputs out. What it has beyond them stays as it is: a metric may want it.
    """
    return [_to_example(spec, example["inputs"], example["outputs"]) for example in examples]


def _to_example(spec: ProgramSpec, inputs: dict[str, Any], outputs: dict[str, Any]) -> dspy.Example:
    labelled = tuple(item for item in spec.signature.outputs if item.name in outputs)
    converter = OutputConverter(replace(spec.signature, outputs=labelled))
    labels = converter.convert({item.name: outputs[item.name] for item in labelled})
    values = {**outputs, **labels, **InputConverter(spec.signature).convert(inputs)}
    return dspy.Example(**values).with_inputs(*(item.name for item in spec.signature.inputs))
