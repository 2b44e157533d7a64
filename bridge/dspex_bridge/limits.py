"""Limits on LM calls: budgets, rates, calls at once; and the breaker of an LM that is down.

Everything here is used on the event loop's thread alone, so that to look at a budget and to take
from it is one step, however many calls are under way.
"""

from __future__ import annotations

import time

from dspex_protocol.errors import BudgetExceededError, LMError

from .rooms import Entry, Room

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, Self

__all__ = ["Admission", "Breaker", "Limits", "limits_of"]

# So many failures in a row are no accident: an execute with the usual three retries makes four.
BREAKER_FAILURES = 5

# How long a broken LM is left alone. A provider's hiccup passes in seconds, and a caller that
# waits for the LM to come back should not wait much longer than that.
BREAKER_OPEN_S = 10.0

# Failures that say the LM is not there, or does not let us in; the others are answers.
BREAKER_KINDS = frozenset({"auth", "connection", "server", "timeout"})


class Limits:
    """The limits of one scope, and what was spent under them.

    `spec` is `{max_cost_usd?, max_tokens?, max_calls?, requests_per_minute?, max_concurrency?}`,
    `scope` one of bridge, lm, program and call. Calls are counted before they are made, so
    `max_calls` is never passed. What a call costs is known when it has ended: `max_tokens` and
    `max_cost_usd` are passed by at most the calls that were under way when they were reached.
    """

    def __init__(
        self, scope: str, spec: Mapping[str, Any] | None = None, *, name: str | None = None
    ) -> None:
        self.scope = scope
        self.name = name
        self.calls = 0
        self.tokens = 0
        self.cost_usd = 0.0
        self._has_unpriced_call = False
        self.room = Room()
        self.change(spec or {})

    def change(self, spec: Mapping[str, Any]) -> None:
        """Other limits from now on, on the same account: what is spent stays spent."""
        self.spec = {key: value for key, value in spec.items() if value is not None}
        self.room.change(self.spec.get("max_concurrency"), self.spec.get("requests_per_minute"))

    @property
    def needs_price(self) -> bool:
        return "max_cost_usd" in self.spec

    def check(self) -> None:
        """Raises BudgetExceededError where nothing is left for another call."""
        spent = {
            "max_calls": self.calls,
            "max_tokens": self.tokens,
            "max_cost_usd": self.cost_usd,
        }
        for limit, amount in spent.items():
            if limit in self.spec and amount >= self.spec[limit]:
                raise BudgetExceededError(
                    f"{self._owner} has spent its {limit}: {amount:g} of {self.spec[limit]:g}",
                    data=self._data(limit, amount),
                )
        if self.needs_price and self._has_unpriced_call:
            raise BudgetExceededError(
                f"{self._owner} has a max_cost_usd, and the cost of one of its calls is not known",
                data=self._data("max_cost_usd", None),
            )

    def begin(self) -> None:
        """A call is about to be made."""
        self.calls += 1

    def settle(self, tokens: int, cost_usd: float | None) -> None:
        """A call has been billed."""
        self.tokens += tokens
        self.cost_usd += cost_usd or 0.0
        if cost_usd is None and self.needs_price:
            self._has_unpriced_call = True

    def take_back(self) -> None:
        """The call was not made after all: the cache had its answer."""
        self.calls -= 1

    def spent(self) -> dict[str, Any]:
        return {"calls": self.calls, "tokens": self.tokens, "cost_usd": self.cost_usd}

    @property
    def _owner(self) -> str:
        named = f" {self.name!r}" if self.name is not None else ""
        return f"the {'LM' if self.scope == 'lm' else self.scope}{named}"

    def _data(self, limit: str, spent: float | None) -> dict[str, Any]:
        data = {"scope": self.scope, "limit": limit, "allowed": self.spec[limit], "spent": spent}
        return data if self.name is None else {**data, "name": self.name}


def limits_of(scope: str, params: Mapping[str, Any], name: str | None = None) -> list[Limits]:
    """The limits that a map has under `limits`: one scope's, or none."""
    spec = params.get("limits")
    return [Limits(scope, spec, name=name)] if spec else []


class Admission:
    """One LM call under the limits of several scopes, the narrowest first: `async with` waits for
    its turn, and raises BudgetExceededError, or the breaker's LMError, where it may not be made."""

    def __init__(self, scopes: Iterable[Limits], breaker: Breaker) -> None:
        self._scopes = tuple(scopes)
        self._breaker = breaker
        self._entry = Entry(limits.room for limits in self._scopes)

    async def __aenter__(self) -> Self:
        # Before the wait, so that nobody queues for what is spent; and after it.
        self._check()
        await self._entry.wait()
        try:
            self._check()
            self._breaker.begin(self)
        except BaseException:
            self._entry.give_back()
            self._entry.leave()
            raise
        for limits in self._scopes:
            limits.begin()
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._entry.leave()

    def settle(self, tokens: int, cost_usd: float | None) -> None:
        """The call was billed."""
        for limits in self._scopes:
            limits.settle(tokens, cost_usd)

    def take_back(self) -> None:
        """No call was made: the answer came from the cache, and says nothing of the LM."""
        self._breaker.end(self, is_told=False)
        self._entry.give_back()
        for limits in self._scopes:
            limits.take_back()

    def end(self, *, failure: str | None = None, is_told: bool = True) -> None:
        """The call has ended: as `Breaker.end`."""
        self._breaker.end(self, failure=failure, is_told=is_told)

    def _check(self) -> None:
        self._breaker.check()
        for limits in self._scopes:
            limits.check()


class Breaker:
    """Keeps calls from an LM that is down: after some failures in a row they are refused at once,
    for a while; then one is let through as a probe, and what becomes of it decides."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._failures = 0
        self._last_kind = ""
        self._open_until: float | None = None
        self._probe: object = None

    @property
    def state(self) -> str:
        """`closed`: calls go through. `open`: none does. `half_open`: the next one, or the one
        under way, decides."""
        if self._open_until is None:
            return "closed"
        return "open" if self._clock() < self._open_until else "half_open"

    def check(self) -> None:
        """Raises LMError where no call is let through now."""
        if self._open_until is None or (self.state == "half_open" and self._probe is None):
            return
        wait_s = max(self._open_until - self._clock(), 0.0)
        raise LMError(
            f"the LM {self._name!r} has failed {self._failures} times in a row, the last time "
            f"with {self._last_kind}: it is left alone for a while",
            data={
                "kind": self._last_kind,
                "lm": self._name,
                "retry_after_ms": round(wait_s * 1000),
                "breaker": self.state,
            },
            # A key that is refused stays refused until somebody changes it.
            retryable=self._last_kind != "auth",
        )

    def begin(self, call: object) -> None:
        """A call is made; where the breaker is half open it is the probe. Raises as `check`."""
        self.check()
        if self.state == "half_open":
            self._probe = call

    def end(self, call: object, *, failure: str | None = None, is_told: bool = True) -> None:
        """A call has ended, with a failure of that kind or none. It is not told where the call was
        given up before it could say anything of the LM."""
        if self._probe is call:
            self._probe = None
        if is_told and failure in BREAKER_KINDS:
            self._failures += 1
            self._last_kind = str(failure)
            if self._failures >= BREAKER_FAILURES:
                self._open_until = self._clock() + BREAKER_OPEN_S
        elif is_told:
            self._failures, self._open_until = 0, None
