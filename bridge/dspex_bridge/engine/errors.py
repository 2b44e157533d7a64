"""DSPy's exceptions as the wire's errors."""

from __future__ import annotations

import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import LMError, OutputValidationError, UnavailableError
from dspex_protocol.spelling import suggestion
from dspy.clients._http import retry_after_seconds
from dspy.utils import exceptions as dspy_errors

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_protocol.errors import DSPexError

__all__ = ["failure_of", "for_clients", "retry_after_of", "translate"]

# Subclasses before their parents: the first that fits is it.
_KINDS: tuple[tuple[type[Exception], str, bool], ...] = (
    (dspy_errors.ContextWindowExceededError, "context_window", False),
    (dspy_errors.LMAuthError, "auth", False),
    (dspy_errors.LMNotConfiguredError, "auth", False),
    (dspy_errors.LMRateLimitError, "rate_limit", True),
    (dspy_errors.LMTimeoutError, "timeout", True),
    (dspy_errors.LMTransportError, "connection", True),
    (dspy_errors.LMServerError, "server", True),
    (dspy_errors.LMInvalidRequestError, "bad_request", False),
    (dspy_errors.LMUnsupportedFeatureError, "bad_request", False),
    (dspy_errors.LMConfigurationError, "bad_request", False),
    (dspy_errors.LMStreamAssemblyError, "connection", True),
    (dspy_errors.LMError, "other", False),
)

# What installs a package, where its own name does not say it: LiteLLM imports mcp for tools.
_PACKAGES = {"mcp": "'litellm[mcp]'"}

# Where DSPy lists what its own users can do. What clients of a bridge can do is said after it.
_ADVICE = "\n\n  To fix:"
_WHAT_TO_DO = {
    "auth": "Check the LM's api_key or api_key_env in configure, or its environment",
    "context_window": "Give shorter inputs or fewer demonstrations, or a model that reads more",
}

# DSPy's advice, and what it comes to here.
_REMEDIES = (
    ('pass api_key="..." to dspy.LM(...)', "give the LM an api_key or api_key_env in configure"),
    ("\n\n  credential came from: ", " The key came from "),
    (
        "require passing temperature=1.0 or None and max_tokens >= 16000 or None to "
        "`dspy.LM(...)`, e.g., dspy.LM('openai/gpt-5', temperature=1.0, max_tokens=16000)",
        "take a temperature of 1.0 or none, and max_tokens of at least 16000 or none",
    ),
)

# How much of an answer that could not be read is quoted back.
_MAX_QUOTED_CHARS = 500


def failure_of(error: BaseException) -> str | None:
    """The kind of `lm_error` that an exception of an LM call is; None for one that is none."""
    if isinstance(error, LMError):
        return str(error.data.get("kind", "other"))
    return _kind(error)[0] if isinstance(error, dspy_errors.LMError) else None


def retry_after_of(error: BaseException) -> float | None:
    """The seconds that a provider asked for."""
    told: float | None = getattr(error, "retry_after", None)
    if told is not None:
        return told
    for cause in _causes(error):
        # LiteLLM keeps the headers beside the response, which it makes anew.
        headers = getattr(cause, "litellm_response_headers", None) or {}
        told = retry_after_seconds(headers.get("retry-after"))
        if told is not None:
            return told
    return None


def translate(error: BaseException) -> DSPexError | None:
    if isinstance(error, dspy_errors.LMError):
        return _missing_package(error) or _lm_error(error)
    if isinstance(error, dspy_errors.AdapterParseError):
        return _unreadable(error)
    return None


def _kind(error: Any) -> tuple[str, bool]:
    """The kind of one of DSPy's LM errors, and whether the same call may succeed later."""
    kind, retryable = next((kind, again) for cls, kind, again in _KINDS if isinstance(error, cls))
    if kind == "server" and _is_broken_connection(error):
        kind = "connection"
    elif kind == "bad_request" and error.status == HTTPStatus.FORBIDDEN:
        kind = "auth"
    elif kind == "bad_request" and _is_content_filter(error):
        kind = "content_filter"
    elif kind == "connection" and _is_timeout(error):
        kind = "timeout"
    elif kind == "other" and error.status == HTTPStatus.OK:
        # It answered, and the answer was no answer: a gateway's page, a body cut into garbage.
        kind, retryable = "server", True
    return kind, retryable


