"""LMs by name: made from the client's descriptions, all of them or none."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from zlib import crc32

import dspy
from dspex_protocol.errors import InvalidParamsError, NotFoundError

from dspex_bridge.limits import Breaker, Limits
from dspex_bridge.params import number
from dspex_bridge.redaction import MASK, is_secret_name, mask_url, secrets_of_url

from .embedded import MODEL as EMBEDDED_MODEL
from .embedded import AsyncKnnEngine, KnnEngine
from .lm import LM
from .metering import Meter
from .prices import PRICE_KEYS, given_price

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dspex_bridge.redaction import Redactor

    from .prices import Price

__all__ = ["LM", "LMs"]

# DSPy's own read timeout is ten minutes; nobody who asked a question waits for that.
DEFAULT_TIMEOUT_MS = 120_000

DEFAULT_RETRIES = 3

# LMs that came with a call are kept for the next one that brings the same: each has connections of
# its own, and to open them anew costs more than the rest of a call.
_INLINE_KEPT = 64

_INLINE = "(inline)"

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


class LMs:
    """The LMs of the configuration in force, and which is the default one."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._specs: dict[str, dict[str, Any]] = {}
        self._lms: dict[str, LM] = {}
        self._inline: OrderedDict[str, LM] = OrderedDict()
        self._default: str | None = None
        self.limits = Limits("bridge")

    def __contains__(self, name: str) -> bool:
        return name in self._lms

    def configure(
        self,
        specs: Mapping[str, Mapping[str, Any]],
        default: str | None,
        limits: Mapping[str, Any] | None,
    ) -> None:
        """Adds or replaces the LMs of `specs`, sets the default and the limits of the bridge. All
        of it or nothing."""
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
        _check_fallbacks({**self._lms, **made}, made)
        for name, lm in made.items():
            known = self._lms.get(name)
            if known is not None:
                # The account goes on under the name; the failures of the old one do not.
                lm.total = known.total
                own, _ = lm.limits = known.limits
                own.change(specs[name].get("limits") or {})
        self._lms.update(made)
        self._specs.update({name: dict(spec) for name, spec in specs.items()})
        self._default = default or self._default
        if limits is not None:
            self.limits.change(limits)

    def get(self, which: str | Mapping[str, Any] | None) -> LM:
        """An LM by name, one made for this call from a description, or the default one."""
        if isinstance(which, str):
            return self._named(which)
        if which is not None:
            return self._for_one_call(which)
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
            "limits": dict(self.limits.spec),
        }

    def stats(self) -> dict[str, Any]:
        return {
            name: {
                "calls": lm.total.calls,
                "tokens": lm.total.total_tokens,
                "cost_usd": lm.total.cost_usd,
                "errors": lm.total.errors,
                "breaker": lm.breaker.state,
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

    def _for_one_call(self, spec: Mapping[str, Any]) -> LM:
        """An LM that came with a call: an account, limits and a breaker of its own each time."""
        for secret in _secrets(spec):
            self._redactor.add_passing(secret)
        key = json.dumps(spec, sort_keys=True, default=repr)
        known = self._inline.pop(key, None)
        if known is None:
            known = self._make(_INLINE, spec)
            _check_fallbacks({**self._lms, _INLINE: known}, {_INLINE: known})
        self._inline[key] = known
        if len(self._inline) > _INLINE_KEPT:
            self._inline.popitem(last=False)
        lm = known.copy()
        lm.total, lm.breaker = Meter(), Breaker(_INLINE)
        lm.limits = (Limits("lm", spec.get("limits")), self.limits)
        return lm

    def _make(self, name: str, spec: Mapping[str, Any]) -> LM:
        retries = spec.get("num_retries")
        extra = spec.get("extra") or {}
        own_limits = Limits("lm", spec.get("limits"), name=name)
        options: dict[str, Any] = {
            "limits": (own_limits, self.limits),
            "price": _price(name, extra),
            "fallbacks": spec.get("fallbacks") or (),
            "find": self._named,
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
        options |= _extra(name, extra)
        try:
            lm = LM(name, spec["model"], **options)
        except (ValueError, TypeError, dspy.LMError) as error:
            raise InvalidParamsError(
                self._redactor.text(f"the LM {name!r} cannot be made: {error}"),
                data={"param": f"lms.{name}"},
            ) from error
        lm.require_price([own_limits])
        return lm

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
    return {key: value for key, value in extra.items() if key not in PRICE_KEYS}


def _price(name: str, extra: Mapping[str, Any]) -> Price | None:
    for key in PRICE_KEYS:
        if extra.get(key) is not None:
            number(0)(extra[key], f"lms.{name}.extra.{key}")
    return given_price(extra)


def _check_fallbacks(lms: Mapping[str, LM], made: Mapping[str, LM]) -> None:
    """Each names an LM, and none leads back to where it came from."""
    for name, lm in made.items():
        param = f"lms.{name}.fallbacks"
        for fallback in lm.fallbacks:
            if fallback not in lms:
                raise NotFoundError(
                    f"{param}: there is no LM {fallback!r}; configured: {_names(lms)}",
                    data={"kind": "lm", "name": fallback, "param": param},
                )
        # What leads back to a new LM is a cycle; one without a new LM was refused before.
        way = _way_back(name, lms)
        if way is not None:
            raise InvalidParamsError(
                f"{param}: they lead back to where they began ({' → '.join(way)}): "
                "an LM cannot stand in for itself",
                data={"param": param},
            )


def _way_back(name: str, lms: Mapping[str, LM]) -> list[str] | None:
    """The names from an LM by its fallbacks back to itself, or None."""
    ways, seen = [[name]], {name}
    while ways:
        way = ways.pop()
        for fallback in lms[way[-1]].fallbacks if way[-1] in lms else ():
            if fallback == name:
                return [*way, name]
            if fallback not in seen:
                seen.add(fallback)
                ways.append([*way, fallback])
    return None


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
