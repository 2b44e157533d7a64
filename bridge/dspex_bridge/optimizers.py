"""The optimizers by name: their parameters and what each needs, known before DSPy is imported.

How each one is run stands in `engine.optimizers`.
"""

from __future__ import annotations

from itertools import islice

from dspex_protocol.errors import UnavailableError

from .catalog import REDUCES
from .installing import install_command
from .params import array, boolean, integer, mapping, name, number, one_of, record
from .shapes import VARIABLES
from .variables import grid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .params import Check

__all__ = ["INNER", "LM_PARAMS", "MAX_TRIALS", "OPTIMIZERS", "Optimizer", "require_packages"]

# Parameters that name an LM of the configuration.
LM_PARAMS = ("prompt_lm", "task_lm", "teacher_lm", "reflection_lm")

# More threads than LM calls that one worker can make at a time gain nothing.
_MAX_THREADS = 64
_MANY = 10_000

# A search over variables that needs more is none that anybody waits for.
MAX_TRIALS = 10_000
_DEFAULT_TRIALS = 20

# What may run inside each trial of a search over variables.
INNER = (
    *("labeled_few_shot", "bootstrap_few_shot", "bootstrap_few_shot_random_search"),
    *("bootstrap_few_shot_optuna", "copro", "mipro_v2", "simba", "gepa", "infer_rules"),
)

_THREADS = {"num_threads": integer(1, _MAX_THREADS)}
_BOOTSTRAP = {
    "max_bootstrapped_demos": integer(0, _MANY),
    "max_labeled_demos": integer(0, _MANY),
    "max_rounds": integer(1, 100),
    "metric_threshold": number(),
    "teacher": name,
    "teacher_lm": name,
}
_AUTO = one_of("light", "medium", "heavy")

# MIPROv2's own defaults. Of its sets of demonstrations the first three are none, labelled ones, and
# bootstrapped ones as they come; the others each draw how many are bootstrapped, from 1 on.
_MIPRO_DEMOS = 4
_MIPRO_MINIBATCH = 35
_MIPRO_UNDRAWN_SETS = 3

# What `auto` takes of the valset, and from when on it scores by minibatches.
_MIPRO_VALSETS = {"light": 100, "medium": 300, "heavy": 1000}
_MIPRO_LEAST_TO_BATCH = 51

# What all of them need.
_PACKAGES = ("numpy",)


class Optimizer:
    """What is known of an optimizer without running it.

    `planned(params, train, val)` is the number of candidates that it will try on a trainset and a
    valset of those sizes, None where only the run can tell. `least_examples(params)` is how many
    the trainset must have: none, where the optimizer takes no trainset. `packages` is what it needs
    beyond DSPy: names of modules, which the extra `optimize` installs. `conflict(params, val)` says
    why parameters that are right one by one cannot go together, on a valset of that size; DSPy
    would find out in the middle of the run.
    """

    __slots__ = ("conflict", "least_examples", "needs_metric", "packages", "params", "planned")

    def __init__(
        self,
        params: dict[str, Check],
        *,
        needs_metric: bool = True,
        least_examples: Callable[[dict[str, Any]], int] = lambda _params: 1,
        packages: tuple[str, ...] = (),
        planned: Callable[[dict[str, Any], int, int], int | None] = lambda _params, _t, _v: None,
        conflict: Callable[[dict[str, Any], int], str | None] = lambda _params, _v: None,
    ) -> None:
        self.params: Check = record(optional=params)
        self.needs_metric = needs_metric
        self.least_examples = least_examples
        self.packages = (*_PACKAGES, *packages)
        self.planned = planned
        self.conflict = conflict


def require_packages(name: str) -> None:
    """Raises UnavailableError where a package of an optimizer's is not installed: before anything
    is paid for."""
    from importlib.util import find_spec

    for package in OPTIMIZERS[name].packages:
        if find_spec(package) is None:
            raise UnavailableError(
                f"the optimizer {name} needs the package {package}, which is not installed where "
                f"the bridge runs: {install_command('dspex[optimize]')}",
                data={"package": package},
            )


def _or(params: dict[str, Any], key: str, default: int) -> int:
    value = params.get(key)
    return default if value is None else int(value)


def _trials(params: dict[str, Any]) -> int:
    """Of the search over variables; of a grid never more than it has."""
    if params.get("strategy") != "grid":
        return _or(params, "trials", _DEFAULT_TRIALS)
    size = sum(1 for _ in islice(grid(params["variables"]), MAX_TRIALS + 1))
    return min(_or(params, "trials", size), size)


def _mipro_conflict(params: dict[str, Any], val: int) -> str | None:
    candidates, trials, auto = (params.get(key) for key in ("num_candidates", "num_trials", "auto"))
    by_hand = candidates is not None or trials is not None
    if by_hand and auto is not None:
        return "auto says how many candidates and trials there are: leave it out, or these"
    if by_hand and (candidates is None or trials is None):
        return "num_candidates and num_trials are given both, or neither"
    if (
        _or(params, "max_bootstrapped_demos", _MIPRO_DEMOS) == 0
        and _or(params, "max_labeled_demos", _MIPRO_DEMOS) > 0
        and not (by_hand and _or(params, "num_candidates", 0) <= _MIPRO_UNDRAWN_SETS)
    ):
        return (
            "without bootstrapped demonstrations there are at most "
            f"{_MIPRO_UNDRAWN_SETS} sets of them to choose from: give a num_candidates of "
            f"{_MIPRO_UNDRAWN_SETS} or less and num_trials, or max_bootstrapped_demos of 1 or "
            "more, or max_labeled_demos 0 too, for instructions alone"
        )
    size = _or(params, "minibatch_size", _MIPRO_MINIBATCH)
    used = val if by_hand else min(val, _MIPRO_VALSETS[auto or "light"])
    batches = params.get("minibatch") is not False if by_hand else used >= _MIPRO_LEAST_TO_BATCH
    if batches and size > used:
        return (
            f"minibatch_size ({size}) is more than the examples of the valset that it takes "
            f"({used}): give a smaller one" + (", or minibatch false" if by_hand else "")
        )
    return None


