"""Every error that can cross the wire, one class a code.

DSPexError
├── ParseError               parse_error           not one whole MessagePack value
├── InvalidRequestError      invalid_request       a value, but no message
├── FrameTooLargeError       frame_too_large       data: size, limit
├── MethodNotFoundError      method_not_found
├── InvalidParamsError       invalid_params
├── UnsupportedVersionError  unsupported_version   data: supported
├── NotFoundError            not_found             data: kind, name
├── AlreadyExistsError       already_exists
├── SignatureError           signature_error       data: position where it is a parse
├── ValidationError
│   ├── InputValidationError   input_validation    data: errors
│   └── OutputValidationError  output_validation   data: errors
├── LMError                  lm_error              data: kind, status?, retry_after_ms?
├── BudgetExceededError      budget_exceeded
├── ToolError                tool_error
├── MetricError              metric_error
├── OptimizerError           optimizer_error
├── RequestTimeoutError      timeout
├── RequestCancelledError    cancelled
├── OverloadedError          overloaded            retryable
├── ShuttingDownError        shutting_down         retryable
├── UnavailableError         unavailable           the message names the install command
├── ConnectionLostError      (local: never sent)   the peer went away before it answered
└── InternalError            internal_error
"""

from __future__ import annotations

__all__ = [
    "ERRORS",
    "AlreadyExistsError",
    "BudgetExceededError",
    "ConnectionLostError",
    "DSPexError",
    "FrameTooLargeError",
    "InputValidationError",
    "InternalError",
    "InvalidParamsError",
    "InvalidRequestError",
    "LMError",
    "MethodNotFoundError",
    "MetricError",
    "NotFoundError",
    "OptimizerError",
    "OutputValidationError",
    "OverloadedError",
    "ParseError",
    "RequestCancelledError",
    "RequestTimeoutError",
    "ShuttingDownError",
    "SignatureError",
    "ToolError",
    "UnavailableError",
    "UnsupportedVersionError",
    "ValidationError",
    "error_from_wire",
]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar


class DSPexError(Exception):
    """An error with a wire form: `{code, message, retryable, data}`.

    `str(error)` is the message: one sentence for a person.
    """

    code: ClassVar[str] = "internal_error"
    retryable: bool = False

    def __init__(
        self, message: str, *, data: dict[str, Any] | None = None, retryable: bool | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.data: dict[str, Any] = {} if data is None else data
        if retryable is not None:
            self.retryable = retryable

    def to_wire(self) -> dict[str, Any]:
        return {
            # A local error (a tool that lost its own connection) means nothing to the peer.
            "code": self.code if self.code in ERRORS else InternalError.code,
            "message": self.message,
            "retryable": self.retryable,
            "data": self.data,
        }


class ParseError(DSPexError):
    code = "parse_error"


class InvalidRequestError(DSPexError):
    code = "invalid_request"


class FrameTooLargeError(DSPexError):
    code = "frame_too_large"


class MethodNotFoundError(DSPexError):
    code = "method_not_found"


class InvalidParamsError(DSPexError):
    code = "invalid_params"


class UnsupportedVersionError(DSPexError):
    code = "unsupported_version"


class NotFoundError(DSPexError):
    """Something named in a request does not exist; `data.kind` says what sort of thing."""

    code = "not_found"


class AlreadyExistsError(DSPexError):
    code = "already_exists"


class SignatureError(DSPexError):
    """A signature or type that cannot be used.

    `data.position` is the character offset (from 0) in the text where it is a parse.
    """

    code = "signature_error"


class ValidationError(DSPexError):
    """Values that do not fit their signature.

    `data.errors` is a list of `{path, type, message, expected, got}`.
    """


class InputValidationError(ValidationError):
    code = "input_validation"


class OutputValidationError(ValidationError):
    code = "output_validation"


class LMError(DSPexError):
    """A language model did not answer; `data.kind` says why."""

    code = "lm_error"


class BudgetExceededError(DSPexError):
    code = "budget_exceeded"


class ToolError(DSPexError):
    code = "tool_error"


class MetricError(DSPexError):
    code = "metric_error"


class OptimizerError(DSPexError):
    code = "optimizer_error"


class RequestTimeoutError(DSPexError):
    code = "timeout"


class RequestCancelledError(DSPexError):
    code = "cancelled"


class OverloadedError(DSPexError):
    code = "overloaded"
    retryable = True


class ShuttingDownError(DSPexError):
    code = "shutting_down"
    retryable = True


class UnavailableError(DSPexError):
    code = "unavailable"


class InternalError(DSPexError):
    code = "internal_error"


class ConnectionLostError(DSPexError):
    """The connection ended with the request unanswered. Raised locally, never sent.

    `retryable` only where the request was never sent: another may have been done in part, and
    paid for. A new connection is needed in either case.
    """

    code = "connection_lost"


ERRORS: dict[str, type[DSPexError]] = {
    cls.code: cls
    for cls in (
        ParseError,
        InvalidRequestError,
        FrameTooLargeError,
        MethodNotFoundError,
        InvalidParamsError,
        UnsupportedVersionError,
        NotFoundError,
        AlreadyExistsError,
        SignatureError,
        InputValidationError,
        OutputValidationError,
        LMError,
        BudgetExceededError,
        ToolError,
        MetricError,
        OptimizerError,
        RequestTimeoutError,
        RequestCancelledError,
        OverloadedError,
        ShuttingDownError,
        UnavailableError,
        InternalError,
    )
}


def error_from_wire(error: dict[str, Any]) -> DSPexError:
    """The exception for a wire error. An unknown code is an internal error, so that codes can grow.

    The shape was checked when the message was parsed (see `messages`).
    """
    cls = ERRORS.get(error["code"], InternalError)
    return cls(error["message"], data=error.get("data") or {}, retryable=error.get("retryable"))
