"""DSPy modules from specifications, and one run of one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import InvalidParamsError, SignatureError

from dspex_bridge.programs.signatures import annotation, prompt_constraints
from dspex_bridge.programs.spec import Demo, Predictor

from .metering import METER_SETTING, Meter
from .streaming import STREAM_SETTING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_protocol.signatures import Field, SignatureSpec

    from dspex_bridge.programs.spec import ProgramSpec

    from .adapters import Adapter
    from .lms import LM
    from .streaming import FieldStream

__all__ = ["Run", "build_module", "predictors_of"]

_MODULES: dict[str, Callable[..., dspy.Module]] = {
    "predict": dspy.Predict,
    "chain_of_thought": dspy.ChainOfThought,
}


def build_module(spec: ProgramSpec) -> dspy.Module:
    """The module of a specification, with its instructions and demonstrations in place."""
    if spec.options:
        raise InvalidParamsError(
            f"the module {spec.module} takes no options, got: {', '.join(spec.options)}",
            data={"param": "options"},
        )
    extra = next((f for f in spec.signature.outputs if f.name in spec.extra_outputs), None)
    if extra is not None:
        raise SignatureError(
            f"the module {spec.module} makes the output {extra.name!r} itself: "
            "rename this field, or leave it out of the signature",
            data={"field": extra.name},
        )
    module = _MODULES[spec.module](_signature(spec.signature))
    input_names = [item.name for item in spec.signature.inputs]
    for name, predictor in module.named_predictors():
        state = spec.predictors.get(name)
        demos = spec.demos if state is None else state.demos
        predictor.demos = [_example(demo, input_names) for demo in demos]
        if state is not None and state.instructions is not None:
            predictor.signature = predictor.signature.with_instructions(state.instructions)
    return module


def predictors_of(module: dspy.Module, input_names: set[str]) -> dict[str, Predictor]:
    """The instructions and demonstrations of every predictor, by its name in the module."""
    return {
        name: Predictor(
            instructions=predictor.signature.instructions,
            demos=tuple(_demo(example, input_names) for example in predictor.demos),
        )
        for name, predictor in module.named_predictors()
    }


class Run:
    """One run of a module on inputs. `meter` counts its LM calls, whatever comes of it."""

    def __init__(
        self,
        module: dspy.Module,
        inputs: Mapping[str, Any],
        *,
        lm: LM,
        adapter: Adapter,
        config: Mapping[str, Any],
        stream: FieldStream | None,
    ) -> None:
        self.lm = lm
        self.meter = Meter()
        self._module = module
        self._inputs = inputs
        self._adapter = adapter
        self._config = config
        self._stream = stream

    async def prediction(self) -> dict[str, Any]:
        """The outputs, as DSPy's adapter parsed them."""
        with dspy.context(
            lm=self.lm.copy(**self._config) if self._config else self.lm,
            adapter=self._adapter,
            trace=[],
            disable_history=True,
            callbacks=[],
            send_stream=self._stream,
            **{METER_SETTING: self.meter, STREAM_SETTING: self._stream},
        ):
            prediction = dict((await self._module.acall(**self._inputs)).items())
        if self._stream is not None:
            self._stream.finish(prediction)
        return prediction


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
