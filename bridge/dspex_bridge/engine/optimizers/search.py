"""The search over variables: Optuna proposes values, a program with them is scored."""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dspex_bridge import variables as rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import optuna

    from dspex_bridge.programs.spec import Demo, ProgramSpec

__all__ = ["OBJECTIVES", "Trial", "apply", "rungs", "search"]

# What a trial can be judged by, and which way is better.
OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {
    "score": "maximize",
    "cost_usd": "minimize",
    "tokens": "minimize",
    "latency_ms": "minimize",
}

# A trial is looked at after these parts of the valset, and given up where the middle of the
# others was better there.
_RUNGS = (0.25, 0.5, 1.0)

# Before so many trials have ended, the middle of them says nothing.
_WARMUP_TRIALS = 4


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one set of values; `objectives` are in the order asked for."""

    number: int
    values: dict[str, Any]
    objectives: list[float]
    was_pruned: bool


def search(
    variables: Mapping[str, Any],
    *,
    strategy: str,
    trials: int,
    objectives: Sequence[str],
    seed: int,
    prunes: bool,
    run: Callable[[dict[str, Any], Callable[[int, float], bool]], list[float] | None],
) -> tuple[list[Trial], list[Trial]]:
    """All trials, and the best: one, or with several objectives the Pareto front.

    `run(values, report)` scores the program that has those values; it calls `report(step, score)`
    after each part of the valset and returns None where that says True: give up.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        directions=[OBJECTIVES[name] for name in objectives],
        sampler=_sampler(strategy, variables, seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_WARMUP_TRIALS)
        if prunes and len(objectives) == 1
        else optuna.pruners.NopPruner(),
    )
    done: list[Trial] = []

    def objective(trial: optuna.Trial) -> float | tuple[float, ...]:
        values = _values(trial, variables)

        def report(step: int, score: float) -> bool:
            if len(objectives) > 1:
                return False
            trial.report(score, step)
            return trial.should_prune()

        result = run(values, report)
        if result is None:
            last = trial.storage.get_trial(trial._trial_id).intermediate_values
            done.append(Trial(trial.number, values, [last[max(last)]], was_pruned=True))
            raise optuna.TrialPruned
        done.append(Trial(trial.number, values, result, was_pruned=False))
        return result[0] if len(result) == 1 else tuple(result)

    start = rules.defaults(variables)
    if start and strategy != "grid":
        # The search begins where the program is.
        study.enqueue_trial({key: _proposed(variables[key], value) for key, value in start.items()})
    study.optimize(objective, n_trials=_count(strategy, variables, trials))
    best = {trial.number for trial in study.best_trials}
    return done, [trial for trial in done if trial.number in best]


def apply(
    spec: ProgramSpec, variables: Mapping[str, Any], values: Mapping[str, Any], pool: Sequence[Demo]
) -> ProgramSpec:
    """The program with the values of the variables that count. `pool` has the demonstrations that
    it may get where it has none of its own."""
    told = {
        variables[key]["applies_to"]: value
        for key, value in values.items()
        if rules.active(variables, values, key)
    }
    config = {
        target.removeprefix("config."): value
        for target, value in told.items()
        if target.startswith("config.")
    }
    inputs = {
        target.removeprefix("inputs."): value
        for target, value in told.items()
        if target.startswith("inputs.")
    }
    signature = replace(
        spec.signature,
        instructions=told.get("instructions", spec.signature.instructions),
        inputs=tuple(
            replace(item, default=inputs[item.name]) if item.name in inputs else item
            for item in spec.signature.inputs
        ),
    )
    changed = replace(
        spec,
        signature=signature,
        module=told.get("module", spec.module),
        lm=told.get("lm", spec.lm),
        adapter=told.get("adapter", spec.adapter),
        config={**spec.config, **config},
    )
    if "demos.k" not in told and "demos.seed" not in told:
        return changed
    demos = list(spec.demos) or list(pool)
    if "demos.seed" in told:
        shuffled = random.Random(told["demos.seed"])  # noqa: S311 - a draw that can be repeated
        demos = shuffled.sample(demos, len(demos))
    return replace(changed, demos=tuple(demos[: told.get("demos.k", len(demos))]), predictors={})


def rungs(count: int) -> list[int]:
    """How many examples of `count` a trial has been scored on, each time that it is looked at."""
    return sorted({max(1, round(part * count)) for part in _RUNGS})


def _values(trial: optuna.Trial, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the variables that count, those that others depend on first."""
    values: dict[str, Any] = {}
    left = dict(variables)
    while left:
        for key in list(left):
            parent = left[key].get("depends_on")
            if parent is not None and parent["variable"] in left:
                continue
            variable = left.pop(key)
            if rules.active(variables, values, key):
                values[key] = _suggest(trial, key, variable)
    return values


def _suggest(trial: optuna.Trial, key: str, variable: Mapping[str, Any]) -> Any:
    low, high, log = variable.get("low"), variable.get("high"), bool(variable.get("log"))
    if variable["kind"] == "float":
        return trial.suggest_float(key, float(low), float(high), log=log)  # type: ignore[arg-type]
    if variable["kind"] == "int":
        return trial.suggest_int(key, int(low), int(high), log=log)  # type: ignore[arg-type]
    choices = _choices(variable)
    # Optuna takes scalars: a choice may be any value, so it is chosen by its place.
    return choices[trial.suggest_categorical(key, list(range(len(choices))))]


def _proposed(variable: Mapping[str, Any], value: Any) -> Any:
    """A value as Optuna knows it."""
    return value if variable["kind"] in ("float", "int") else _choices(variable).index(value)


def _choices(variable: Mapping[str, Any]) -> list[Any]:
    from dspex_bridge.catalog import ADAPTERS

    choices = variable.get("choices")
    return list(ADAPTERS) if choices is None else choices


# Of a number in a grid: as many values from low to high.
_GRID_POINTS = 5


def _sampler(strategy: str, variables: Mapping[str, Any], seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    if strategy == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if strategy == "grid":
        return optuna.samplers.GridSampler(_grid(variables), seed=seed)
    with warnings.catch_warnings():
        # It may change in a later Optuna, and searches conditional spaces best.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_WARMUP_TRIALS, multivariate=True, group=True
        )


def _grid(variables: Mapping[str, Any]) -> dict[str, list[Any]]:
    return {key: _grid_values(variable) for key, variable in variables.items()}


def _grid_values(variable: Mapping[str, Any]) -> list[Any]:
    if variable["kind"] not in ("int", "float"):
        return list(range(len(_choices(variable))))
    low, high = variable["low"], variable["high"]
    steps = _GRID_POINTS - 1
    if variable["kind"] == "int":
        return sorted({round(low + (high - low) * i / steps) for i in range(_GRID_POINTS)})
    if variable.get("log"):
        return [low * (high / low) ** (i / steps) for i in range(_GRID_POINTS)]
    return [low + (high - low) * i / steps for i in range(_GRID_POINTS)]


def _count(strategy: str, variables: Mapping[str, Any], trials: int) -> int:
    if strategy != "grid":
        return trials
    size = 1
    for values in _grid(variables).values():
        size *= len(values)
    return min(size, trials)
