"""What an execution used: counted at the LM, where nothing is lost."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextvars import Token

    from dspy.lm15 import Request

    from dspex_bridge.limits import Limits

__all__ = ["METER_SETTING", "CallRecord", "Meter"]

# The key in DSPy's settings under which an execution's meter, and the limits that its LM calls are
# under, travel, into DSPy's threads too.
METER_SETTING = "dspex_meter"


class CallRecord:
    """One LM call. DSPy's usage tracker in its place: `add_usage` is called for what was billed
    (never for an answer from the cache), also when the call failed after the provider answered.
    It is the current one of those who enter it, once, and of what they call.
    """

    __slots__ = (
        "_token",
        "completion_tokens",
        "cost_usd",
        "has_cost",
        "is_billed",
        "is_filtered",
        "is_sent",
        "lm",
        "prompt_tokens",
        "request",
        "total_tokens",
    )

    def __init__(self, lm: str) -> None:
        self.lm = lm
        self.is_billed = False
        self.is_filtered = False
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.total_tokens = 0
        self.cost_usd: float | None = None
        # Whether something else than DSPy's price table has told the cost.
        self.has_cost = False
        # Of a call by the bridge's own engine: what is asked, and whether it got so far as to be
        # sent.
        self.request: Request | None = None
        self.is_sent = False

    @staticmethod
    def current() -> CallRecord | None:
        """That of the LM call under way."""
        return _current.get()

    def __enter__(self) -> None:
        self._token: Token[CallRecord | None] = _current.set(self)

    def __exit__(self, *_error: object) -> None:
        _current.reset(self._token)

    def add_cost(self, cost_usd: float | None) -> None:
        """Of one answer; the call's is not known where one answer's is not."""
        known = self.cost_usd if self.has_cost else 0.0
        self.cost_usd = None if known is None or cost_usd is None else known + cost_usd
        self.has_cost = True

    def add_usage(self, _model: str, usage: dict[str, Any]) -> None:
        self.is_billed = True
        prompt, completion = usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0
        self.prompt_tokens += prompt
        self.completion_tokens += completion
        self.total_tokens += usage.get("total_tokens") or prompt + completion


_current: ContextVar[CallRecord | None] = ContextVar("dspex_call", default=None)


class Meter:
    """The sum of the LM calls of one execution, or of one LM. What is added counts in `whole`,
    too: the meter of what this is a part of. `limits` are those that the calls are under, the
    narrowest scope first; where none are given, they are the whole's."""

    __slots__ = (
        "answered_by",
        "billed",
        "calls",
        "completion_tokens",
        "errors",
        "is_cost_known",
        "known_cost_usd",
        "limits",
        "prompt_tokens",
        "total_tokens",
        "whole",
    )

    def __init__(self, whole: Meter | None = None, limits: Sequence[Limits] = ()) -> None:
        self.whole = whole
        self.limits: Sequence[Limits] = limits if whole is None or limits else whole.limits
        # The name of the LM that gave the last answer.
        self.answered_by: str | None = None
        self.calls = 0
        self.billed = 0
        self.errors = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.total_tokens = 0
        self.known_cost_usd = 0.0
        self.is_cost_known = True

    def add(self, record: CallRecord, *, is_error: bool) -> None:
        if self.whole is not None:
            self.whole.add(record, is_error=is_error)
        self.calls += 1
        self.errors += is_error
        if not is_error:
            self.answered_by = record.lm
        if not record.is_billed:
            return
        self.billed += 1
        self.prompt_tokens += record.prompt_tokens
        self.completion_tokens += record.completion_tokens
        self.total_tokens += record.total_tokens
        if record.cost_usd is None:
            self.is_cost_known = False
        else:
            self.known_cost_usd += record.cost_usd

    @property
    def cost_usd(self) -> float | None:
        """None where the price of any of it is unknown."""
        return self.known_cost_usd if self.is_cost_known else None

    @property
    def is_cached(self) -> bool:
        """Whether there were LM calls and the cache answered all of them."""
        return self.calls > 0 and self.billed == 0 and self.errors == 0

    def usage(self) -> dict[str, int]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.total_tokens,
        }
