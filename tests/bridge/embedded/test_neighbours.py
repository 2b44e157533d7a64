"""How close examples are, and what the nearest of them settle."""

from typing import Any

import pytest
from dspex_bridge.engine.embedded.neighbours import Settled, settle, similarities

INTEGER = {"type": "integer"}
NUMBER = {"type": "number"}
OPTION = {"enum": ["a", "b"]}


def test_similarity_is_1_for_the_same_and_0_for_nothing_in_common() -> None:
    examples = [{"text": "red apple"}, {"text": "green pear"}, {"text": "red pear"}]
    same, other, half = similarities(examples, {"text": "Red apples!"})
    assert (same, other) == (1.0, 0.0)
    assert 0 < half < 1


def test_similarities_are_rounded_so_that_the_last_bits_decide_nothing() -> None:
    examples = [{"text": "one two three"}, {"text": "two three four five"}]
    for similarity in similarities(examples, {"text": "two five six"}):
        assert similarity == round(similarity, 9) != 0


def test_a_one_word_field_does_not_outweigh_a_text() -> None:
    inputs = {"language": "english", "text": "the cat sat quietly on the warm red mat today"}
    examples = [
        {"language": "english", "text": "stock prices fell sharply"},
        {"language": "german", "text": "a quiet cat on a warm red mat"},
    ]
    first, second = similarities(examples, inputs)
    assert second > first


def test_examples_are_compared_over_the_fields_that_they_have() -> None:
    inputs = {"a": "red", "b": "blue"}
    assert similarities([{"a": "red"}, {"b": "green"}, {}], inputs) == [1.0, 0.0, 0.0]
    assert similarities([{"a": "red"}], {}) == [0.0]


def test_numbers_are_as_close_as_their_distance_in_the_range() -> None:
    examples = [{"n": "0"}, {"n": "10"}]
    assert similarities(examples, {"n": "4"}) == [0.6, 0.4]
    assert similarities(examples, {"n": "-100"}) == [0.0, 0.0]
    assert similarities([{"n": "5"}, {"n": "5"}], {"n": "5"}) == [1.0, 1.0]
    assert similarities([{"n": "5"}], {"n": "6"}) == [0.0]


@pytest.mark.parametrize(
    ("ranked", "schema", "expected"),
    [
        ([(0.5, "a"), (0.4, "b"), (0.3, "b")], OPTION, Settled("b", "voted")),
        ([(0.5, "a"), (0.25, "b"), (0.25, "b")], OPTION, Settled("a", "voted")),
        ([(0.9, "a"), (0.4, "b"), (0.3, "b"), (0.3, "b")], OPTION, Settled("a", "voted")),
        ([(1.0, "a"), (0.9, "b"), (0.9, "b")], OPTION, Settled("a", "repeated")),
        ([(0.0, "a"), (0.0, "b"), (0.0, "b")], OPTION, Settled("a", "repeated")),
        ([(0.5, True), (0.4, False), (0.4, False)], {"type": "boolean"}, Settled(False, "voted")),
        ([(0.5, 1), (0.5, 4)], INTEGER, Settled(2, "averaged")),
        ([(0.5, 1.0), (0.5, 4.0)], NUMBER, Settled(2.5, "averaged")),
        ([(0.0, 1), (0.0, 4)], INTEGER, Settled(1, "repeated")),
        ([(0.5, 5), (0.4, 15)], {**INTEGER, "multipleOf": 5}, Settled(5, "repeated")),
        (
            [(0.5, None), (0.4, 3)],
            {"anyOf": [INTEGER, {"type": "null"}]},
            Settled(None, "repeated"),
        ),
        ([(0.5, 10**400), (0.4, 1)], INTEGER, Settled(10**400, "repeated")),
        ([(0.9, 10**308), (0.9, 1), (0.9, 17 * 10**307)], INTEGER, Settled(10**308, "repeated")),
        ([(0.5, "1.50"), (0.4, "2")], {**NUMBER, "format": "decimal"}, Settled("1.50", "repeated")),
        ([(0.5, "x"), (0.4, "y"), (0.4, "y")], {"type": "string"}, Settled("x", "repeated")),
        ([(0.5, ["x"]), (0.4, [])], {"type": "array"}, Settled(["x"], "repeated")),
    ],
)
def test_what_the_nearest_settle(
    ranked: list[tuple[float, Any]], schema: dict[str, Any], expected: Settled
) -> None:
    settled = settle(ranked, schema)
    assert settled == expected
    assert type(settled.value) is type(expected.value)
