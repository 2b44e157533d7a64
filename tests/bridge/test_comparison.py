"""What an optimizer gained, in numbers and in words."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
from dspex_bridge.engine.modules.ensemble import majority
from dspex_bridge.jobs.comparison import changes, comparison
from dspex_bridge.programs.spec import Demo, Predictor, ProgramSpec
from dspex_protocol.signatures import parse_signature


def test_a_comparison_is_of_pairs() -> None:
    # Both vary widely from example to example, and the second is always a little better.
    base = [0.0, 0.3, 0.6, 0.9] * 10
    told = comparison(base, [score + 0.1 for score in base])
    assert told["difference"] == pytest.approx(0.1)
    assert told["difference_interval"] == pytest.approx([0.1, 0.1])
    low, high = told["base_interval"]
    assert low < 0.45 < high
    assert high - low > 0.1
    assert (told["won"], told["lost"]) == (list(range(40)), [])


def test_a_comparison_of_the_same_is_no_difference_and_is_the_same_again() -> None:
    told = comparison([0.0, 1.0], [0.0, 1.0 + 1e-12])
    assert (told["won"], told["lost"], told["examples"]) == ([], [], 2)
    assert told == comparison([0.0, 1.0], [0.0, 1.0 + 1e-12])


def test_changes_are_told_line_by_line() -> None:
    demo = Demo({"q": "1"}, {"a": "2"}, {"augmented": True})
    before = ProgramSpec(
        parse_signature("q -> a"), predictors={"self": Predictor("Answer.\nBe brief.", ())}
    )
    after = replace(
        before,
        lm="other",
        config={"temperature": 0.5},
        variables={"lm": {"default": "other"}},
        predictors={"self": Predictor("Answer.\nBe kind.", (demo,))},
    )
    assert changes(before, after) == [
        "lm: the default -> other",
        "config.temperature: not set -> 0.5",
        "variables.lm: not set -> other",
        "self: instructions:",
        " Answer.",
        "-Be brief.",
        "+Be kind.",
        "self: 0 -> 1 demonstrations (1 of them bootstrapped)",
    ]
    assert changes(after, after) == []


def test_an_instruction_that_another_module_has_under_another_name_is_no_change() -> None:
    demo = Demo({"q": "1"}, {"a": "2"})
    before = ProgramSpec(parse_signature("q -> a"), predictors={"self": Predictor("Answer.", ())})
    around = replace(before, module="knn", predictors={"module": Predictor("Answer.", (demo,))})
    assert changes(before, around) == [
        "module: predict -> knn",
        "module: 0 -> 1 demonstrations (0 of them bootstrapped)",
    ]
    two = {"react": Predictor("Act.", ()), "extract": Predictor("Answer.", ())}
    told = changes(before, replace(before, module="react", predictors=two))
    assert ("react: instructions:" in told, "extract: instructions:" in told) == (True, True)


def test_a_majority_is_of_values_and_the_earliest_of_as_many() -> None:
    assert majority(["A cat.", "dog", "a cat"]) == "A cat."
    assert majority([1, 2, 2]) == 2
    assert majority([1, 2]) == 1
    assert majority([["a"], ["a"], ["b"]]) == ["a"]
    assert majority([True, 1, 1]) == 1


def test_the_engine_is_imported_without_numpy() -> None:
    code = "import sys; sys.modules['numpy'] = None; import dspex_bridge.engine.core"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
