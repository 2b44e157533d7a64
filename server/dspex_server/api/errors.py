"""Errors as members of a mutation's union. Nothing of the inside is told: no stack trace."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import strawberry
from dspex_protocol.errors import DSPexError, NotFoundError, SignatureError, ValidationError
from sqlalchemy.exc import IntegrityError

from dspex_server.errors import WrongStateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

__all__ = [
    "FieldError",
    "InvalidInput",
    "InvalidValues",
    "NotFound",
    "Problem",
    "Problems",
    "RequestFailed",
    "WrongState",
    "as_problem",
    "problem_of",
    "telling",
]

P = ParamSpec("P")
T = TypeVar("T")

# Of two who make the same thing at once one is told that it is there: it asks again.
_ATTEMPTS = 3

_log = logging.getLogger("dspex.server")


@strawberry.interface
class Problem:
    """Why something was not done."""

    code: str = strawberry.field(description="One of the protocol's codes, or of the server's own.")
    message: str = strawberry.field(description="One sentence for a person.")
    retryable: bool


@strawberry.type
class FieldError:
    path: list[str] = strawberry.field(description="The field, then keys and indexes.")
    type: str
    message: str
    expected: str
    got: str


@strawberry.type(description="Values that do not fit their signature.")
class InvalidValues(Problem):
    errors: list[FieldError]
    execution_id: strawberry.ID | None = strawberry.field(
        default=None, description="The failed execution that was written."
    )


@strawberry.type(description="An argument that cannot be: it names it, or where a text is wrong.")
class InvalidInput(Problem):
    param: str | None
    position: int | None = strawberry.field(description="In a signature's text, from 0.")


@strawberry.type(description="Something that was named does not exist.")
class NotFound(Problem):
    kind: str | None
    name: str | None


@strawberry.type(description="A resource cannot go from its state to the one asked for.")
class WrongState(Problem):
    resource: str | None
    current_state: str | None
    allowed: list[str]


@strawberry.type(description="Any other reason; `code` says which.")
class RequestFailed(Problem):
    pass


def problem_of(error: DSPexError, execution_id: str | None = None) -> Problem:
    data = error.data
    known: dict[str, Any] = {
        "code": error.code,
        "message": error.message,
        "retryable": error.retryable,
    }
    if isinstance(error, ValidationError):
        return InvalidValues(
            **known,
            errors=[_field_error(item) for item in data.get("errors", ())],
            execution_id=None if execution_id is None else strawberry.ID(execution_id),
        )
    if isinstance(error, NotFoundError):
        return NotFound(**known, kind=data.get("kind"), name=data.get("name"))
    if isinstance(error, WrongStateError):
        return WrongState(
            **known,
            resource=data.get("resource"),
            current_state=data.get("state"),
            allowed=data.get("allowed", []),
        )
    if isinstance(error, SignatureError) or error.code in ("invalid_params", "already_exists"):
        return InvalidInput(**known, param=data.get("param"), position=data.get("position"))
    return RequestFailed(**known)


def as_problem(error: Mapping[str, Any], execution_id: str) -> Problem:
    """That of an execution's row."""
    from dspex_protocol.errors import error_from_wire

    return problem_of(error_from_wire(dict(error)), execution_id)


def telling(resolve: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T | Problem]]:
    """A resolver whose errors are answers."""

    @functools.wraps(resolve)
    async def told(*args: P.args, **kwargs: P.kwargs) -> T | Problem:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await resolve(*args, **kwargs)
            except DSPexError as error:
                return problem_of(error)
            except IntegrityError:
                if attempt == _ATTEMPTS:
                    raise
            except RecursionError:
                return RequestFailed(
                    code="invalid_params", message="a value is nested too deep", retryable=False
                )
        raise AssertionError("the last attempt returns or raises")

    return told


def _field_error(item: Mapping[str, Any]) -> FieldError:
    return FieldError(
        path=[str(part) for part in item["path"]],
        type=item["type"],
        message=item["message"],
        expected=item["expected"],
        got=item["got"],
    )


#: Every union ends with these.
Problems = InvalidValues | InvalidInput | NotFound | WrongState | RequestFailed
