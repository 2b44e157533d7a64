"""LMs by name: made from the client's descriptions, all of them or none."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import TYPE_CHECKING, Any
from zlib import crc32

import dspy
from dspex_protocol.errors import InvalidParamsError, NotFoundError

from dspex_bridge.limits import Breaker, Limits
from dspex_bridge.params import number

from . import connections
from .embedded import MODEL as EMBEDDED_MODEL
from .embedded import AsyncKnnEngine, KnnEngine
from .errors import for_clients
from .exchanges import RECORD_HINT, Exchanges
from .lm import LM
from .metering import Meter
from .openai_engine import AsyncOpenAIEngine, OpenAIEngine, is_served
from .prices import PRICE_KEYS, given_price
from .replay import PREFIX as REPLAY_PREFIX
from .replay import AsyncReplayEngine, ReplayEngine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dspex_bridge.redaction import Redactor

    from .exchanges import Writer
    from .prices import Price

__all__ = ["LM", "LMs"]

DEFAULT_RETRIES = 3

# LMs that came with a call are kept for the next one that brings the same: each has connections of
# its own, and to open them anew costs more than the rest of a call.
_INLINE_KEPT = 64

_INLINE = "(inline)"

# The key in `extra` that leaves it to DSPy how the LM is called, and its value.
ENGINE_KEY, _DSPY = "engine", "dspy"

# Parameters of dspy.LM that are the bridge's to set, or that name code.
_NOT_EXTRA = frozenset(
    {
        *("model", "model_type", "temperature", "max_tokens", "cache", "num_retries", "n"),
        *("callbacks", "provider", "finetuning_model", "launch_kwargs", "train_kwargs"),
        *("use_developer_role", "async_engine", "prompt_cache", "rollout_id"),
        *("api_key", "api_base", "base_url", "timeout", "headers", "extra_headers"),
        "azure_ad_token_provider",
    }
)


class LMs:
    """The LMs of the configuration in force, and which is the default one."""

    def __init__(
        self,
        redactor: Redactor,
        read_file: Callable[[str, str], bytes],
        writer: Writer | None = None,
    ) -> None:
        """`read_file(path, param)` reads a recording; `writer` takes all exchanges."""
        self._redactor = redactor
        self._read_file = read_file
        self._writer = writer
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
            for secret in connections.secrets_of(spec):
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
        # An only LM is the default, and stays it when others come.
        default = default or self._default_name()
        self._lms.update(made)
        self._specs.update({name: dict(spec) for name, spec in specs.items()})
        self._default = default
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
            "lms": {name: connections.masked(spec) for name, spec in self._specs.items()},
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

    @property
    def names(self) -> list[str]:
        return list(self._lms)

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
        for secret in connections.secrets_of(spec):
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
        own_limits = Limits("lm", spec.get("limits"), name=name)
        options: dict[str, Any] = {
            "limits": (own_limits, self.limits),
            "price": _price(name, spec.get("extra") or {}),
            "fallbacks": spec.get("fallbacks") or (),
            "find": self._named,
            "writer": self._writer,
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
        if spec["model"].startswith(REPLAY_PREFIX):
            return self._replay(name, spec["model"], options)
        connection = connections.connection(spec, f"lms.{name}")
        if options["cache"]:
            # The cache's key knows neither the address nor the key: two LMs of one model at two
            # addresses must not answer for each other. This stands in the key and nowhere else.
            options["rollout_id"] = crc32(f"{name}\0{spec.get('api_base')}".encode())
        given = connections.passed_on(spec, f"lms.{name}", _NOT_EXTRA)
        is_dspy_asked_for = _is_dspy_asked_for(name, given.pop(ENGINE_KEY, None))
        options |= {key: value for key, value in given.items() if key not in PRICE_KEYS}
        try:
            lm = LM(name, spec["model"], **options, **connection)
            if not is_dspy_asked_for and is_served(lm):
                options |= {"engine": OpenAIEngine(lm), "async_engine": AsyncOpenAIEngine(lm)}
                lm = LM(name, spec["model"], by_dspy=lm, **options)
        except (ValueError, TypeError, dspy.LMError) as error:
            raise InvalidParamsError(
                self._redactor.text(f"the LM {name!r} cannot be made: {for_clients(error)}"),
                data={"param": f"lms.{name}"},
            ) from error
        lm.require_price([own_limits])
        return lm

    def _replay(self, name: str, model: str, options: dict[str, Any]) -> LM:
        param = f"lms.{name}.model"
        try:
            data = self._read_file(model.removeprefix(REPLAY_PREFIX), param)
        except NotFoundError as error:
            raise NotFoundError(f"{param}: {error}. {RECORD_HINT}", data=error.data) from None
        engine = ReplayEngine(Exchanges(data, f"{param}: {model}"))
        options |= {"engine": engine, "async_engine": AsyncReplayEngine(engine)}
        # An LM's own parameters are no part of what was asked, and what is given again is neither
        # recorded again nor cached.
        kept = {**options, "temperature": None, "max_tokens": None, "cache": False, "writer": None}
        return LM(name, model, **kept)


def _price(name: str, extra: Mapping[str, Any]) -> Price | None:
    for key in PRICE_KEYS:
        if extra.get(key) is not None:
            number(0)(extra[key], f"lms.{name}.extra.{key}")
    return given_price(extra)


def _is_dspy_asked_for(name: str, engine: Any) -> bool:
    if engine not in (None, _DSPY):
        raise InvalidParamsError(
            f"lms.{name}.extra.{ENGINE_KEY} is {engine!r}: it can be {_DSPY!r}, or left out",
            data={"param": f"lms.{name}.extra.{ENGINE_KEY}"},
        )
    return engine is not None


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


def _names(lms: Mapping[str, Any]) -> str:
    return ", ".join(sorted(lms)) or "none"
