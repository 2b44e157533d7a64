"""The optimizer `variables`: an outer search over values, inside it, where asked for, another
optimizer over prompts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from dspex_bridge.engine.optimizers.search import Trial, apply, rungs, search
from dspex_bridge.programs.spec import Demo

if TYPE_CHECKING:
    from collections.abc import Callable

    import dspy

    from .optimization import Optimization

__all__ = ["search_variables"]

_DEFAULT_TRIALS = 20


def search_variables(
    run: Optimization,
    params: dict[str, Any],
    seed: int,
    compile_with: Callable[[str, dict[str, Any], dspy.Module], dspy.Module],
) -> dict[str, Any]:
    """The result of the job, with `values` and, where several objectives were asked for, `pareto`:
    the trials that no other one beats in all of them."""
    variables: dict[str, Any] = params["variables"]
    objectives: list[str] = params.get("objectives") or ["score"]
    inner: dict[str, Any] | None = params.get("inner")
    pool = [
        Demo(inputs=dict(item.inputs().items()), outputs=dict(item.labels().items()))
        for item in run.trainset
    ]
    run.planned = params.get("trials") or _DEFAULT_TRIALS
    programs: dict[int, dspy.Module] = {}
    specs: dict[int, Any] = {}

    def score(values: dict[str, Any], report: Callable[[int, float], bool]) -> list[float] | None:
        spec = apply(run.spec, variables, values, pool)
        with run.using(spec, values):
            program = run.build(spec)
            if inner is not None:
                program = compile_with(inner["name"], inner.get("params") or {}, program)
            number = run.tracker.of(program).number
            programs[number], specs[number] = program, spec
            began, tokens, cost = time.monotonic(), run.tokens, run.cost_usd
            scores: list[float] = []
            for count in rungs(len(run.valset)):
                scores = run.evaluate(program, count)
                if count < len(run.valset) and report(count, sum(scores) / count):
                    return None
            spent = None if cost is None or run.cost_usd is None else run.cost_usd - cost
            measured = {
                "score": sum(scores) / len(scores),
                "tokens": float(run.tokens - tokens),
                "cost_usd": 0.0 if spent is None else spent,
                "latency_ms": (time.monotonic() - began) * 1000 / len(scores),
            }
            return [measured[name] for name in objectives]

    trials, best = search(
        variables,
        strategy=params.get("strategy") or "tpe",
        trials=run.planned,
        objectives=objectives,
        seed=seed,
        prunes=params.get("prune") is not False,
        run=score,
    )
    chosen = max(best, key=lambda trial: trial.objectives[0])
    spec = apply(run.spec, variables, chosen.values, pool)
    run.phase = "evaluate"
    with run.using(spec, chosen.values):
        candidate = next(item for item in run.tracker.candidates if item.variant == chosen.values)
        program = programs[candidate.number]
        results = run.evaluate(program, len(run.valset))
        result = run.result(run.tracker.of(program), results)
    told = {
        "values": chosen.values,
        "search": [_told(trial, objectives) for trial in trials],
    }
    if len(objectives) > 1:
        told["pareto"] = [_told(trial, objectives) for trial in best]
    return {**result, **told}


def _told(trial: Trial, objectives: list[str]) -> dict[str, Any]:
    if trial.was_pruned:
        return {"values": trial.values, "pruned": True, "score": trial.objectives[0]}
    return {"values": trial.values, **dict(zip(objectives, trial.objectives, strict=True))}
