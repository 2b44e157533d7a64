from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from dspex_bridge import params
from dspex_protocol.errors import InvalidParamsError

SHAPE = params.record(
    {"program": params.name},
    {
        "timeout": params.integer(1),
        "lms": params.map_of(params.record({"model": params.text})),
        "tags": params.array(params.text, maximum=2),
        "level": params.one_of("debug", "info"),
        "ratio": params.number(0, 1),
        "lm": params.either(params.name, params.mapping, "a name or a map"),
    },
)


def refusal(value: Any) -> InvalidParamsError:
    with pytest.raises(InvalidParamsError) as caught:
        SHAPE(value, "execute")
    return caught.value


@pytest.mark.parametrize(
    "value",
    [
        {"program": "p"},
        {"program": "p", "timeout": None},
        {"program": "p", "lms": {"a": {"model": "m"}}, "tags": ["x", "y"], "level": "info"},
        {"program": "p", "ratio": 1, "lm": "main"},
        {"program": "p", "ratio": 0.5, "lm": {"model": "m"}},
    ],
)
def test_what_fits_passes(value: dict[str, Any]) -> None:
    SHAPE(value, "execute")


@pytest.mark.parametrize(
    ("value", "message", "param"),
    [
        (
            {"program": "p", "timout": 5},
            "execute: unknown parameter 'timout'. Did you mean 'timeout'? "
            "Valid: program, timeout, lms, tags, level, ratio, lm.",
            "timout",
        ),
        ({}, "execute: the parameter 'program' is missing.", "program"),
        (
            {"program": 3},
            "execute: program must be a string of 1 to 256 characters, got an integer (3).",
            "program",
        ),
        (
            {"program": "p", "timeout": 0},
            "execute: timeout must be an integer of at least 1, got an integer (0).",
            "timeout",
        ),
        (
            {"program": "p", "timeout": 10**5000},
            "execute: timeout must be an integer of at least 1, got an integer beyond 64 bits.",
            "timeout",
        ),
        (
            {"program": "p", "timeout": True},
            "execute: timeout must be an integer of at least 1, got a boolean (true).",
            "timeout",
        ),
        (
            {"program": "p", "lms": {"a": {"modle": "m"}}},
            "execute: lms.a: unknown parameter 'modle'. Did you mean 'model'? Valid: model.",
            "modle",
        ),
        (
            {"program": "p", "lms": {"a": {"model": None}}},
            "execute: lms.a.model must be a string, got nil.",
            "lms.a.model",
        ),
        (
            {"program": "p", "tags": ["x", 1]},
            "execute: tags[1] must be a string, got an integer (1).",
            "tags[1]",
        ),
        (
            {"program": "p", "tags": ["x"] * 3},
            "execute: tags must be a list of at most 2, got one of 3.",
            "tags",
        ),
        (
            {"program": "p", "level": "inof"},
            "execute: level is unknown: 'inof'. Did you mean 'info'? Valid: debug, info.",
            "level",
        ),
        (
            {"program": "p", "ratio": 1.5},
            "execute: ratio must be a number from 0 to 1, got a float (1.5).",
            "ratio",
        ),
        (
            {"program": "p", "ratio": float("nan")},
            "execute: ratio must be a number from 0 to 1, got a float (NaN).",
            "ratio",
        ),
        (
            {"program": ""},
            "execute: program must be a string of 1 to 256 characters, got an empty string.",
            "program",
        ),
        (
            {"program": Decimal("1.5")},
            "execute: program must be a string of 1 to 256 characters, got a decimal.",
            "program",
        ),
        *(
            (
                {"program": np.zeros(size)},
                "execute: program must be a string of 1 to 256 characters, got a tensor.",
                "program",
            )
            for size in (0, 1, 2)
        ),
        (
            {"program": "p", "lm": ["main"]},
            "execute: lm must be a name or a map, got a list.",
            "lm",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(
    value: dict[str, Any], message: str, param: str
) -> None:
    error = refusal(value)
    assert str(error) == message
    assert error.data["param"] == param


def test_a_name_as_long_as_a_frame_is_cut_and_compared_with_nothing() -> None:
    long = "program" * 2_000_000
    for value in ({"program": "p", long: 1}, {"program": "p", "level": long}):
        error = refusal(value)
        assert len(str(error)) < 1000
        assert len(error.data["param"]) < 1000
        assert "Did you mean" not in str(error)


def test_the_value_of_a_string_is_not_quoted_since_it_may_be_a_secret() -> None:
    assert "sk-12345" not in str(refusal({"program": "p", "timeout": "sk-12345"}))
