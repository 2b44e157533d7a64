"""What LM calls cost, by DSPy's own copy of LiteLLM's price table or by the client's prices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dspy.clients.model_metadata import rate

from .memos import model_info

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PRICE_KEYS", "Price", "given_price", "is_listed"]

# LiteLLM's own names for prices that come with an LM, in dollars a token.
PRICE_KEYS = ("input_cost_per_token", "output_cost_per_token")


class Price(NamedTuple):
    """Dollars a token."""

    prompt: float
    completion: float

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        return prompt_tokens * self.prompt + completion_tokens * self.completion


def given_price(extra: Mapping[str, Any]) -> Price | None:
    """The prices in an LM's `extra`; None where there are none. A missing one of the two is 0."""
    if not any(key in extra for key in PRICE_KEYS):
        return None
    return Price(*(float(extra.get(key, 0.0)) for key in PRICE_KEYS))


def is_listed(model: str) -> bool:
    """Whether the table has a price for a model, by LiteLLM's name for it."""
    provider, separator, name = model.partition("/")
    if not separator:
        provider, name = "openai", model
    info = model_info(provider, name)
    return all(rate(info, key) is not None for key in PRICE_KEYS)
