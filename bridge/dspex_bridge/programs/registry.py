"""The programs of one bridge, by id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import (
    AlreadyExistsError,
    InputValidationError,
    NotFoundError,
    OutputValidationError,
    ValidationError,
)
from dspex_protocol.signatures import signature_from_wire

from dspex_bridge.params import suggest

from . import bundles
from .converters import InputConverter, OutputConverter
from .signatures import input_schema, output_schema
from .spec import Demo, ProgramSpec, ToolSpec
from .wire_values import to_wire

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dspex_bridge.engine import Engine

__all__ = ["Program", "Registry"]


@dataclass(slots=True)
class Program:
    """A program that can run: its specification and what was built from it."""

    id: str
    spec: ProgramSpec
    revision: int
    module: Any
    inputs: InputConverter
    outputs: OutputConverter
    executions: int = 0
    errors: int = 0

    def created(self) -> dict[str, Any]:
        """The answer to `create` and `load`."""
        return {
            "program": self.id,
            "signature": self.spec.signature.to_map(),
            "module": self.spec.module,
            "input_schema": input_schema(self.spec.signature),
            "output_schema": output_schema(self.spec.signature),
            "revision": self.revision,
        }

    def converted(self, prediction: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of a run as they go on the wire, the module's own ones included."""
        names = {item.name for item in self.spec.signature.outputs}
        own = {name: value for name, value in prediction.items() if name in names}
        extra = {
            name: to_wire(prediction[name])
            for name in self.spec.extra_outputs
            if name in prediction
        }
        return {**extra, **_sendable(self.outputs.convert(own))}

    def listed(self) -> dict[str, Any]:
        return {
            "program": self.id,
            "module": self.spec.module,
            "signature": self.spec.signature.to_string(),
            "revision": self.revision,
            "executions": self.executions,
        }


class Registry:
    """Used on the event loop's thread only. What is refused leaves it as it was."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._programs: dict[str, Program] = {}

    def __len__(self) -> int:
        return len(self._programs)

    def create(self, params: Mapping[str, Any]) -> Program:
        """Makes and registers a program from the parameters of `create`."""
        spec = _spec(params)
        self._engine.require_lm(spec.lm)
        return self._register(spec, params.get("program"), bool(params.get("replace")))

    def load(self, params: Mapping[str, Any]) -> Program:
        """Makes and registers a program from the parameters of `load`."""
        spec = bundles.load(params["state"])
        return self._register(spec, params.get("program"), bool(params.get("replace")))

    def inline(self, params: Mapping[str, Any]) -> Program:
        """A program for one execution, registered nowhere."""
        spec = _spec(params)
        self._engine.require_lm(spec.lm)
        return self._build("(inline)", spec, revision=1)

    def get(self, program_id: str) -> Program:
        program = self._programs.get(program_id)
        if program is None:
            raise NotFoundError(
                f"there is no program {program_id!r}.{suggest(program_id, self._programs)}",
                data={"kind": "program", "name": program_id},
            )
        return program

    def list(self, prefix: str) -> list[Program]:
        return [program for name, program in self._programs.items() if name.startswith(prefix)]

    def delete(self, program_id: str) -> None:
        """Forgets a program. Work in flight on it has what it needs and finishes."""
        self.get(program_id)
        del self._programs[program_id]

    def dump(self, program_id: str) -> dict[str, Any]:
        program = self.get(program_id)
        predictors = self._engine.predictors(program.spec, program.module)
        return bundles.dump(replace(program.spec, predictors=predictors))

    def describe(self, program_id: str) -> dict[str, Any]:
        program = self.get(program_id)
        predictors = self._engine.predictors(program.spec, program.module)
        # A program of one predictor has its instructions and demonstrations; of several, the
        # first one's instructions say the most.
        first = next(iter(predictors.values()))
        return {
            **program.created(),
            "instructions": first.instructions,
            "demos": [
                {"inputs": dict(demo.inputs), "outputs": dict(demo.outputs)} for demo in first.demos
            ],
            "lm": program.spec.lm,
            "adapter": program.spec.adapter,
            "config": dict(program.spec.config),
            "tools": [tool.to_map() for tool in program.spec.tools],
            "variables": {},
            "counters": {"executions": program.executions, "errors": program.errors},
            "base_program": None,
        }

    def _register(self, spec: ProgramSpec, program_id: str | None, may_replace: bool) -> Program:
        known = None if program_id is None else self._programs.get(program_id)
        if known is not None and not may_replace:
            raise AlreadyExistsError(
                f"there is a program {program_id!r} already: choose another id, or say replace"
            )
        revision = 1 if known is None else known.revision + 1
        program = self._build(program_id or self._new_id(), spec, revision)
        self._programs[program.id] = program
        return program

    def _build(self, program_id: str, spec: ProgramSpec, revision: int) -> Program:
        inputs = InputConverter(spec.signature)
        outputs = OutputConverter(spec.signature)
        spec = replace(
            spec,
            demos=tuple(_checked(demo, index, spec) for index, demo in enumerate(spec.demos)),
        )
        return Program(
            id=program_id,
            spec=spec,
            revision=revision,
            module=self._engine.build(spec),
            inputs=inputs,
            outputs=outputs,
        )

    def _new_id(self) -> str:
        while (name := f"program-{token_hex(4)}") in self._programs:
            pass
        return name


def _sendable(outputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs, none of which has text that no UTF-8 can hold: an LM's JSON may escape half a
    character (\\ud83d)."""
    errors = [
        {
            "path": [name],
            "type": "type",
            "message": "the text has half a surrogate pair, which is no Unicode",
            "expected": "valid Unicode text",
            "got": ascii(value)[:80],
        }
        for name, value in outputs.items()
        if isinstance(value, str) and not _is_unicode(value)
    ]
    if errors:
        names = ", ".join(str(error["path"][0]) for error in errors)
        raise OutputValidationError(
            f"half a surrogate pair in the outputs: {names}", data={"errors": errors}
        )
    return outputs


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _spec(params: Mapping[str, Any]) -> ProgramSpec:
    signature = signature_from_wire(params["signature"])
    if params.get("instructions") is not None:
        signature = replace(signature, instructions=params["instructions"])
    return ProgramSpec(
        signature=signature,
        module=params.get("module") or "predict",
        options=params.get("options") or {},
        lm=params.get("lm"),
        adapter=params.get("adapter"),
        config=params.get("config") or {},
        demos=tuple(
            Demo(inputs=demo["inputs"], outputs=demo["outputs"])
            for demo in params.get("demos") or ()
        ),
        tools=tuple(ToolSpec.from_map(tool) for tool in params.get("tools") or ()),
    )


def _checked(demo: Demo, index: int, spec: ProgramSpec) -> Demo:
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
            item["path"] = ["demos", index, side, *item["path"]]
        raise InputValidationError(f"demos[{index}]: {error}", data=error.data) from error
