"""GraphQL documents: checked once each, and refused as often as they come."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from dspex_server.api.schema import SCHEMA

from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from collections.abc import Iterator

DEEP = "{ signature { transitions " * 8 + "{ at }" + " } }" * 8


@contextmanager
def counted(*names: str) -> Iterator[dict[str, int]]:
    """How often functions of these names are called."""
    calls = dict.fromkeys(names, 0)

    def hear(frame: Any, event: str, _argument: object) -> None:
        if event == "call" and frame.f_code.co_name in calls:
            calls[frame.f_code.co_name] += 1

    sys.setprofile(hear)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@on_a_loop
async def test_a_document_that_comes_again_is_not_checked_again() -> None:
    with counted("parse", "validate_document") as calls:
        for _ in range(3):
            answer = await SCHEMA.execute("{ again: __typename }")
            assert answer.errors is None
            assert answer.data == {"again": "Query"}
    assert calls == {"parse": 1, "validate_document": 1}


@on_a_loop
async def test_a_long_document_is_not_kept() -> None:
    with counted("validate_document") as calls:
        for _ in range(2):
            answer = await SCHEMA.execute("{ long: __typename }" + " " * 10_000)
            assert answer.errors is None
    assert calls == {"validate_document": 2}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{ nothing }", "Cannot query field 'nothing'"),
        ("{ __typename", "Syntax Error"),
        ("{ " + " ".join(f"a{n}: __typename" for n in range(51)) + " }", "51 aliases found"),
        (
            "{ programs { nodes "
            + "{ signature { transitions " * 8
            + "{ at }"
            + " } }" * 8
            + " } }",
            "exceeds maximum operation depth of 16",
        ),
        ("{ " + "__typename " * 100_000 + "}", "Document contains more than 100000 tokens"),
    ],
)
@on_a_loop
async def test_a_document_that_may_not_be_is_refused_as_often_as_it_comes(
    document: str, message: str
) -> None:
    for _ in range(2):
        answer = await SCHEMA.execute(document)
        assert answer.errors is not None
        assert any(message in error.message for error in answer.errors), answer.errors
