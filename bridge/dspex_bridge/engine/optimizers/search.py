"""The search over variables: Optuna, or a grid, proposes values; a program with them is scored."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, Protocol

from dspex_bridge import variables as rules

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import optuna

__all__ = ["OBJECTIVES", "Run", "Trial", "rungs", "search"]

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
    """What became of one set of values; `objectives` are in the order asked for, of one that was
    pruned the score that it was pruned for."""

    number: int
    values: dict[str, Any]
    objectives: list[float]
    was_pruned: bool


class Run(Protocol):
    """Scores the program that has `values`. Calls `report(step, score)` after each part of the
    valset, and returns None where that says True: give up."""

    def __call__(
        self, number: int, values: dict[str, Any], report: Callable[[int, float], bool]
    ) -> list[float] | None: ...


def search(
    variables: Mapping[str, Any],
    *,
    strategy: str,
    trials: int | None,
    objectives: Sequence[str],
    seed: int,
    prunes: bool,
    run: Run,
) -> tuple[list[Trial], list[Trial]]:
    """All trials, and the best: one, or with several objectives the Pareto front. Without a number
    of `trials` a grid is tried as a whole."""
    import optuna

    study = optuna.create_study(
        directions=[OBJECTIVES[name] for name in objectives],
        sampler=_sampler(strategy, seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=_WARMUP_TRIALS)
        if prunes and len(objectives) == 1
        else optuna.pruners.NopPruner(),
    )
    if strategy == "grid":
        starts = list(islice(rules.grid(variables), trials))
        trials = len(starts)
    else:
        # The search begins where the program is.
        starts = [start] if (start := rules.defaults(variables)) else []
    for start in starts:
        study.enqueue_trial({key: _proposed(variables[key], start[key]) for key in start})
    done: list[Trial] = []

    def objective(trial: optuna.Trial) -> float | tuple[float, ...]:
        values = _values(trial, variables)
        told: list[float] = []

        def report(step: int, score: float) -> bool:
            told.append(score)
            if len(objectives) > 1:
                return False
            trial.report(score, step)
            return trial.should_prune()

        result = run(trial.number, values, report)
        if result is None:
            done.append(Trial(trial.number, values, [told[-1]], was_pruned=True))
            raise optuna.TrialPruned
        done.append(Trial(trial.number, values, result, was_pruned=False))
        return result[0] if len(result) == 1 else tuple(result)

    study.optimize(objective, n_trials=trials)
    best = {trial.number for trial in study.best_trials}
    return done, [trial for trial in done if trial.number in best]


def rungs(count: int) -> list[int]:
    """How many examples of `count` a trial has been scored on, each time that it is looked at."""
    return sorted({max(1, round(part * count)) for part in _RUNGS})


def _values(trial: optuna.Trial, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Values for the variables that count."""
    values: dict[str, Any] = {}
    for key in rules.in_order(variables):
        if rules.active(variables, values, key):
            values[key] = _suggest(trial, key, variables[key])
    return values


def _suggest(trial: optuna.Trial, key: str, variable: Mapping[str, Any]) -> Any:
    low, high, log = variable.get("low"), variable.get("high"), bool(variable.get("log"))
    if variable["kind"] == "float":
        return trial.suggest_float(key, float(low), float(high), log=log)  # type: ignore[arg-type]
    if variable["kind"] == "int":
        return trial.suggest_int(key, int(low), int(high), log=log)  # type: ignore[arg-type]
    choices = rules.choices(variable)
    # Optuna takes scalars: a choice may be any value, so it is chosen by its place.
    return choices[trial.suggest_categorical(key, list(range(len(choices))))]


def _proposed(variable: Mapping[str, Any], value: Any) -> Any:
    """A value as Optuna knows it."""
    return value if rules.is_numeric(variable) else rules.choices(variable).index(value)


def _sampler(strategy: str, seed: int) -> optuna.samplers.BaseSampler:
    import optuna

    if strategy != "tpe":  # of a grid nothing is sampled
        return optuna.samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        # It may change in a later Optuna, and searches conditional spaces best.
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=_WARMUP_TRIALS, multivariate=True, group=True
        )
