"""How a provider is reached: what the descriptions of LMs and embedders share, and its secrets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.redaction import MASK, is_secret_name, mask_url, secrets_of_url

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

__all__ = ["DEFAULT_TIMEOUT_MS", "connection", "masked", "passed_on", "secrets_of"]

# DSPy's own read timeout is ten minutes; nobody who asked a question waits for that.
DEFAULT_TIMEOUT_MS = 120_000

# Of `extra` nobody knows here what is secret. Shorter texts than this are settings, as `priority`,
# `2024-10-21` and `us-east-1` are, and words of prompts too: those stay readable in logs.
_MIN_UNNAMED_CHARS = 12


def connection(spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The timeout, the key and the address, as DSPy takes them. `where` is the place in the
    parameters, for errors. Raises InvalidParamsError where the environment has no such key."""
    options: dict[str, Any] = {"timeout": (spec.get("timeout_ms") or DEFAULT_TIMEOUT_MS) / 1000}
    key, variable = spec.get("api_key"), spec.get("api_key_env")
    if key is None and variable is not None:
        key = os.environ.get(variable)
        if not key:
            raise InvalidParamsError(
                f"{where} takes its key from the environment variable {variable}, "
                "which is not set where the bridge runs",
                data={"param": f"{where}.api_key_env"},
            )
    if key is not None:
        options["api_key"] = key
    if spec.get("api_base") is not None:
        options["api_base"] = spec["api_base"]
    return options


def passed_on(spec: Mapping[str, Any], where: str, reserved: Collection[str]) -> dict[str, Any]:
    """What goes to the provider as it is. Raises InvalidParamsError for what is `reserved`."""
    given: dict[str, Any] = spec.get("extra") or {}
    for key in given:
        if key in reserved:
            raise InvalidParamsError(
                f"{where}.extra.{key}: this is not for extra, which is passed to the provider; "
                "where there is a parameter of its own for it, use that",
                data={"param": f"{where}.extra.{key}"},
            )
    return dict(given)


def masked(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A description without its secrets."""
    shown = dict(spec)
    if shown.get("api_key") is not None:
        shown["api_key"] = MASK
    if shown.get("api_base") is not None:
        shown["api_base"] = mask_url(shown["api_base"])
    if shown.get("extra"):
        # What a provider takes, and what of it is secret, nobody knows here.
        shown["extra"] = _without_texts(shown["extra"])
    return shown


def secrets_of(spec: Mapping[str, Any]) -> Iterator[str]:
    """What must not be told: the key, what an address hides, and of `extra` what is called a secret
    or may be one."""
    if spec.get("api_key"):
        yield spec["api_key"]
    if spec.get("api_key_env") and os.environ.get(spec["api_key_env"]):
        yield os.environ[spec["api_key_env"]]
    if spec.get("api_base"):
        yield from secrets_of_url(spec["api_base"])
    yield from _secret_texts(spec.get("extra") or {})


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_texts(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_texts(item) for item in value]
    return MASK if isinstance(value, (str, bytes)) else value


def _secret_texts(value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _secret_texts(item, inner)
    elif isinstance(value, list):
        for item in value:
            yield from _secret_texts(item, name)
    elif isinstance(value, str) and (len(value) >= _MIN_UNNAMED_CHARS or is_secret_name(name)):
        yield value
