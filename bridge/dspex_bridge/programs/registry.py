"""The programs of one bridge, by id."""

from __future__ import annotations

from dataclasses import dataclass, replace
from secrets import token_hex
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import (
    AlreadyExistsError,
    NotFoundError,
)
from dspex_protocol.spelling import suggestion

from dspex_bridge.limits import Limits, limits_of
from dspex_bridge.params import one_of

from . import bundles
from .converters import InputConverter
from .creation import check_examples, checked, program_spec
from .pipelines import pipeline_map
from .results import ResultConverter
from .signatures import input_schema, output_schema
from .spec import Predictor, ProgramSpec
from .variants import variant

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

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
    results: ResultConverter
    # Those that it was made with, if any; what is spent counts for this revision.
    limits: list[Limits]
    # That of which an optimizer made this one.
    base_program: str | None = None
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
        return self.results.convert(prediction)

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
        # Ids of programs that are being made, each as long as this is true of it.
        self._promised: dict[str, Callable[[], bool]] = {}

    def __len__(self) -> int:
        return len(self._programs)

    def create(self, params: Mapping[str, Any]) -> Program:
        """Makes and registers a program from the parameters of `create`."""
        spec = program_spec(params)
        self._engine.require_lm(spec.lm)
        return self._register(spec, params.get("program"), bool(params.get("replace")))

    def load(self, params: Mapping[str, Any]) -> Program:
        """Makes and registers a program from the parameters of `load`."""
        spec = bundles.load(params["state"])
        return self._register(spec, params.get("program"), bool(params.get("replace")))

    def inline(self, params: Mapping[str, Any]) -> Program:
        """A program for one execution, registered nowhere."""
        spec = program_spec(params)
        self._engine.require_lm(spec.lm)
        return self._build("(inline)", spec, revision=1)

    def get(self, program_id: str) -> Program:
        program = self._programs.get(program_id)
        if program is None:
            raise NotFoundError(
                f"there is no program {program_id!r}.{suggestion(program_id, self._programs)}",
                data={"kind": "program", "name": program_id},
            )
        return program

    def list(self, prefix: str) -> list[Program]:
        return [program for name, program in self._programs.items() if name.startswith(prefix)]

    def delete(self, program_id: str) -> None:
        """Forgets a program. Work in flight on it has what it needs and finishes."""
        self.get(program_id)
        del self._programs[program_id]

    def promise(self, program_id: str | None, is_wanted: Callable[[], bool]) -> str:
        """An id for `derive`: this one, or a new one. Nobody else gets it before that, as long as
        it is wanted. Raises AlreadyExistsError."""
        promised = program_id or self._new_id()
        self._require_free(promised)
        self._promised[promised] = is_wanted
        return promised

    def derive(self, state: Mapping[str, Any], promised: str, base: Program) -> Program:
        """Registers what an optimizer made of `base`."""
        self._promised.pop(promised, None)
        program = self._register(bundles.load(state), promised, may_replace=False)
        program.base_program = base.id
        return program

    def check_examples(
        self, program: Program, examples: Sequence[Mapping[str, Any]], where: str
    ) -> None:
        """Raises InputValidationError for examples that do not fit a program: their inputs, and
        those of their outputs that the program has."""
        check_examples(program.spec, examples, where)

    def dump(self, program_id: str) -> dict[str, Any]:
        return self.state(self.get(program_id))

    def state(self, program: Program) -> dict[str, Any]:
        """All that is needed to make a program again."""
        predictors = self._engine.predictors(program.module)
        return bundles.dump(replace(program.spec, predictors=predictors))

    def describe(self, program_id: str) -> dict[str, Any]:
        program = self.get(program_id)
        predictors = self._engine.predictors(program.module)
        # A program of one predictor has its instructions and demonstrations; of several, the
        # first one's instructions say the most. Where code takes their place there are none.
        first = next(iter(predictors.values()), Predictor(None, ()))
        return {
            **program.created(),
            "instructions": first.instructions,
            "demos": [demo.to_map() for demo in first.demos],
            "lm": program.spec.lm,
            "adapter": program.spec.adapter,
            "config": dict(program.spec.config),
            "tools": [tool.to_map() for tool in program.spec.tools],
            "limits": dict(program.spec.limits),
            "variables": dict(program.spec.variables),
            "counters": {"executions": program.executions, "errors": program.errors},
            "base_program": program.base_program,
            "lineage": dict(program.spec.lineage),
            "options": dict(program.spec.options),
            "predictors": {
                name: {
                    "instructions": predictor.instructions,
                    "demos": [demo.to_map() for demo in predictor.demos],
                }
                for name, predictor in predictors.items()
            },
            **pipeline_map(program.spec),
        }

    def check_variant(
        self, program: Program, variables: Mapping[str, Any], values: Mapping[str, Any]
    ) -> None:
        """Raises what `create` does for a program that cannot have these values of variables."""
        spec = variant(program.spec, variables, values)
        for key in values:
            target: str = variables[key]["applies_to"]
            names = [item.name for item in spec.signature.inputs]
            if target.startswith("inputs."):
                one_of(*names)(target.removeprefix("inputs."), f"variables.{key}.applies_to")
        self._engine.require_lm(spec.lm)
        self._build("(a variant)", spec, revision=0)

    def _register(self, spec: ProgramSpec, program_id: str | None, may_replace: bool) -> Program:
        known = None if program_id is None else self._programs.get(program_id)
        if program_id is not None and not (known is not None and may_replace):
            self._require_free(program_id)
        revision = 1 if known is None else known.revision + 1
        program = self._build(program_id or self._new_id(), spec, revision)
        self._programs[program.id] = program
        return program

    def _build(self, program_id: str, spec: ProgramSpec, revision: int) -> Program:
        inputs = InputConverter(spec.signature, self._engine.client_types)
        results = ResultConverter(spec)
        spec = checked(spec)
        return Program(
            id=program_id,
            spec=spec,
            revision=revision,
            module=self._engine.build(spec),
            inputs=inputs,
            results=results,
            limits=limits_of("program", {"limits": spec.limits}, program_id),
        )

    def _require_free(self, program_id: str) -> None:
        self._promised = {
            name: is_wanted for name, is_wanted in self._promised.items() if is_wanted()
        }
        if program_id in self._promised:
            raise AlreadyExistsError(
                f"the id {program_id!r} is that of a program which is being made: choose another"
            )
        if program_id in self._programs:
            raise AlreadyExistsError(
                f"there is a program {program_id!r} already: choose another id, or say replace"
            )

    def _new_id(self) -> str:
        while (name := f"program-{token_hex(4)}") in {*self._programs, *self._promised}:
            pass
        return name
