"""What an optimizer tries, as its tracker sees it."""

from __future__ import annotations

from collections.abc import Iterator

import dspy
import pytest
from dspex_bridge.engine.optimizers.tracker import Candidate, Tracker
from dspex_bridge.programs.spec import ProgramSpec
from dspex_protocol.signatures import parse_signature

SPEC = ProgramSpec(parse_signature("q -> a"))


def examples(count: int, word: str) -> list[dspy.Example]:
    return [dspy.Example(q=f"{word} {i}", a="x").with_inputs("q") for i in range(count)]


class Program(dspy.Module):  # type: ignore[misc]  # dspy ships no types
    """One predictor with these instructions, which is never called."""

    def __init__(self, instructions: str) -> None:
        super().__init__()
        self.predict = dspy.Predict(dspy.Signature("q -> a", instructions))

    def forward(self, q: str) -> dspy.Prediction:
        return dspy.Prediction(a=q)


TRAIN, VAL = examples(4, "train"), examples(4, "val")


@pytest.fixture
def tracker() -> Iterator[Tracker]:
    made = Tracker(SPEC, TRAIN, VAL, lambda _candidate: None)
    with dspy.context(callbacks=[made]):
        yield made


def score(tracker: Tracker, program: Program, rows: list[dspy.Example], value: float) -> None:
    for row in rows:
        tracker.scored(row, program(**row.inputs()), value)


def test_a_candidate_is_its_prompts_whichever_object_has_them(tracker: Tracker) -> None:
    score(tracker, Program("One."), VAL[:2], 1.0)
    score(tracker, Program("One."), VAL[2:], 0.0)
    score(tracker, Program("Two."), VAL, 0.25)
    assert [item.score for item in tracker.candidates] == [0.5, 0.25]
    assert [len(item.scores) for item in tracker.candidates] == [4, 4]
    assert tracker.metric_calls == 8


def test_the_values_of_variables_make_another_candidate_of_the_same_prompts(
    tracker: Tracker,
) -> None:
    score(tracker, Program("One."), VAL, 1.0)
    tracker.turn_to(SPEC, {"t": 1}, TRAIN, VAL)
    score(tracker, Program("One."), VAL, 0.0)
    assert [item.score for item in tracker.candidates] == [1.0, 0.0]


def best(tracker: Tracker) -> Candidate:
    found = tracker.best()
    assert found is not None
    return found


def test_the_best_is_not_one_that_was_lucky_on_a_few(tracker: Tracker) -> None:
    assert tracker.best() is None
    score(tracker, Program("Base."), VAL, 0.5)
    score(tracker, Program("Lucky."), VAL[:1], 1.0)
    assert best(tracker).number == 0
    score(tracker, Program("Good."), VAL[:2], 0.75)
    assert best(tracker).number == 2


def test_the_best_score_is_of_the_whole_valset_alone(tracker: Tracker) -> None:
    assert tracker.best_score is None
    score(tracker, Program("Base."), VAL[:3], 1.0)
    assert tracker.best_score is None
    score(tracker, Program("Base."), VAL[3:], 0.0)
    assert tracker.best_score == 0.75
    # It is the best of those that count for the result, and not yet for what is told.
    score(tracker, Program("Good."), VAL[:3], 1.0)
    assert best(tracker).number == 1
    assert tracker.best_score == 0.75
    score(tracker, Program("Good."), VAL[3:], 1.0)
    assert tracker.best_score == 1.0


def test_an_example_that_is_there_twice_has_its_score_in_both_places(tracker: Tracker) -> None:
    tracker.turn_to(SPEC, None, [*TRAIN, TRAIN[0]], [*VAL, VAL[0]])
    program = Program("One.")
    score(tracker, program, [*VAL, *TRAIN], 1.0)
    tracker.failed(tracker.of(program), range(5))
    assert tracker.of(program).scores == dict.fromkeys(range(5), 1.0)
    assert tracker.of(program).train_scores == dict.fromkeys(range(5), 1.0)
    assert tracker.best_score == 1.0


def test_where_candidates_are_scored_on_the_trainset_alone_the_best_is_by_that(
    tracker: Tracker,
) -> None:
    score(tracker, Program("Base."), [*VAL, *TRAIN], 0.5)
    score(tracker, Program("Better."), TRAIN, 0.75)
    assert best(tracker).number == 1


def test_a_trace_beside_the_prediction_does_not_hide_who_made_it(tracker: Tracker) -> None:
    class Traced(Program):
        def forward(self, q: str) -> tuple[dspy.Prediction, list[object]]:
            return dspy.Prediction(a=q), []

    program = Traced("One.")
    for row in VAL:
        prediction, _ = program(**row.inputs())
        tracker.scored(row, prediction, 1.0)
    assert best(tracker).scores == dict.fromkeys(range(4), 1.0)


def test_calls_are_counted_for_the_run_of_the_program_that_makes_them(tracker: Tracker) -> None:
    class Calling(Program):
        def forward(self, q: str) -> dspy.Prediction:
            assert tracker.usage is not None
            tracker.usage.add(10, 0.5, 100.0)
            tracker.usage.add(5, None if q == "val 1" else 0.25, 50.0)
            return dspy.Prediction(a=q)

    score(tracker, Calling("One."), VAL, 1.0)
    usages = best(tracker).usages
    assert [(item.tokens, item.latency_ms) for item in usages.values()] == [(15, 150.0)] * 4
    assert [item.cost_usd for item in usages.values()] == [0.75, None, 0.75, 0.75]
    assert tracker.usage is None


def test_what_failed_counts_zero_and_no_score_is_lost(tracker: Tracker) -> None:
    program = Program("One.")
    score(tracker, program, VAL[:1], 1.0)
    tracker.failed(tracker.of(program), range(4))
    assert tracker.of(program).scores == {0: 1.0, 1: 0.0, 2: 0.0, 3: 0.0}


def test_a_run_whose_demonstrations_are_put_back_before_the_metric_is_of_no_candidate(
    tracker: Tracker,
) -> None:
    program = Program("One.")
    program.predict.demos = [TRAIN[0]]
    score(tracker, program, TRAIN[:1], 1.0)
    program.predict.demos = []
    prediction = program(q="train 0")
    program.predict.demos = [TRAIN[0]]
    tracker.scored(TRAIN[0], prediction, 0.0)
    (candidate,) = tracker.candidates
    assert candidate.train_scores == {0: 1.0}
    assert tracker.metric_calls == 2
