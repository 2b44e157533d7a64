"""Programs with the values of variables: what the search over those tries."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dspex_bridge import variables as rules

from .spec import Predictor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .spec import Demo, ProgramSpec

__all__ = ["variant"]

# Modules whose only predictor has the signature's instructions and the program's demonstrations:
# its state can be that of another one of them.
_PLAIN = ("predict", "chain_of_thought")


def variant(
    spec: ProgramSpec,
    variables: Mapping[str, Any],
    values: Mapping[str, Any],
    pool: Sequence[Demo] = (),
) -> ProgramSpec:
    """The program with the values of those variables that count, which are their defaults now.

    `pool` has the demonstrations that a program, not a step, may get where it has none of its own.
    """
    values = {key: value for key, value in values.items() if rules.active(variables, values, key)}
    told = {variables[key]["applies_to"]: value for key, value in values.items()}
    config, inputs = _under("config.", told), _under("inputs.", told)
    changed = replace(
        spec,
        lm=told.get("lm", spec.lm),
        adapter=told.get("adapter", spec.adapter),
        config={**spec.config, **config},
        signature=replace(
            spec.signature,
            inputs=tuple(
                replace(item, default=inputs[item.name]) if item.name in inputs else item
                for item in spec.signature.inputs
            ),
        ),
        variables={
            key: {**item, "default": values[key]} if key in values else item
            for key, item in variables.items()
        },
    )
    return _of_module(changed, told, pool) if spec.pipeline is None else _of_steps(changed, told)


def _under(prefix: str, told: Mapping[str, Any]) -> dict[str, Any]:
    return {
        target.removeprefix(prefix): value
        for target, value in told.items()
        if target.startswith(prefix)
    }


def _of_module(spec: ProgramSpec, told: Mapping[str, Any], pool: Sequence[Demo]) -> ProgramSpec:
    if not {"module", "instructions", "demos.k", "demos.seed"} & told.keys():
        return spec
    spec = _plain(spec)
    module = told.get("module", spec.module)
    changed = replace(
        spec,
        module=module,
        signature=replace(
            spec.signature, instructions=told.get("instructions", spec.signature.instructions)
        ),
        # Those of another module are none of this one's.
        predictors={} if module != spec.module else spec.predictors,
    )
    if "instructions" in told:
        changed = replace(
            changed,
            predictors={
                name: Predictor(None, state.demos) for name, state in changed.predictors.items()
            },
        )
    if "demos.k" in told or "demos.seed" in told:
        demos = list(spec.demos) or list(pool)
        if "demos.seed" in told:
            shuffled = random.Random(told["demos.seed"])  # noqa: S311 - a draw to be repeated
            demos = shuffled.sample(demos, len(demos))
        changed = replace(changed, demos=tuple(demos[: told.get("demos.k", len(demos))]))
        changed = replace(
            changed,
            predictors={
                name: Predictor(state.instructions, changed.demos)
                for name, state in changed.predictors.items()
            },
        )
    return replace(changed, demos=tuple(_fitting(demo, changed) for demo in changed.demos))


def _of_steps(spec: ProgramSpec, told: Mapping[str, Any]) -> ProgramSpec:
    assert spec.pipeline is not None  # noqa: S101 - asked before
    steps, predictors = [], dict(spec.predictors)
    for step in spec.pipeline.steps:
        of_step = _under(f"{step.name}.", told)
        if of_step:
            program = _of_module(
                replace(step.program, predictors=_taken(predictors, step.name)), of_step, ()
            )
            predictors |= {
                step.name if name == "self" else f"{step.name}.{name}": state
                for name, state in program.predictors.items()
            }
            steps.append(replace(step, program=replace(program, predictors={})))
        else:
            steps.append(step)
    return replace(spec, pipeline=replace(spec.pipeline, steps=tuple(steps)), predictors=predictors)


def _taken(predictors: dict[str, Predictor], step: str) -> dict[str, Predictor]:
    """The predictors of a step, by their names in its own module; taken from the pipeline's."""
    names = [name for name in predictors if name == step or name.startswith(f"{step}.")]
    return {
        name.removeprefix(f"{step}.") if name != step else "self": predictors.pop(name)
        for name in names
    }


def _plain(spec: ProgramSpec) -> ProgramSpec:
    """The same program, of a plain module, with the state of its predictor in the signature and the
    demonstrations."""
    if spec.module not in _PLAIN or len(spec.predictors) != 1:
        return spec
    (state,) = spec.predictors.values()
    instructions = spec.signature.instructions
    if state.instructions is not None:
        instructions = state.instructions
    return replace(
        spec,
        signature=replace(spec.signature, instructions=instructions),
        demos=state.demos,
        predictors={},
    )


def _fitting(demo: Demo, spec: ProgramSpec) -> Demo:
    """A demonstration without what the module does not make: the reasoning of another one."""
    known = spec.output_types
    return replace(
        demo, outputs={name: value for name, value in demo.outputs.items() if name in known}
    )