def _gepa_conflict(params: dict[str, Any], _val: int) -> str | None:
    budgets = ("auto", "max_full_evals", "max_metric_calls")
    if sum(params.get(key) is not None for key in budgets) > 1:
        return f"{', '.join(budgets)} are three ways to say one thing: give one of them"
    return None


OPTIMIZERS: dict[str, Optimizer] = {
    "labeled_few_shot": Optimizer(
        {"k": integer(1, _MANY), "sample": boolean},
        needs_metric=False,
        planned=lambda _p, _t, _v: 1,
    ),
    "bootstrap_few_shot": Optimizer(
        {**_BOOTSTRAP, "max_errors": integer(0)}, planned=lambda _p, _t, _v: 1
    ),
    "bootstrap_few_shot_random_search": Optimizer(
        {
            **_BOOTSTRAP,
            **_THREADS,
            "num_candidate_programs": integer(1, _MANY),
            "stop_at_score": number(),
            "max_errors": integer(0),
        },
        planned=lambda p, _t, _v: _or(p, "num_candidate_programs", 16) + 3,
    ),
    "bootstrap_few_shot_optuna": Optimizer(
        {
            **{key: check for key, check in _BOOTSTRAP.items() if key != "metric_threshold"},
            **_THREADS,
            "num_candidate_programs": integer(1, _MANY),
            "max_demos": integer(1, _MANY),
        },
        packages=("optuna",),
        planned=lambda p, _t, _v: _or(p, "num_candidate_programs", 16),
    ),
    "knn_few_shot": Optimizer(
        {"k": integer(1, _MANY), "embedder": name},
        needs_metric=False,
        planned=lambda _p, _t, _v: 1,
    ),
    "copro": Optimizer(
        {
            **_THREADS,
            "breadth": integer(2, 1000),
            "depth": integer(1, 1000),
            "init_temperature": number(0),
            "prompt_lm": name,
        },
    ),
    "mipro_v2": Optimizer(
        {
            **_THREADS,
            "auto": _AUTO,
            "num_candidates": integer(1, 1000),
            "num_trials": integer(1, _MANY),
            "max_bootstrapped_demos": integer(0, _MANY),
            "max_labeled_demos": integer(0, _MANY),
            "init_temperature": number(0),
            "metric_threshold": number(),
            "minibatch": boolean,
            "minibatch_size": integer(1, _MANY),
            "minibatch_full_eval_steps": integer(1, _MANY),
            "program_aware_proposer": boolean,
            "data_aware_proposer": boolean,
            "view_data_batch_size": integer(1, _MANY),
            "tip_aware_proposer": boolean,
            "fewshot_aware_proposer": boolean,
            "max_errors": integer(0),
            "prompt_lm": name,
            "task_lm": name,
            "teacher": name,
            "teacher_lm": name,
        },
        packages=("optuna",),
        conflict=_mipro_conflict,
    ),
    "simba": Optimizer(
        {
            **_THREADS,
            "bsize": integer(1, _MANY),
            "num_candidates": integer(1, 1000),
            "max_steps": integer(1, 1000),
            "max_demos": integer(0, 1000),
            "demo_input_field_maxlen": integer(1),
            "temperature_for_sampling": number(0),
            "temperature_for_candidates": number(0),
            "prompt_lm": name,
            "teacher_lm": name,
        },
        least_examples=lambda params: _or(params, "bsize", 32),
    ),
    "gepa": Optimizer(
        {
            **_THREADS,
            "auto": _AUTO,
            "max_full_evals": integer(1, _MANY),
            "max_metric_calls": integer(1),
            "reflection_minibatch_size": integer(1, 1000),
            "candidate_selection_strategy": one_of("pareto", "current_best"),
            "component_selector": one_of("round_robin", "all"),
            "skip_perfect_score": boolean,
            "add_format_failure_as_feedback": boolean,
            "use_merge": boolean,
            "max_merge_invocations": integer(0, 1000),
            "failure_score": number(),
            "perfect_score": number(),
            "reflection_lm": name,
        },
        packages=("gepa",),
        conflict=_gepa_conflict,
    ),
    "infer_rules": Optimizer(
        {
            **_BOOTSTRAP,
            **_THREADS,
            "num_candidates": integer(1, 1000),
            "num_rules": integer(1, 1000),
            "max_errors": integer(0),
        },
        planned=lambda p, _t, _v: _or(p, "num_candidates", 10),
    ),
    "ensemble": Optimizer(
        {"programs": array(name), "reduce": one_of(*REDUCES), "size": integer(1)},
        needs_metric=False,
        least_examples=lambda _params: 0,
        planned=lambda _p, _t, _v: 1,
    ),
    "variables": Optimizer(
        {
            **_THREADS,
            "variables": VARIABLES,
            "strategy": one_of("tpe", "random", "grid"),
            "trials": integer(1, MAX_TRIALS),
            "objectives": array(one_of("score", "cost_usd", "tokens", "latency_ms"), maximum=4),
            "prune": boolean,
            "inner": record({"name": one_of(*INNER)}, {"params": mapping}),
        },
        packages=("optuna",),
        planned=lambda p, _t, _v: _trials(p),
    ),
}
