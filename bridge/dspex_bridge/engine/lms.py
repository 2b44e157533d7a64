"""LMs by name: made from the client's description, metered, retried within bounds."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from zlib import crc32

import dspy
from dspex_protocol.errors import InvalidParamsError, NotFoundError
from dspy.utils.exceptions import is_retryable_lm_error

from dspex_bridge.redaction import MASK, is_secret_name, mask_url, secrets_of_url

from .embedded import MODEL as EMBEDDED_MODEL
from .embedded import AsyncKnnEngine, KnnEngine
from .metering import METER_SETTING, CallRecord, Meter
from .recording import RECORDER_SETTING
from .streaming import STREAM_SETTING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dspex_bridge.redaction import Redactor

__all__ = ["LM", "LMs"]

# DSPy's own read timeout is ten minutes; nobody who asked a question waits for that.
DEFAULT_TIMEOUT_MS = 120_000

DEFAULT_RETRIES = 3

# Providers may say "retry after an hour": a caller is better served by an error at once.
_MAX_RETRY_WAIT_S = 20.0

# Parameters of dspy.LM that are the bridge's to set, or that name code.
_NOT_EXTRA = frozenset(
    {
        *("model", "model_type", "temperature", "max_tokens", "cache", "num_retries", "n"),
        *("callbacks", "provider", "finetuning_model", "launch_kwargs", "train_kwargs"),
        *("use_developer_role", "engine", "async_engine", "prompt_cache", "rollout_id"),
        *("api_key", "api_base", "base_url", "timeout", "headers", "extra_headers"),
        "azure_ad_token_provider",
    }
)


class LM(dspy.LM):  # type: ignore[misc]  # dspy ships no types
    """DSPy's LM with a name, a meter, and retries whose waits are bounded."""

    def __init__(self, name: str, model: str, *, retries: int, **kwargs: Any) -> None:
        super().__init__(model, num_retries=0, **kwargs)
        self.name = name
        self.retries = retries
        self.total = Meter()

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        stream = dspy.settings.get(STREAM_SETTING)
        for attempt in range(self.retries + 1):
            if stream is not None:
                stream.begin_call()
            try:
                with self._metered():
                    return await super().acall(*args, **kwargs)
            except Exception as error:
                if attempt == self.retries or not is_retryable_lm_error(error):
                    raise
                wait_s = _retry_wait(error, attempt)
                if wait_s is None:
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    @contextmanager
    def _metered(self) -> Iterator[None]:
        record = CallRecord()
        is_error = True
        try:
            with dspy.context(usage_tracker=record, disable_history=False):
                yield
            is_error = False
        finally:
            self.total.add(record, is_error=is_error)
            meter = dspy.settings.get(METER_SETTING)
            if meter is not None:
                meter.add(record, is_error=is_error)

    def update_history(self, entry: dict[str, Any]) -> None:
        """Where DSPy says what a call cost. No history is kept: it would only ever grow."""
        record = dspy.settings.usage_tracker
        if isinstance(record, CallRecord):
            record.cost_usd = 0.0 if self.model == EMBEDDED_MODEL else entry.get("cost")
        recorder = dspy.settings.get(RECORDER_SETTING)
        if recorder is not None:
            recorder.add_call(entry)

    def _warn_zero_temp_rollout(self, temperature: float | None, rollout_id: int | None) -> None:
        """Silent: the rollout id is there to keep LMs of one model apart in the cache."""


