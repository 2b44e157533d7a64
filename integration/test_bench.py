"""The benchmark: its arguments, its arithmetic, its check, and that its measurements run.

What they come to depends on the machine and on who else runs: `scripts/bench` tells it.
"""

from __future__ import annotations

import json
import random
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from integration.bench import baseline
from integration.bench.__main__ import main
from integration.bench.lines import WrongAnswerError
from integration.bench.measurement import Comparison, Measurement, Result, measure
from integration.bench.server import Server, requests
from integration.bench.workshop import Workshop

_COST = Comparison("cost", "own", "floor", bound=2.0)
_RATE = Comparison("rate", "own", "floor", is_rate=True, bound=0.5)


def _measurement(*comparisons: Comparison) -> Measurement:
    return Measurement("made-up", "made up", "µs", lambda *_: {}, comparisons)


def _result(own: list[float], floor: list[float], *comparisons: Comparison) -> Result:
    return Result(_measurement(*comparisons), {"own": own, "floor": floor})


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    # The ratio of the medians would be 30 / 2.
    result = _result([10.0, 30.0, 90.0], [2.0, 1.0, 45.0], _COST, _RATE)
    cost, rate = result.told
    assert cost.value == 5.0
    assert rate.value == 0.2


def test_a_cost_meets_its_target_below_it_and_a_rate_above() -> None:
    met = _result([3.0], [2.0], _COST, _RATE)
    missed = _result([5.0], [2.0], _COST, _RATE)
    assert [each.is_met for each in met.told] == [True, True]
    assert [each.is_met for each in missed.told] == [False, False]


def test_a_figure_of_one_contestant_alone_is_told_and_held_to_no_baseline() -> None:
    alone = Comparison("a second", "own", is_rate=True, unit="calls/s")
    result = _result([0.001], [1.0], alone)
    assert result.told[0].value == pytest.approx(1000)
    assert result.ratios() == {}


def test_a_comparison_with_a_contestant_that_did_not_take_part_is_left_out() -> None:
    assert _result([1.0], [1.0], Comparison("peer", "peer", "floor")).told == ()


@pytest.mark.parametrize(
    ("was", "own", "comparison", "lost"),
    [
        (2.0, 2.49, _COST, False),
        (2.0, 2.51, _COST, True),
        (2.0, 1.0, _COST, False),
        (0.4, 1 / 0.31, _RATE, False),
        (0.4, 1 / 0.29, _RATE, True),
    ],
)
def test_a_ratio_is_lost_where_it_is_worse_by_more_than_a_quarter(
    was: float, own: float, comparison: Comparison, lost: bool
) -> None:
    lines = baseline.losses(
        [_result([own], [1.0], comparison)], {"made-up": {comparison.name: was}}
    )
    assert bool(lines) == lost


def test_a_ratio_that_the_baseline_has_and_the_run_has_not_is_lost() -> None:
    lines = baseline.losses([_result([1.0], [1.0], _COST)], {"made-up": {"gone": 1.0}})
    assert lines == ["made-up: gone was not measured (was 1)"]


def test_a_written_baseline_keeps_the_measurements_that_were_not_made(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    path.write_text(json.dumps({"other": {"ratio": 1.5}}))
    baseline.write([_result([3.0], [2.0], _COST)], path)
    assert baseline.read(path) == {"other": {"ratio": 1.5}, "made-up": {"cost": 1.5}}


def test_contestants_take_turns_and_their_first_round_does_not_count() -> None:
    calls: list[str] = []

    def contestant(name: str) -> float:
        calls.append(name)
        return float(len(calls))

    measurement = Measurement(
        "made-up",
        "made up",
        "µs",
        lambda *_: {"a": lambda: contestant("a"), "b": lambda: contestant("b")},
        (),
    )
    with Workshop(quick=True) as workshop:
        result = measure(measurement, workshop, 3, random.Random(1))
    assert [sorted(calls[at : at + 2]) for at in range(0, 8, 2)] == [["a", "b"]] * 4
    assert sorted(result.rounds["a"] + result.rounds["b"]) == [3, 4, 5, 6, 7, 8]


def test_an_answer_that_is_not_the_expected_one_ends_the_measurement() -> None:
    with Workshop(quick=True) as workshop, ExitStack() as stack:
        floor = stack.enter_context(Server(workshop, [str(workshop.floor)]))
        messages = workshop.messages(requests("ping", [{}]))
        with pytest.raises(WrongAnswerError):
            floor.run(messages, 1, check=lambda _last: False)


def test_answers_of_different_lengths_end_the_measurement() -> None:
    with Workshop(quick=True) as workshop, ExitStack() as stack:
        floor = stack.enter_context(Server(workshop, [str(workshop.floor)]))
        messages = workshop.messages(requests("ping", [{}, {"payload": "more"}]))
        with pytest.raises(WrongAnswerError, match="answers of"):
            floor.run(messages, 2)


def test_a_server_that_ends_is_told_with_what_it_wrote_to_stderr() -> None:
    with Workshop(quick=True) as workshop, ExitStack() as stack:
        command = [sys.executable, "-c", "raise SystemExit('no such luck')"]
        server = stack.enter_context(Server(workshop, command))
        with pytest.raises(WrongAnswerError, match="no such luck"):
            server.run(workshop.messages([b"\0\0\0\0"]), 1)


def test_the_floor_gives_back_frames_however_many_there_are_and_however_long() -> None:
    with Workshop(quick=True) as workshop, ExitStack() as stack:
        floor = stack.enter_context(Server(workshop, [str(workshop.floor)]))
        for size, number, window in ((0, 1000, 1), (10, 5000, 256), (3_000_000, 4, 2)):
            body = random.Random(size).randbytes(size)
            message = len(body).to_bytes(4, "big") + body
            sample = floor.run(workshop.messages([message]), number, window)
            assert (sample.shortest, sample.longest) == (size, size)
            assert sample.last == body[:4096]


def test_a_quick_run_measures_the_bridge_and_the_floor_and_writes_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["ping", "payload-1"]
    assert main([*names, "--quick", "--no-peers", "--rounds", "1", "--output", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "bench.json").read_text())
    assert [each["name"] for each in told["measurements"]] == names
    for measurement in told["measurements"]:
        assert set(measurement["rounds"]) == {"floor", "bridge"}
        assert all(costs[0] > 0 for costs in measurement["rounds"].values())
        assert measurement["comparisons"]
    assert "bridge / floor" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["nothing-of-that-name"], ["--rounds", "0"]])
def test_an_argument_that_cannot_be_is_refused_with_what_can(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert ("there are ping" in (said := capsys.readouterr().err)) or "1 or more" in said
