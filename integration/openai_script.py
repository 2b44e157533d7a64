"""What the local OpenAI-compatible server answers, and when it fails.

A script is a function of a `Request` that gives an `Answer`; one answer for every request and a
list of answers in turn are the short forms. `answering` makes the script that most tests want:
the given output fields, in the form that the prompt's DSPy adapter asked for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from dspex_bridge.testing.forms import in_form

__all__ = [
    "FAULTS",
    "Answer",
    "Fault",
    "Request",
    "Script",
    "ScriptError",
    "ToolCall",
    "answering",
    "as_script",
    "content_filter",
    "context_length_exceeded",
    "failure",
    "well_formed",
]

Fault = Literal["hang", "disconnect", "half_body", "stall", "malformed_json"]
"""How an answer goes wrong on the wire.

- `hang`: not a byte until the server's `release()`, then the whole answer.
- `disconnect`: the connection is closed before the first byte.
- `half_body`: half of the answer, then the connection is closed.
- `stall`: half of the answer, then not a byte until `release()`, then the rest.
- `malformed_json`: status 200 and a body (or one event of a stream) that is not JSON.
"""

FAULTS: tuple[Fault, ...] = get_args(Fault)


class ScriptError(Exception):
    """A script could not answer. The client gets a 500; the server raises this again when it is
    left, so that a test cannot pass on it."""


@dataclass(frozen=True)
class Request:
    """One request as it arrived; secrets in its headers are masked."""

    number: int
    """How many requests the server had received before this one."""
    path: str
    headers: Mapping[str, str]
    """By lower-case name."""
    body: Mapping[str, Any]

    @property
    def model(self) -> str:
        """The model's name as the client sent it, without LiteLLM's provider prefix."""
        return str(self.body["model"])

    @property
    def streamed(self) -> bool:
        return self.body.get("stream") is True

    @property
    def turns(self) -> list[tuple[str, str]]:
        """(role, text) of every message, in order, for both of OpenAI's request forms."""
        if self.path.endswith("/chat/completions"):
            return [(m["role"], _text(m.get("content"))) for m in self.body["messages"]]
        given = self.body["input"]
        items = [{"role": "user", "content": given}] if isinstance(given, str) else given
        turns = [(i["role"], _text(i.get("content"))) for i in items if "role" in i]
        if self.body.get("instructions"):
            turns.insert(0, ("system", self.body["instructions"]))
        return turns


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content or ())


@dataclass(frozen=True)
class ToolCall:
    """One call of a tool that the model asks for."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What one request gets: a completion, or an error where `status` is not 200."""

    content: str | Sequence[str] = ""
    """The text; of a sequence, choice i of a request for `n` gets the i-th, over and over."""
    reasoning: str = ""
    """What a reasoning model thinks before, as `reasoning_content` of a chat completion."""
    tool_calls: Sequence[ToolCall] = ()
    finish_reason: str | None = None
    """Where None: `tool_calls` where there are some, else `stop`."""
    usage: tuple[int, int] | None = None
    """Tokens of the prompt and of the completion; where None, their words are counted."""
    status: int = 200
    error: Mapping[str, Any] | None = None
    """The `error` object of a status other than 200 (see `failure`)."""
    headers: Mapping[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    """Seconds before the first byte."""
    fault: Fault | None = None

    def __post_init__(self) -> None:
        if self.fault is not None and self.fault not in FAULTS:
            raise ValueError(f"fault is one of {', '.join(FAULTS)}, not {self.fault!r}")
        if not isinstance(self.content, str) and not self.content:
            raise ValueError("content is a text or a sequence of at least one")

    def choice(self, index: int) -> str:
        """The text of choice `index`, from 0."""
        if isinstance(self.content, str):
            return self.content
        return self.content[index % len(self.content)]


Script = Callable[[Request], Answer]
"""Called on the server's own event loop, so it must not block: an `Answer` has `delay_s`."""

# OpenAI's own type, code and wording for each status.
_ERRORS: Mapping[int, tuple[str, str | None, str]] = {
    400: ("invalid_request_error", None, "The request is not valid."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: ("invalid_request_error", "model_not_found", "The model does not exist."),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
    500: ("server_error", None, "The server had an error while processing your request."),
}


def failure(
    status: int,
    *,
    code: str | None = None,
    message: str | None = None,
    retry_after: float | None = None,
) -> Answer:
    """An HTTP error as OpenAI words it; `retry_after` (seconds) becomes the Retry-After header."""
    family = status if status in _ERRORS else 500 if status >= 500 else 400
    kind, usual_code, usual_message = _ERRORS[family]
    error = {
        "message": message or usual_message,
        "type": kind,
        "param": None,
        "code": code or usual_code,
    }
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return Answer(status=status, error=error, headers=headers)


def context_length_exceeded() -> Answer:
    """The 400 that OpenAI gives to a prompt that is too long."""
    return failure(
        400,
        code="context_length_exceeded",
        message="This model's maximum context length is 8192 tokens. However, your messages "
        "resulted in 9000 tokens. Please reduce the length of the messages.",
    )


def content_filter() -> Answer:
    """The 400 that Azure OpenAI gives to a prompt that its content filter refuses.

    A completion that was cut off by a filter is `Answer(..., finish_reason="content_filter")`.
    """
    return failure(
        400,
        code="content_filter",
        message="The response was filtered due to the prompt triggering the content management "
        "policy. Please modify your prompt and retry.",
    )


def as_script(answers: Answer | Sequence[Answer] | Script) -> Script:
    """A script from one answer (for every request), a list (in turn) or a script."""
    if isinstance(answers, Answer):
        return lambda _: answers
    if callable(answers):
        return answers
    return _InTurn(answers)


class _InTurn:
    def __init__(self, answers: Sequence[Answer]) -> None:
        self._answers = list(answers)
        self._left = iter(self._answers)
        # One script may stand behind two servers, each with its own thread.
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Answer:
        with self._lock:
            answer = next(self._left, None)
        if answer is None:
            raise ScriptError(
                f"the script holds {len(self._answers)} answers and all are used up; "
                f"request {request.number} (model {request.model}) has none"
            )
        return answer


def answering(fields: Mapping[str, Any], **options: Any) -> Script:
    """The script that answers every DSPy prompt with the output fields it asks for.

    `fields` gives the values by name: a prompt that asks for another field is a `ScriptError`,
    names that a prompt does not ask for are left out. `options` are those of `Answer`.
    """
    return lambda request: well_formed(request, fields, **options)


def well_formed(request: Request, fields: Mapping[str, Any], **options: Any) -> Answer:
    """The answer that gives `fields` in the form that the request's prompt asks for.

    Knows DSPy's Chat, JSON (so BAML) and XML adapters, and says so where it meets another prompt.
    """
    asked = next((text for role, text in reversed(request.turns) if role == "user"), "")
    try:
        return Answer(in_form(asked, fields), **options)
    except ValueError as error:
        raise ScriptError(str(error)) from error
