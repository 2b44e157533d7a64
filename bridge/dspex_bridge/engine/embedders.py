"""Embedders by name: texts to vectors, by a provider or by the embedded `demo/tfidf`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import InvalidParamsError, NotFoundError
from dspy.clients._litellm import get_litellm
from dspy.clients.engines.litellm_errors import to_lm15_error
from dspy.clients.errors import wrap_error
from dspy.utils.exceptions import is_retryable_lm_error

from . import connections
from .embedded import vectors
from .lm import retry_wait

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dspex_bridge.redaction import Redactor

__all__ = ["Embedders"]

DEFAULT_RETRIES = 3

# Texts in one request to a provider: OpenAI takes 2,048, others fewer.
_BATCH = 96

# Parameters of LiteLLM's that are the bridge's to set, or that change what comes back.
_NOT_EXTRA = frozenset(
    {
        *("model", "input", "api_key", "api_base", "base_url", "timeout", "num_retries"),
        *("max_retries", "caching", "client", "aembedding", "headers", "extra_headers"),
    }
)


class Embedder(dspy.Embedder):  # type: ignore[misc]  # dspy ships no types
    """DSPy's, with the retries and the errors of our LMs."""

    def __init__(self, model: str, *, retries: int, **options: Any) -> None:
        super().__init__(model, batch_size=_BATCH, caching=False, **options)
        self.retries = retries

    async def acall(self, inputs: str | Sequence[str], **options: Any) -> Any:
        """An array of one vector a text. Raises DSPy's LMError."""
        # Its import takes seconds, and is not for the event loop's thread.
        await asyncio.to_thread(get_litellm, feature="dspy.Embedder")
        for attempt in range(self.retries + 1):
            try:
                return await super().acall(inputs, **options)
            except Exception as error:
                failure = wrap_error(to_lm15_error(error, model=self.model), model=self.model)
                wait_s = retry_wait(failure, attempt)
                if attempt == self.retries or not is_retryable_lm_error(failure) or wait_s is None:
                    raise failure from error
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")


class Embedders:
    """The embedders of the configuration in force."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._specs: dict[str, dict[str, Any]] = {}
        self._embedders: dict[str, Any] = {}

    def make(self, specs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """The embedders of descriptions, for `add`. Raises InvalidParamsError."""
        for spec in specs.values():
            for secret in connections.secrets_of(spec):
                self._redactor.add(secret)
        return {name: _made(spec, f"embedders.{name}") for name, spec in specs.items()}

    def add(self, specs: Mapping[str, Mapping[str, Any]], made: Mapping[str, Any]) -> None:
        """Adds or replaces what `make` made."""
        self._specs.update({name: dict(spec) for name, spec in specs.items()})
        self._embedders.update(made)

    def get(self, name: str | None) -> Any:
        """An embedder by name, or for None the only one: a dspy.Embedder."""
        if name is None and len(self._embedders) == 1:
            return next(iter(self._embedders.values()))
        if name is not None and name in self._embedders:
            return self._embedders[name]
        configured = ", ".join(sorted(self._embedders)) or "none"
        asked = f"there is no embedder {name!r}" if name is not None else "say which embedder"
        raise NotFoundError(
            f"{asked}; configured: {configured}. "
            "configure {embedders: {name: {model: …}}} adds one; demo/tfidf needs no provider",
            data={"kind": "embedder", "name": name},
        )

    def describe(self) -> dict[str, Any]:
        return {name: connections.masked(spec) for name, spec in self._specs.items()}


def _made(spec: Mapping[str, Any], where: str) -> Any:
    model = spec["model"]
    if model == vectors.MODEL:
        # One batch: it weighs words by how rare they are among the texts that it is given together.
        return dspy.Embedder(vectors.embed, batch_size=vectors.MAX_TEXTS, caching=False)
    if model.startswith("demo/"):
        raise InvalidParamsError(
            f"{where}.model: there is no embedded embedder {model!r}. "
            f"Did you mean {vectors.MODEL!r}?",
            data={"param": f"{where}.model"},
        )
    retries = spec.get("num_retries")
    return Embedder(
        model,
        retries=DEFAULT_RETRIES if retries is None else retries,
        **connections.connection(spec, where),
        **connections.passed_on(spec, where, _NOT_EXTRA),
    )
