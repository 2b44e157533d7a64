"""How each of DSPy's optimizers is made and run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dspy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["COMPILERS", "Setup"]

# LM calls wait for the network: more threads than processors.
DEFAULT_THREADS = 8


@dataclass(frozen=True, slots=True)
class Setup:
    """What an optimizer works on. `params` are the client's, checked; `lms` are those that they
    name, by the parameter; `metric` is DSPy's form of one, None where there is none."""

    student: dspy.Module
    trainset: list[dspy.Example]
    valset: list[dspy.Example]
    metric: Callable[..., Any] | None
    params: Mapping[str, Any]
    lms: Mapping[str, dspy.LM]
    seed: int
    teacher: dspy.Module | None = None

    def given(self, *names: str) -> dict[str, Any]:
        """Those of the parameters that the client gave."""
        return {key: self.params[key] for key in names if self.params.get(key) is not None}

    @property
    def threads(self) -> int:
        return int(self.params.get("num_threads") or DEFAULT_THREADS)

    @property
    def teacher_settings(self) -> dict[str, Any]:
        return {"lm": self.lms["teacher_lm"]} if "teacher_lm" in self.lms else {}


# Of the demonstrations that bootstrap_few_shot_optuna chooses among, those that are bootstrapped.
_POOL_BOOTSTRAPPED = 8

_DEMOS = ("max_bootstrapped_demos", "max_labeled_demos")
_BOOTSTRAP = (*_DEMOS, "max_rounds", "metric_threshold", "max_errors")


def _labeled_few_shot(setup: Setup) -> dspy.Module:
    return dspy.LabeledFewShot(**setup.given("k")).compile(
        setup.student, trainset=setup.trainset, **setup.given("sample")
    )


def _bootstrap_few_shot(setup: Setup) -> dspy.Module:
    return dspy.BootstrapFewShot(
        metric=setup.metric,
        teacher_settings=setup.teacher_settings,
        **setup.given(*_BOOTSTRAP),
    ).compile(setup.student, teacher=setup.teacher, trainset=setup.trainset)


def _bootstrap_few_shot_random_search(setup: Setup) -> dspy.Module:
    return dspy.BootstrapFewShotWithRandomSearch(
        metric=setup.metric,
        teacher_settings=setup.teacher_settings,
        num_threads=setup.threads,
        **setup.given(*_BOOTSTRAP, "num_candidate_programs", "stop_at_score"),
    ).compile(setup.student, teacher=setup.teacher, trainset=setup.trainset, valset=setup.valset)


def _bootstrap_few_shot_optuna(setup: Setup) -> dspy.Module:
    from .chosen_demos import ChosenDemos  # which needs a package that may not be there

    return ChosenDemos(
        metric=setup.metric,
        seed=setup.seed,
        teacher_settings=setup.teacher_settings,
        num_threads=setup.threads,
        **setup.given(*_DEMOS, "max_rounds", "num_candidate_programs"),
    ).compile(
        setup.student,
        teacher=setup.teacher,
        max_demos=setup.params.get("max_demos") or _POOL_BOOTSTRAPPED,
        trainset=setup.trainset,
        valset=setup.valset,
    )


def _copro(setup: Setup) -> dspy.Module:
    return dspy.COPRO(
        metric=setup.metric,
        prompt_model=setup.lms.get("prompt_lm"),
        **setup.given("breadth", "depth", "init_temperature"),
    ).compile(
        setup.student,
        trainset=setup.trainset,
        eval_kwargs={
            "num_threads": setup.threads,
            "display_progress": False,
            "display_table": False,
        },
    )


def _mipro_v2(setup: Setup) -> dspy.Module:
    params = setup.params
    by_hand = params.get("num_candidates") is not None or params.get("num_trials") is not None
    return dspy.MIPROv2(
        metric=setup.metric,
        prompt_model=setup.lms.get("prompt_lm"),
        task_model=setup.lms.get("task_lm"),
        teacher_settings=setup.teacher_settings,
        auto=None if by_hand else params.get("auto") or "light",
        num_threads=setup.threads,
        seed=setup.seed,
        **setup.given(
            *_DEMOS, "num_candidates", "init_temperature", "metric_threshold", "max_errors"
        ),
    ).compile(
        setup.student,
        trainset=setup.trainset,
        valset=setup.valset,
        teacher=setup.teacher,
        seed=setup.seed,
        **setup.given(
            *("num_trials", "minibatch", "minibatch_size", "minibatch_full_eval_steps"),
            *("program_aware_proposer", "data_aware_proposer", "view_data_batch_size"),
            *("tip_aware_proposer", "fewshot_aware_proposer"),
        ),
    )


def _simba(setup: Setup) -> dspy.Module:
    return dspy.SIMBA(
        metric=setup.metric,
        prompt_model=setup.lms.get("prompt_lm"),
        teacher_settings=setup.teacher_settings or None,
        num_threads=setup.threads,
        **setup.given(
            *("bsize", "num_candidates", "max_steps", "max_demos", "demo_input_field_maxlen"),
            *("temperature_for_sampling", "temperature_for_candidates"),
        ),
    ).compile(setup.student, trainset=setup.trainset, seed=setup.seed)


def _gepa(setup: Setup) -> dspy.Module:
    budget = setup.given("auto", "max_full_evals", "max_metric_calls") or {"auto": "light"}
    return dspy.GEPA(
        metric=setup.metric,
        reflection_lm=setup.lms.get("reflection_lm") or dspy.settings.lm,
        num_threads=setup.threads,
        seed=setup.seed,
        **budget,
        **setup.given(
            *("reflection_minibatch_size", "candidate_selection_strategy", "component_selector"),
            *("skip_perfect_score", "add_format_failure_as_feedback", "use_merge"),
            *("max_merge_invocations", "failure_score", "perfect_score"),
        ),
    ).compile(setup.student, trainset=setup.trainset, valset=setup.valset)


def _infer_rules(setup: Setup) -> dspy.Module:
    from dspy.teleprompt import InferRules

    return InferRules(
        metric=setup.metric,
        teacher_settings=setup.teacher_settings,
        num_threads=setup.threads,
        **setup.given(*_BOOTSTRAP, "num_candidates", "num_rules"),
    ).compile(setup.student, teacher=setup.teacher, trainset=setup.trainset, valset=setup.valset)


COMPILERS: dict[str, Callable[[Setup], dspy.Module]] = {
    "labeled_few_shot": _labeled_few_shot,
    "bootstrap_few_shot": _bootstrap_few_shot,
    "bootstrap_few_shot_random_search": _bootstrap_few_shot_random_search,
    "bootstrap_few_shot_optuna": _bootstrap_few_shot_optuna,
    "copro": _copro,
    "mipro_v2": _mipro_v2,
    "simba": _simba,
    "gepa": _gepa,
    "infer_rules": _infer_rules,
}
