"""Regular expressions: matching in linear time, and samples that match."""

import time

import pytest
from dspex_bridge.engine.embedded.patterns import SAMPLE_LIMIT, matcher, sample
from pydantic_core import SchemaValidator, core_schema


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[A-Z]{3}$",
        r"^\d{4}-\d{2}$",
        r"^(low|medium|high)$",
        r"^[a-z0-9]+(?:-[a-z0-9]+)*$",
        r"[^a0A]",
        r"^[^@\s]+@[^@\s]+\.[a-z]{2,}$",
        r"^(?P<area>\d{3})[-. ]?\d{4}$",
        r"^\+?[1-9]\d{1,14}$",
        r"^\p{Lu}\w*$",
        r"^[[:alpha:]]+$",
        r"^a|b$",
        r"^\x41\u0042\.$",
        r"^[\d\-]{2,}?$",
        r"^(?:(?i)yes|no)$",
        "",
    ],
)
def test_a_sample_matches_by_pydantics_own_reading(pattern: str) -> None:
    text = sample(pattern)
    assert text is not None
    SchemaValidator(core_schema.str_schema(pattern=pattern)).validate_python(text)


def test_a_sample_keeps_to_the_lengths_asked_for() -> None:
    assert sample("^[a-z]+$", min_length=10, max_length=20) == "a" * 16
    assert sample("^[a-z]{3,}$", min_length=3, max_length=3) == "aaa"
    assert sample("^[a-z]{3,}$", max_length=2) is None


@pytest.mark.parametrize(
    "pattern", ["(", "[", "a{", "a{9", "(?<", "\\", "(?P<", "[a-", "x" * 5000, "(" * 3000]
)
def test_what_is_no_pattern_or_has_no_short_match_has_no_sample(pattern: str) -> None:
    assert sample(pattern) is None


@pytest.mark.parametrize("pattern", ["((a{99}){99}){99}", "(?:(?:a{30}){30}){30}", "a{99999999}"])
def test_repetitions_that_multiply_are_given_up(pattern: str) -> None:
    text = sample(pattern)
    assert text is None or len(text) <= SAMPLE_LIMIT


def test_a_pattern_that_makes_backtracking_explode_matches_at_once() -> None:
    matches = matcher(r"^(a+)+$")
    assert matches is not None
    start = time.process_time()
    assert not matches("a" * 100_000 + "!")
    assert time.process_time() - start < 5


def test_look_arounds_which_pydantic_refuses_have_no_matcher() -> None:
    assert matcher("(?=a)b") is None