class LMs:
    """The LMs of the configuration in force, and which is the default one."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._specs: dict[str, dict[str, Any]] = {}
        self._lms: dict[str, LM] = {}
        self._default: str | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._lms

    def configure(self, specs: Mapping[str, Mapping[str, Any]], default: str | None) -> None:
        """Adds or replaces the LMs of `specs` and sets the default. All of it or nothing."""
        for spec in specs.values():
            for secret in _secrets(spec):
                self._redactor.add(secret)
        made = {name: self._make(name, spec) for name, spec in specs.items()}
        if default is not None and default not in made and default not in self._lms:
            raise NotFoundError(
                f"default_lm is {default!r}, which is no LM; configured: "
                f"{_names({**self._lms, **specs})}",
                data={"kind": "lm", "name": default},
            )
        for name, lm in made.items():
            if name in self._lms:
                lm.total = self._lms[name].total
        self._lms.update(made)
        self._specs.update({name: dict(spec) for name, spec in specs.items()})
        self._default = default or self._default

    def get(self, which: str | Mapping[str, Any] | None) -> LM:
        """An LM by name, one made for this call from a description, or the default one."""
        if isinstance(which, str):
            return self._named(which)
        if which is not None:
            for secret in _secrets(which):
                self._redactor.add_passing(secret)
            return self._make("(inline)", which)
        default = self._default_name()
        if default is not None:
            return self._lms[default]
        if not self._lms:
            raise NotFoundError(
                "no LM is configured: send configure {lms: {name: {model: …}}}, "
                "or give execute an lm",
                data={"kind": "lm"},
            )
        raise NotFoundError(
            f"several LMs are configured ({self.names_text()}) and none is the default: "
            "set default_lm, or give execute an lm",
            data={"kind": "lm"},
        )

    def describe(self) -> dict[str, Any]:
        """The configuration in force, secrets masked."""
        return {
            "lms": {name: _masked(spec) for name, spec in self._specs.items()},
            "default_lm": self._default_name(),
        }

    def stats(self) -> dict[str, Any]:
        return {
            name: {
                "calls": lm.total.calls,
                "tokens": lm.total.total_tokens,
                "cost_usd": lm.total.cost_usd,
                "errors": lm.total.errors,
            }
            for name, lm in list(self._lms.items())
        }

    def names_text(self) -> str:
        return _names(self._lms)

    def _default_name(self) -> str | None:
        """The one that was named, or the only one there is."""
        if self._default is None and len(self._lms) == 1:
            return next(iter(self._lms))
        return self._default

    def _named(self, name: str) -> LM:
        lm = self._lms.get(name)
        if lm is None:
            raise NotFoundError(
                f"there is no LM {name!r}; configured: {self.names_text()}",
                data={"kind": "lm", "name": name},
            )
        return lm

    def _make(self, name: str, spec: Mapping[str, Any]) -> LM:
        retries = spec.get("num_retries")
        options: dict[str, Any] = {
            "retries": DEFAULT_RETRIES if retries is None else retries,
            "temperature": spec.get("temperature"),
            "max_tokens": spec.get("max_tokens"),
            "cache": bool(spec.get("cache")),
        }
        if spec["model"].startswith("demo/") and spec["model"] != EMBEDDED_MODEL:
            raise InvalidParamsError(
                f"lms.{name}.model: there is no embedded model {spec['model']!r}. "
                f"Did you mean {EMBEDDED_MODEL!r}?",
                data={"param": f"lms.{name}.model"},
            )
        if spec["model"] == EMBEDDED_MODEL:
            options |= {"engine": KnnEngine(), "async_engine": AsyncKnnEngine()}
            return LM(name, EMBEDDED_MODEL, **options)
        options |= self._connection(name, spec)
        if options["cache"]:
            # The cache's key knows neither the address nor the key: two LMs of one model at two
            # addresses must not answer for each other. This stands in the key and nowhere else.
            options["rollout_id"] = crc32(f"{name}\0{spec.get('api_base')}".encode())
        options |= _extra(name, spec.get("extra") or {})
        try:
            return LM(name, spec["model"], **options)
        except (ValueError, TypeError, dspy.LMError) as error:
            raise InvalidParamsError(
                self._redactor.text(f"the LM {name!r} cannot be made: {error}"),
                data={"param": f"lms.{name}"},
            ) from error

    def _connection(self, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
        timeout_ms = spec.get("timeout_ms")
        options: dict[str, Any] = {"timeout": (timeout_ms or DEFAULT_TIMEOUT_MS) / 1000}
        key = spec.get("api_key")
        variable = spec.get("api_key_env")
        if key is None and variable is not None:
            key = os.environ.get(variable)
            if not key:
                raise InvalidParamsError(
                    f"the LM {name!r} takes its key from the environment variable {variable}, "
                    "which is not set where the bridge runs",
                    data={"param": f"lms.{name}.api_key_env"},
                )
        if key is not None:
            options["api_key"] = key
        if spec.get("api_base") is not None:
            options["api_base"] = spec["api_base"]
        return options


def _extra(name: str, extra: Mapping[str, Any]) -> dict[str, Any]:
    for key in extra:
        if key in _NOT_EXTRA:
            raise InvalidParamsError(
                f"lms.{name}.extra.{key}: this is not for extra, which is passed to the provider; "
                "where the LM has a parameter of its own for it, use that",
                data={"param": f"lms.{name}.extra.{key}"},
            )
    return dict(extra)


def _retry_wait(error: Exception, attempt: int) -> float | None:
    """Seconds until the next attempt; None where the provider wants more than we wait."""
    hint = getattr(error, "retry_after", None)
    if hint is None:
        return min(0.5 * 2.0**attempt, _MAX_RETRY_WAIT_S)
    return None if hint > _MAX_RETRY_WAIT_S else max(0.0, float(hint))


def _masked(spec: Mapping[str, Any]) -> dict[str, Any]:
    masked = dict(spec)
    if masked.get("api_key") is not None:
        masked["api_key"] = MASK
    if masked.get("api_base") is not None:
        masked["api_base"] = mask_url(masked["api_base"])
    if masked.get("extra"):
        # What a provider takes, and what of it is secret, nobody knows here.
        masked["extra"] = _without_texts(masked["extra"])
    return masked


def _without_texts(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_texts(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_without_texts(item) for item in value]
    return MASK if isinstance(value, (str, bytes)) else value


def _secrets(spec: Mapping[str, Any]) -> Iterator[str]:
    """What must not be told: the key, what an address hides, what `extra` calls a secret."""
    if spec.get("api_key"):
        yield spec["api_key"]
    if spec.get("api_key_env") and os.environ.get(spec["api_key_env"]):
        yield os.environ[spec["api_key_env"]]
    if spec.get("api_base"):
        yield from secrets_of_url(spec["api_base"])
    yield from _named_secrets(spec.get("extra") or {})


def _named_secrets(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _named_secrets(value)
        elif isinstance(value, str) and is_secret_name(name):
            yield value


def _names(lms: Mapping[str, Any]) -> str:
    return ", ".join(sorted(lms)) or "none"
