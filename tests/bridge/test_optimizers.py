"""What is known of optimizers without running them, and that it is what DSPy does."""

from __future__ import annotations

import concurrent.futures
import inspect
import itertools
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspex_bridge import optimizers
from dspex_bridge.jobs import optimize
from dspex_bridge.optimizers import OPTIMIZERS
from dspy.teleprompt import mipro_optimizer_v2
from dspy.utils import parallelizer

BOUND_S = 30.0

BY_HAND = {"num_candidates": 3, "num_trials": 4}


@pytest.mark.parametrize(
    ("name", "params", "val", "why"),
    [
        ("mipro_v2", {}, 1, None),
        ("mipro_v2", {"auto": "heavy"}, 1000, None),
        ("mipro_v2", BY_HAND, 35, None),
        ("mipro_v2", BY_HAND, 34, "minibatch_size (35) is more than"),
        ("mipro_v2", {**BY_HAND, "minibatch": False}, 1, None),
        ("mipro_v2", {**BY_HAND, "minibatch_size": 10}, 10, None),
        # By itself it takes no minibatches of few examples, and no more than so many of many.
        ("mipro_v2", {"minibatch_size": 60}, 50, None),
        ("mipro_v2", {"minibatch_size": 60}, 51, "(51): give a smaller one"),
        ("mipro_v2", {"minibatch_size": 101}, 500, "(100): give a smaller one"),
        ("mipro_v2", {"minibatch_size": 101, "auto": "medium"}, 500, None),
        ("mipro_v2", {"num_candidates": 3}, 100, "both, or neither"),
        ("mipro_v2", {"num_trials": 3}, 100, "both, or neither"),
        ("mipro_v2", {"num_trials": 3, "auto": "light"}, 100, "leave it out"),
        ("mipro_v2", {"max_bootstrapped_demos": 0}, 100, "at most 3 sets"),
        ("mipro_v2", {"max_bootstrapped_demos": 0, "max_labeled_demos": 0}, 100, None),
        ("mipro_v2", {"max_bootstrapped_demos": 1, "max_labeled_demos": 0}, 100, None),
        ("mipro_v2", {"max_bootstrapped_demos": 0, **BY_HAND}, 100, None),
        ("mipro_v2", {"max_bootstrapped_demos": 0, **BY_HAND, "num_candidates": 4}, 99, "most 3"),
        ("gepa", {}, 1, None),
        ("gepa", {"max_metric_calls": 9}, 1, None),
        ("gepa", {"max_metric_calls": 9, "auto": "light"}, 1, "give one of them"),
    ],
)
def test_parameters_that_cannot_go_together_are_told(
    name: str, params: dict[str, Any], val: int, why: str | None
) -> None:
    told = OPTIMIZERS[name].conflict(params, val)
    assert (told is None) == (why is None), told
    assert (why or "") in (told or "")


def test_what_is_said_of_mipro_is_so_in_dspy() -> None:
    made = inspect.signature(dspy.MIPROv2.__init__).parameters
    assert made["max_bootstrapped_demos"].default == optimizers._MIPRO_DEMOS
    assert made["max_labeled_demos"].default == optimizers._MIPRO_DEMOS
    run = inspect.signature(dspy.MIPROv2.compile).parameters
    assert run["minibatch_size"].default == optimizers._MIPRO_MINIBATCH
    sizes = {name: how["val_size"] for name, how in mipro_optimizer_v2.AUTO_RUN_SETTINGS.items()}
    assert sizes == optimizers._MIPRO_VALSETS
    assert mipro_optimizer_v2.MIN_MINIBATCH_SIZE + 1 == optimizers._MIPRO_LEAST_TO_BATCH
    for how in mipro_optimizer_v2.AUTO_RUN_SETTINGS.values():
        assert how["n"] > optimizers._MIPRO_UNDRAWN_SETS


class BegunError(Exception):
    """A run has come as far as its own preparations."""


def begin_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a worker does, up to where it needs a bridge."""

    def begun(*_args: object) -> None:
        raise BegunError

    monkeypatch.setattr(optimize, "Optimization", begun)
    job: Any = None
    with pytest.raises(BegunError):
        optimize.optimize(job, job)


def test_an_example_that_takes_very_long_is_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallelizer.ParallelExecutor, "execute", None)  # put back at the end
    begin_a_run(monkeypatch)
    runs: Counter[int] = Counter()
    is_late = threading.Event()

    def wait(*args: Any, **kwargs: Any) -> Any:
        # For the second time: it has been looked at who takes long.
        if next(waits) > 0:
            is_late.set()
        return concurrent.futures.wait(*args, **kwargs)

    waits, hours = itertools.count(), itertools.count(1)
    monkeypatch.setattr(parallelizer, "wait", wait)
    monkeypatch.setattr(parallelizer, "time", SimpleNamespace(time=lambda: 3600.0 * next(hours)))

    class Slow(dspy.Module):  # type: ignore[misc]  # dspy ships no types
        def forward(self, number: int) -> Any:
            runs[number] += 1
            is_late.wait(BOUND_S)
            return dspy.Prediction(number=number)

    examples = [dspy.Example(number=number).with_inputs("number") for number in range(2)]
    evaluate = dspy.Evaluate(devset=examples, metric=lambda *_: 1.0, num_threads=4)
    assert evaluate(Slow()).score == 100.0
    assert runs == {0: 1, 1: 1}
