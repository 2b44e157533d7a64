"""Which type's values can be given where another is wanted."""

from __future__ import annotations

import pytest
from dspex_bridge.programs.fitting import fits
from dspex_protocol.grammar import parse_type

FIT = [
    ("str", "str"),
    ("int", "float"),
    ("int", "decimal"),
    ("float", "decimal"),
    ("token_count", "int"),
    ("probability", "float"),
    ("probability", "confidence_score"),
    ("any", "int"),
    ("int", "any"),
    ("list[str]", "list"),
    ("list", "list[str]"),
    ("list[int]", "list[float]"),
    ("reasoning_chain", "list[str]"),
    ("list[str]", "reasoning_chain"),
    ("tuple[int, float]", "list[float]"),
    ("tuple[int, str]", "tuple[float, str]"),
    ("embedding[3]", "embedding"),
    ("embedding[3]", "list[float]"),
    ("list[float]", "embedding"),
    ("set[int]", "set[float]"),
    ("dict[str, int]", "dict"),
    ("dict[str, int]", "dict[str, float]"),
    ('Literal["a", "b"]', "str"),
    ('Literal["a"]', 'Literal["b", "a"]'),
    ('Literal["a", 1]', "str | int"),
    ("str", "str | None"),
    ("int | None", "float | None"),
    ("int | str", "str | float"),
    ('code["python"]', "code"),
    ("image", "image"),
]
DO_NOT_FIT = [
    ("str", "int"),
    ("str", 'Literal["a"]'),
    ("float", "int"),
    ("float", "probability"),
    ("int", "token_count"),
    ("bool", "int"),
    ("int", "bool"),
    ("int", "str"),
    ("date", "str"),
    ("str", "date"),
    ("str | None", "str"),
    ("int | str", "int"),
    ("list[str]", "list[int]"),
    ("list[str]", "str"),
    ("str", "list[str]"),
    ("list[int]", "tuple[int, int]"),
    ("tuple[int, str]", "list[int]"),
    ("tuple[int]", "tuple[int, int]"),
    ("list[int]", "set[int]"),
    ("set[int]", "list[int]"),
    ("list[float]", "embedding[3]"),
    ("embedding", "embedding[3]"),
    ("dict[str, str]", "dict[str, int]"),
    ("dict[int, str]", "dict"),
    ('Literal["a", "c"]', 'Literal["a", "b"]'),
    ("Literal[1]", "Literal[True]"),
    ('Literal["a", 1]', "str"),
    ("str", "image"),
    ("code", "str"),
]


@pytest.mark.parametrize(("source", "target"), FIT)
def test_a_type_fits_where_each_of_its_values_does(source: str, target: str) -> None:
    assert fits(parse_type(source), parse_type(target))


@pytest.mark.parametrize(("source", "target"), DO_NOT_FIT)
def test_a_type_does_not_fit_where_one_of_its_values_may_not(source: str, target: str) -> None:
    assert not fits(parse_type(source), parse_type(target))
