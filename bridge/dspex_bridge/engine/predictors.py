"""The predictors of a module: their instructions and demonstrations, in and out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy

from dspex_bridge.programs.spec import Demo, Predictor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["fill_predictors", "predictors_of"]


def fill_predictors(
    module: dspy.Module, demos: Sequence[Demo] | None, states: Mapping[str, Predictor]
) -> None:
    """Gives every predictor its state; one that has none gets `demos`, or keeps its own."""
    for name, predictor in module.named_predictors():
        if "prediction" in predictor.signature.input_fields:
            predictor.__class__ = _Predict
        state = states.get(name)
        given = demos if state is None else state.demos
        if given is not None:
            predictor.demos = [_example(demo) for demo in given]
        if state is not None and state.instructions is not None:
            predictor.signature = predictor.signature.with_instructions(state.instructions)


def predictors_of(module: dspy.Module) -> dict[str, Predictor]:
    """The instructions and demonstrations of every predictor, by its name in the module."""
    return {
        name: Predictor(
            instructions=predictor.signature.instructions,
            demos=tuple(
                _demo(example, predictor.signature.input_fields) for example in predictor.demos
            ),
        )
        for name, predictor in module.named_predictors()
    }


class _Predict(dspy.Predict):  # type: ignore[misc]  # dspy ships no types
    """DSPy takes an input named `prediction` that is {type: "content", content} for OpenAI's
    parameter of that name. Here it is an input, whatever is in it."""

    def _forward_preprocess(self, **inputs: Any) -> Any:
        given = "prediction" in inputs
        value = inputs.get("prediction")
        if given:
            inputs["prediction"] = None
        lm, config, signature, demos, kept = super()._forward_preprocess(**inputs)
        return lm, config, signature, demos, {**kept, "prediction": value} if given else kept


def _example(demo: Demo) -> dspy.Example:
    example = dspy.Example(**demo.inputs, **demo.outputs, **demo.flags)
    return example.with_inputs(*demo.inputs)


def _demo(example: Any, input_names: Mapping[str, Any]) -> Demo:
    values = dict(example.items())
    flags = {key: values.pop(key) for key in ("augmented",) if key in values}
    return Demo(
        inputs={key: value for key, value in values.items() if key in input_names},
        outputs={key: value for key, value in values.items() if key not in input_names},
        flags=flags,
    )
