"""The optimizer `variables`: an outer search over values, inside it, where asked for, another
optimizer over prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_bridge.engine.optimizers.search import Trial, rungs, search
from dspex_bridge.programs.variants import variant

if TYPE_CHECKING:
    from collections.abc import Callable

    import dspy

    from dspex_bridge.engine.optimizers.tracker import Candidate

    from .optimization import Optimization

__all__ = ["search_variables"]


def search_variables(
    run: Optimization,
    params: dict[str, Any],
    seed: int,
    compile_with: Callable[[str, dict[str, Any], dspy.Module], dspy.Module],
) -> dict[str, Any]:
    """The result of the job, with its `variables`: the `values` chosen, all `trials`, and the
    `pareto` front: those that no other one beats in all objectives."""
    variables: dict[str, Any] = params["variables"]
    objectives: list[str] = params.get("objectives") or ["score"]
    inner: dict[str, Any] | None = params.get("inner")
    pool = run.labelled_demos()
    tried: dict[int, Candidate] = {}

    def score(
        number: int, values: dict[str, Any], report: Callable[[int, float], bool]
    ) -> list[float] | None:
        spec = variant(run.spec, variables, values, pool)
        with run.using(spec, values):
            program = run.build(spec)
            if inner is not None:
                program = compile_with(inner["name"], inner.get("params") or {}, program)
            for count in rungs(len(run.valset)):
                candidate = run.evaluate(program, count)
                if count < len(run.valset) and report(count, candidate.score or 0.0):
                    return None
        tried[number] = candidate
        return [_measured(candidate, objective) for objective in objectives]

    trials, best = search(
        variables,
        strategy=params.get("strategy") or "tpe",
        trials=run.planned,
        objectives=objectives,
        seed=seed,
        prunes=params.get("prune") is not False,
        run=score,
    )
    # Of a front, too, the program that answers best: the others are in it by their values.
    chosen = max(best, key=lambda trial: _measured(tried[trial.number], "score"))
    return run.result(
        tried[chosen.number],
        {
            "values": chosen.values,
            "trials": [_told(trial, objectives) for trial in trials],
            "pareto": [_told(trial, objectives) for trial in best],
        },
    )


def _measured(candidate: Candidate, objective: str) -> float:
    """What an objective says of a candidate: of its runs on the valset the mean, which for a cost
    that is not known is 0: it is that of all of them."""
    if objective == "score":
        return candidate.score or 0.0
    usages = list(candidate.usages.values())
    told = [getattr(usage, objective) or 0.0 for usage in usages]
    return float(sum(told) / len(told)) if told else 0.0


def _told(trial: Trial, objectives: list[str]) -> dict[str, Any]:
    if trial.was_pruned:
        return {"values": trial.values, "pruned": True, "score": trial.objectives[0]}
    return {"values": trial.values, **dict(zip(objectives, trial.objectives, strict=True))}
