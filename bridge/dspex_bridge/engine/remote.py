"""LMs of another process: a worker's LM is a request to the bridge, which has the keys, the limits
and the meters."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import DSPexError
from dspy._vendor.lm15.serde import (  # as DSPy's own cache does: nothing re-exports them
    request_from_dict,
    request_to_dict,
    response_from_dict,
    response_to_dict,
)
from dspy.clients.backend_selection import CLIENT_KEYS

from .errors import translate
from .metering import METER_SETTING, Meter

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from .lms import LM

__all__ = ["RemoteEmbedder", "RemoteLM", "RemoteLMError", "answer", "description"]

# Keeps calls apart in the cache that are the same but for it: an optimizer asks for several
# answers to one prompt.
_ROLLOUT: ContextVar[int | None] = ContextVar("rollout", default=None)


def description(lm: LM) -> dict[str, Any]:
    """What a worker needs to know of an LM: everything but how to reach it."""
    return {
        "name": lm.name,
        "model": lm.model,
        "kwargs": {
            key: value
            for key, value in lm.kwargs.items()
            if key not in CLIENT_KEYS and key != "rollout_id"
        },
        "supports_function_calling": lm.supports_function_calling,
        "supports_reasoning": lm.supports_reasoning,
        "supports_response_schema": lm.supports_response_schema,
        "supported_params": sorted(lm.supported_params),
    }


async def answer(lm: LM, params: dict[str, Any]) -> dict[str, Any]:
    """Makes the call that a worker asked for: `{request, rollout?}` to `{response, total_tokens,
    cost_usd, duration_ms}`."""
    request = request_from_dict(params["request"])
    own = lm.kwargs.get("rollout_id")
    asked = params.get("rollout")
    rollout = None if own is None and asked is None else hash((own, asked))
    meter, began = Meter(dspy.settings.get(METER_SETTING)), time.monotonic()
    with dspy.context(**{METER_SETTING: meter}):
        try:
            response = await lm.acall(request, rollout_id=rollout)
        except dspy.LMError as error:
            raise translate(error) or error from error
    return {
        "response": response_to_dict(response),
        "total_tokens": meter.total_tokens,
        "cost_usd": meter.cost_usd,
        "duration_ms": round((time.monotonic() - began) * 1000, 3),
    }


class RemoteLMError(dspy.LMError):  # type: ignore[misc]  # dspy ships no types
    """The bridge's answer to an LM call that failed, in a form that DSPy lets through."""

    def __init__(self, wire_error: DSPexError) -> None:
        # Past whatever class of DSPy's a subclass of this one is as well.
        dspy.LMError.__init__(self, wire_error.message)
        self.wire_error = wire_error


class _RemoteContextWindowError(RemoteLMError, dspy.ContextWindowExceededError):  # type: ignore[misc]
    """Agents know this one by its class, and go on with less."""


def _remote(error: DSPexError) -> RemoteLMError:
    is_window = error.code == "lm_error" and error.data.get("kind") == "context_window"
    return (_RemoteContextWindowError if is_window else RemoteLMError)(error)


class RemoteLM(dspy.LM):  # type: ignore[misc]
    """An LM in a worker. `ask("lm", {lm, request, rollout})` is the way to the bridge."""

    def __init__(
        self, told: dict[str, Any], ask: Callable[[str, dict[str, Any]], Future[Any]]
    ) -> None:
        engine = _Engine(told, ask)
        super().__init__(
            told["model"],
            temperature=None,
            max_tokens=None,
            cache=False,
            num_retries=0,
            engine=engine,
            async_engine=_AsyncEngine(engine),
        )
        # As the bridge's LM has them: already under the names that the model's family wants.
        self.kwargs = dict(told["kwargs"])
        self.name = told["name"]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        token = _ROLLOUT.set(self._rollout(kwargs))
        try:
            return super().__call__(*args, **kwargs)
        finally:
            _ROLLOUT.reset(token)

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        token = _ROLLOUT.set(self._rollout(kwargs))
        try:
            return await super().acall(*args, **kwargs)
        finally:
            _ROLLOUT.reset(token)

    def _rollout(self, kwargs: dict[str, Any]) -> int | None:
        rollout: int | None = kwargs.get("rollout_id", self.kwargs.get("rollout_id"))
        return rollout

    def update_history(self, entry: dict[str, Any]) -> None:
        """None is kept: the bridge counts, and it would only ever grow."""

    def _warn_zero_temp_rollout(self, temperature: float | None, rollout_id: int | None) -> None:
        """Silent: see LM."""


class _Engine:
    def __init__(
        self, told: dict[str, Any], ask: Callable[[str, dict[str, Any]], Future[Any]]
    ) -> None:
        self.supports_function_calling = told["supports_function_calling"]
        self.supports_reasoning = told["supports_reasoning"]
        self.supports_response_schema = told["supports_response_schema"]
        self.supported_params = frozenset(told["supported_params"])
        self._name = told["name"]
        self._ask = ask

    def __deepcopy__(self, _memo: dict[int, Any]) -> _Engine:
        """Itself: optimizers copy programs with the LMs in them, and there is one way to ask."""
        return self

    def asked(self, request: Any) -> Future[Any]:
        params = {"lm": self._name, "request": request_to_dict(request), "rollout": _ROLLOUT.get()}
        return self._ask("lm", params)

    def complete(self, request: Any) -> Any:
        try:
            return response_from_dict(self.asked(request).result()["response"])
        except DSPexError as error:
            raise _remote(error) from error


class _AsyncEngine:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine

    def __deepcopy__(self, _memo: dict[int, Any]) -> _AsyncEngine:
        return self

    async def complete(self, request: Any) -> Any:
        try:
            answer = await asyncio.wrap_future(self._engine.asked(request))
            return response_from_dict(answer["response"])
        except DSPexError as error:
            raise _remote(error) from error


class RemoteEmbedder:
    """An embedder in a worker: texts to vectors, by the bridge."""

    def __init__(self, name: str | None, ask: Callable[[str, dict[str, Any]], Future[Any]]) -> None:
        self._name = name
        self._ask = ask

    def __deepcopy__(self, _memo: dict[int, Any]) -> RemoteEmbedder:
        return self

    def __call__(self, texts: list[str]) -> Any:
        import numpy as np  # which not every program needs

        answer = self._ask("embed", {"embedder": self._name, "texts": texts})
        return np.asarray(answer.result(), dtype=np.float32)