def _lm_error(error: Any) -> LMError:
    kind, retryable = _kind(error)
    data: dict[str, Any] = {"kind": kind}
    if error.model is not None:
        data["model"] = error.model
    # LiteLLM says 500 where there was no answer at all.
    if error.status is not None and kind != "connection":
        data["status"] = error.status
    wait_s = retry_after_of(error)
    if wait_s is not None:
        data["retry_after_ms"] = round(wait_s * 1000)
    if getattr(error, "tried", None):
        data["tried"] = error.tried
    told = _unknown_provider(error) or for_clients(error)
    if kind in _WHAT_TO_DO and "in configure" not in told:
        told = f"{told.removesuffix('.')}. {_WHAT_TO_DO[kind]}"
    return LMError(f"the LM failed ({kind}): {told}", data=data, retryable=retryable)


def for_clients(error: Any) -> str:
    """What DSPy says, with the remedy that a client of the bridge has."""
    text = str(error).partition(_ADVICE)[0].rstrip()
    for theirs, ours in _REMEDIES:
        text = text.replace(theirs, ours)
    return text


def _unknown_provider(error: Any) -> str | None:
    """LiteLLM's words for it have an example of another kind of call."""
    if error.model is None or "LLM Provider NOT provided" not in str(error):
        return None
    provider = str(error.model).partition("/")[0]
    litellm: Any = sys.modules.get("litellm")
    known = [str(getattr(one, "value", one)) for one in getattr(litellm, "provider_list", ())]
    return (
        f"no provider is known for the model {error.model!r}. A model is named PROVIDER/MODEL, as "
        f"LiteLLM names it: openai/gpt-5-mini.{suggestion(provider, known)}"
    )


def _is_content_filter(error: Any) -> bool:
    told = f"{error.provider_code or ''} {error.message}".lower()
    return "content_filter" in told or "content_policy" in told or "content management" in told


def _is_timeout(error: BaseException) -> bool:
    """DSPy's native engine tells a read that timed out as a transport failure."""
    return any(isinstance(cause, TimeoutError) for cause in _causes(error))


def _missing_package(error: Any) -> UnavailableError | None:
    """LiteLLM imports some of what it needs when it needs it, and tells a failure of the LM's."""
    for cause in _causes(error):
        if isinstance(cause, ModuleNotFoundError) and cause.name:
            package = cause.name.partition(".")[0]
            return UnavailableError(
                f"LiteLLM needs the package {package!r} for this call of {error.model!r}; install "
                f"it with: pip install {_PACKAGES.get(package, package)}",
                data={"package": package},
            )
    return None


def _is_broken_connection(error: BaseException) -> bool:
    """LiteLLM tells a connection that fails or breaks as an error of the server's."""
    httpx = sys.modules.get("httpx")  # which LiteLLM has imported, if it was LiteLLM
    return httpx is not None and any(
        isinstance(cause, httpx.TransportError) for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An exception, and those that it came of."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _unreadable(error: Any) -> OutputValidationError:
    """The LM answered, but not in the form that the adapter asked for."""
    answer = error.lm_response if isinstance(error.lm_response, str) else repr(error.lm_response)
    if len(answer) > _MAX_QUOTED_CHARS:
        answer = f"{answer[:_MAX_QUOTED_CHARS]}…"
    found = error.parsed_result if isinstance(error.parsed_result, dict) else {}
    expected = [name for name in error.signature.output_fields if name not in found]
    return OutputValidationError(
        f"the LM's answer could not be read by the adapter {error.adapter_name} "
        f"(missing or unreadable: {', '.join(expected)})",
        data={
            "errors": [
                {
                    "path": [name],
                    "type": "unreadable",
                    "message": "the LM's answer has no readable value for this field",
                    "expected": name,
                    "got": answer,
                }
                for name in expected
            ]
        },
    )
