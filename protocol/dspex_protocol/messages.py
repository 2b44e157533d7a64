"""The three messages, parsed once and strictly: what passes here needs no second look."""

from __future__ import annotations

from .errors import DSPexError, InvalidRequestError, error_from_wire

__all__ = [
    "MAX_ID",
    "NOTIFICATION",
    "REQUEST",
    "RESPONSE",
    "Message",
    "Notification",
    "Request",
    "Response",
    "UnanswerableError",
    "parse_message",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

MAX_ID = 2**63 - 1

REQUEST, RESPONSE, NOTIFICATION = 0, 1, 2

_REQUEST_TYPES = [int, int, str, dict]


class Request:
    """`[0, id, method, params]`: asks for exactly one response with the same id."""

    __slots__ = ("id", "method", "params")

    def __init__(self, id: int, method: str, params: dict[str, Any]) -> None:
        self.id = id
        self.method = method
        self.params = params

    def to_wire(self) -> list[Any]:
        return [REQUEST, self.id, self.method, self.params]

    def __repr__(self) -> str:  # for logs, where a configure's keys must not stand
        return f"Request({self.id}, {self.method!r}, {{{', '.join(self.params)}}})"


class Response:
    """`[1, id, error, result]`: `error` is None where the request succeeded.

    An id of None answers a frame whose request cannot be told; it is only ever logged.
    """

    __slots__ = ("error", "id", "result")

    def __init__(self, id: int | None, error: DSPexError | None, result: Any) -> None:
        self.id = id
        self.error = error
        self.result = result

    def to_wire(self) -> list[Any]:
        error = None if self.error is None else self.error.to_wire()
        return [RESPONSE, self.id, error, self.result]

    def __repr__(self) -> str:
        return f"Response({self.id}, {self.error!r}, {type(self.result).__name__})"


class Notification:
    """`[2, method, params]`: never answered."""

    __slots__ = ("method", "params")

    def __init__(self, method: str, params: dict[str, Any]) -> None:
        self.method = method
        self.params = params

    def to_wire(self) -> list[Any]:
        return [NOTIFICATION, self.method, self.params]

    def __repr__(self) -> str:
        return f"Notification({self.method!r}, {{{', '.join(self.params)}}})"


Message: TypeAlias = "Request | Response | Notification"


class UnanswerableError(Exception):
    """A malformed response or notification: there is nobody to tell, so it is logged."""


def parse_message(value: Any) -> Message:
    """The message that a decoded frame is.

    Raises InvalidRequestError for what its sender should be told, UnanswerableError for the rest.
    """
    if type(value) is not list or not value:
        raise InvalidRequestError(
            f"a message is an array [0, id, method, params], got {_kind(value)}"
        )
    # What nearly all of them are, seen by one comparison; what is wrong with others is looked for.
    if [*map(type, value[:5])] == _REQUEST_TYPES and value[0] == REQUEST:
        _, request_id, method, params = value
        if 0 <= request_id <= MAX_ID:
            return Request(request_id, method, params)
    kind = value[0]
    if type(kind) is int and kind == REQUEST:
        raise _bad_request(value)
    if type(kind) is int and kind == RESPONSE:
        return _response(value)
    if type(kind) is int and kind == NOTIFICATION:
        return _notification(value)
    # The value itself is not quoted: an integer may have more digits than Python prints.
    raise InvalidRequestError(
        "a message begins with 0 (request), 1 (response) or 2 (notification), got "
        + ("another integer" if type(kind) is int else _kind(kind))
    )


def _bad_request(value: list[Any]) -> InvalidRequestError:
    if len(value) != 4:
        return InvalidRequestError(f"a request has 4 elements, got {len(value)}")
    _, request_id, method, params = value
    if not _is_id(request_id):
        return InvalidRequestError(f"the id of a request is an integer from 0 to {MAX_ID}")
    if type(method) is not str:
        return InvalidRequestError(f"the method of a request is a string, got {_kind(method)}")
    return InvalidRequestError(f"the params of a request are a map, got {_kind(params)}")


def _response(value: list[Any]) -> Response:
    if len(value) != 4:
        raise UnanswerableError(f"a response of {len(value)} elements (4 expected)")
    _, request_id, error, result = value
    if request_id is not None and not _is_id(request_id):
        raise UnanswerableError("a response whose id is neither an id nor nil")
    if error is None:
        return Response(request_id, None, result)
    if (
        type(error) is not dict
        or type(error.get("code")) is not str
        or type(error.get("message")) is not str
        or type(error.get("retryable", False)) is not bool
        or type(error.get("data", {})) is not dict
    ):
        raise UnanswerableError("a response whose error is not {code, message, retryable, data}")
    return Response(request_id, error_from_wire(error), None)


def _notification(value: list[Any]) -> Notification:
    if len(value) != 3 or type(value[1]) is not str or type(value[2]) is not dict:
        raise UnanswerableError("a notification is [2, method, params]")
    return Notification(value[1], value[2])


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_ID


_KINDS = {dict: "a map", list: "an array", str: "a string", type(None): "nil", bytes: "bytes"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), f"a value of type {type(value).__name__}")
