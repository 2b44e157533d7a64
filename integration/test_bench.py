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
from integration.bench.measurement import Comparison, Contestant, Measurement, Result, measure
from integration.bench.measurements import MEASUREMENTS
from integration.bench.profiling import summary
from integration.bench.run import Run
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


def test_a_page_has_each_comparison_with_its_target_and_a_plot_of_the_rounds(
    tmp_path: Path,
) -> None:
    run = Run(seed=1, rounds=2, is_quick=False, failed=["<other>"])
    run.results.append(_result([3.0, 5.0], [1.0, 1.0], _COST))
    run.write(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert "<td class=number>4 <td>at most 2<td class=missed>missed" in page
    assert page.count("<circle") == 4
    assert "&lt;other&gt;" in page


def test_a_measurement_that_fails_is_told_and_does_not_end_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_workshop: Workshop, _stack: ExitStack) -> dict[str, Contestant]:
        raise WrongAnswerError("not what was asked for")

    constant = Measurement(
        "constant",
        "constant",
        "µs",
        lambda *_: {"own": lambda: 1.0, "floor": lambda: 2.0},
        (_COST,),
    )
    monkeypatch.setitem(MEASUREMENTS, "broken", Measurement("broken", "broken", "µs", broken, ()))
    monkeypatch.setitem(MEASUREMENTS, "constant", constant)
    arguments = ["broken", "constant", "--no-peers", "--output", str(tmp_path)]
    assert main(arguments) == 1
    told = json.loads((tmp_path / "bench.json").read_text())
    assert told["failed"] == ["broken"]
    assert [each["name"] for each in told["measurements"]] == ["constant"]
    assert "not what was asked for" in capsys.readouterr().err


def test_a_check_fails_where_the_baseline_was_better_and_passes_where_it_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measurement = Measurement(
        "made-up", "made up", "µs", lambda *_: {"own": lambda: 3.0, "floor": lambda: 1.0}, (_COST,)
    )
    path = tmp_path / "baseline.json"
    monkeypatch.setitem(MEASUREMENTS, "made-up", measurement)
    monkeypatch.setattr(baseline, "BASELINE", path)
    arguments = ["made-up", "--no-peers", "--check", "--output", str(tmp_path)]
    path.write_text(json.dumps({"made-up": {"cost": 2.9}}))
    assert main(arguments) == 0
    path.write_text(json.dumps({"made-up": {"cost": 2.0}}))
    assert main(arguments) == 1
    assert "made-up: cost is 3 and was 2" in capsys.readouterr().err


def test_the_committed_baseline_names_measurements_and_comparisons_that_there_are() -> None:
    for name, ratios in baseline.read().items():
        known = {each.name for each in MEASUREMENTS[name].comparisons if each.over is not None}
        assert set(ratios) <= known, name


def test_a_profile_tells_own_and_inner_shares_of_the_samples() -> None:
    told = summary(["loop;work 30", "loop;work;loop 10", "loop 60"]).splitlines()
    assert told[0] == "  100 samples"
    assert [line.split() for line in told[2:]] == [
        ["70.0%", "100.0%", "loop"],
        ["30.0%", "40.0%", "work"],
    ]


def test_every_measurement_has_a_name_of_its_own_and_says_what_it_compares() -> None:
    for name, measurement in MEASUREMENTS.items():
        assert name == measurement.name
        assert measurement.note
        names = [each.name for each in measurement.comparisons]
        assert names
        assert len(set(names)) == len(names)
