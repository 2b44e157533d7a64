"""The tree of errors: one class a code, the same on both sides of the wire."""

from __future__ import annotations

import copy
import inspect
import re

import pytest
from dspex_protocol import errors
from dspex_protocol.errors import (
    ERRORS,
    ConnectionLostError,
    DSPexError,
    InputValidationError,
    InternalError,
    LMError,
    NotFoundError,
    OutputValidationError,
    OverloadedError,
    ShuttingDownError,
    ValidationError,
    error_from_wire,
)

# Section 2 of the protocol, to the letter.
CODES = [
    "parse_error",
    "invalid_request",
    "frame_too_large",
    "method_not_found",
    "invalid_params",
    "unsupported_version",
    "not_found",
    "already_exists",
    "signature_error",
    "input_validation",
    "output_validation",
    "lm_error",
    "budget_exceeded",
    "tool_error",
    "metric_error",
    "optimizer_error",
    "timeout",
    "cancelled",
    "overloaded",
    "shutting_down",
    "unavailable",
    "internal_error",
]


def test_there_is_one_class_for_each_code_of_the_protocol() -> None:
    assert list(ERRORS) == CODES
    assert len(set(ERRORS.values())) == len(CODES)
    assert all(cls.code == code for code, cls in ERRORS.items())


def test_every_error_is_a_dspex_error_and_drawn_in_the_docstring() -> None:
    classes = [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, DSPexError)
    ]
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))
    assert drawn == {cls.__name__ for cls in classes}
    assert {cls.__name__ for cls in classes} <= set(errors.__all__)
    for code, cls in ERRORS.items():
        assert re.search(rf"{cls.__name__} +{code}\b", errors.__doc__ or ""), code


@pytest.mark.parametrize("code", CODES)
def test_an_error_comes_back_from_the_wire_as_what_it_was(code: str) -> None:
    sent = ERRORS[code]("what happened", data={"kind": "x", "list": [1]}, retryable=True)
    got = error_from_wire(sent.to_wire())
    assert type(got) is ERRORS[code]
    assert str(got) == got.message == "what happened"
    assert got.data == {"kind": "x", "list": [1]}
    assert got.retryable is True


def test_the_wire_form_has_its_four_keys_always() -> None:
    assert NotFoundError("there is no program 'qa'").to_wire() == {
        "code": "not_found",
        "message": "there is no program 'qa'",
        "retryable": False,
        "data": {},
    }


def test_only_an_overloaded_or_leaving_bridge_is_worth_a_retry_unless_it_says_so() -> None:
    retryable = {code for code, cls in ERRORS.items() if cls("m").retryable}
    assert retryable == {"overloaded", "shutting_down"}
    assert OverloadedError("m", retryable=False).to_wire()["retryable"] is False
    assert LMError("m", retryable=True).to_wire()["retryable"] is True
    assert error_from_wire({"code": "lm_error", "message": "m", "retryable": True}).retryable
    assert error_from_wire({"code": "overloaded", "message": "m"}).retryable
    assert ShuttingDownError.retryable


def test_an_unknown_code_is_an_internal_error_that_keeps_the_rest() -> None:
    got = error_from_wire({"code": "new", "message": "m", "retryable": True, "data": {"a": 1}})
    assert type(got) is InternalError
    assert (got.message, got.retryable, got.data) == ("m", True, {"a": 1})


def test_a_local_error_is_sent_as_an_internal_one() -> None:
    assert "connection_lost" not in ERRORS
    assert ConnectionLostError("gone").to_wire()["code"] == "internal_error"
    assert not ConnectionLostError("gone").retryable, "it may have been done in part"


def test_input_and_output_validation_are_caught_together() -> None:
    for cls in (InputValidationError, OutputValidationError):
        with pytest.raises(ValidationError):
            raise cls("m", data={"errors": []})


def test_the_data_of_one_error_is_not_the_data_of_another() -> None:
    first, second = NotFoundError("m"), NotFoundError("m")
    first.data["kind"] = "program"
    assert second.data == {}


def test_an_error_survives_being_copied() -> None:
    error = copy.copy(LMError("m", data={"kind": "auth"}, retryable=True))
    assert (error.message, error.data, error.retryable) == ("m", {"kind": "auth"}, True)
