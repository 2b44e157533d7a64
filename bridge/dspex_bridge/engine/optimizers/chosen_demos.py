"""bootstrap_few_shot_optuna: which of the demonstrations that a bootstrap found a program has."""

from __future__ import annotations

import warnings
from typing import Any

import dspy
from dspy.teleprompt import BootstrapFewShotWithOptuna

__all__ = ["ChosenDemos"]


class ChosenDemos(BootstrapFewShotWithOptuna):  # type: ignore[misc]  # dspy ships no types
    """DSPy's optimizer, but that a candidate has any set of them, where DSPy's has exactly one,
    and that the search can be repeated."""

    def __init__(self, *args: Any, seed: int, **options: Any) -> None:
        super().__init__(*args, **options)
        self._seed = seed

    def objective(self, trial: Any) -> float:
        program = self.student.reset_copy()
        pairs = zip(
            self.compiled_teleprompter.named_predictors(),
            program.predictors(),
            strict=True,
        )
        for (name, found), predictor in pairs:
            predictor.demos = [
                demo
                for index, demo in enumerate(found.demos)
                if trial.suggest_categorical(f"{name}.{index}", [True, False])
            ]
        evaluate = dspy.Evaluate(
            devset=self.valset, metric=self.metric, num_threads=self.num_threads
        )
        score: float = evaluate(program).score
        trial.set_user_attr("program", program)
        return score

    def compile(
        self,
        student: dspy.Module,
        *,
        teacher: dspy.Module | None = None,
        max_demos: int,
        trainset: list[dspy.Example],
        valset: list[dspy.Example],
    ) -> dspy.Module:
        import optuna

        self.student, self.valset = student.reset_copy(), valset
        self.compiled_teleprompter = dspy.BootstrapFewShot(
            metric=self.metric,
            max_bootstrapped_demos=max_demos,
            max_labeled_demos=self.max_labeled_demos,
            teacher_settings=self.teacher_settings,
            max_rounds=self.max_rounds,
        ).compile(student.reset_copy(), teacher=teacher, trainset=trainset)
        with warnings.catch_warnings():
            # It may change in a later Optuna.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=self._seed, multivariate=True)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.optimize(self.objective, n_trials=self.num_candidate_sets)
        best: dspy.Module = study.best_trial.user_attrs["program"]
        return best
