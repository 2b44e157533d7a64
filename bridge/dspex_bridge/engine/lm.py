"""One LM: its calls metered, limited, retried within bounds, and handed on where it fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import dspy
from dspex_protocol.errors import DSPexError, InvalidParamsError
from dspy.clients import execution
from dspy.lm15 import Request
from dspy.utils.exceptions import LMInvalidRequestError, is_retryable_lm_error

from dspex_bridge.limits import Admission, Breaker, Limits

from . import plain_calls
from .embedded import MODEL as EMBEDDED_MODEL
from .errors import failure_of, retry_after_of
from .file_names import without_file_names
from .metering import METER_SETTING, CallRecord, Meter
from .openai_engine import cost_of
from .prices import is_listed
from .recording import RECORDER_SETTING
from .replay import PREFIX as REPLAY_PREFIX
from .streaming import STREAM_SETTING
from .threads import THREADS_SETTING
from .tracing import lm_call

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from .exchanges import Writer
    from .prices import Price

__all__ = ["LM", "retry_wait"]

# Providers may say "retry after an hour": a caller is better served by an error at once.
_MAX_RETRY_WAIT_S = 20.0

# Failures for which another LM is asked. Not a bad request, which would hide a mistake of the
# program's, nor what a content filter refused, which another LM is no way round.
_HELPED_BY_ANOTHER = frozenset(
    {"auth", "rate_limit", "timeout", "context_window", "connection", "server", "other"}
)


class LM(dspy.LM):  # type: ignore[misc]  # dspy ships no types
    """DSPy's LM with a name, an account, limits, and others to stand in for it.

    Copies share all of these. Calls are made on the event loop's thread; blocking ones, from
    DSPy's threads, are made there too.
    """

    def __init__(
        self,
        name: str,
        model: str,
        *,
        retries: int,
        limits: Sequence[Limits] = (),
        price: Price | None = None,
        fallbacks: Sequence[str] = (),
        find: Callable[[str], LM] | None = None,
        writer: Writer | None = None,
        by_dspy: LM | None = None,
        **kwargs: Any,
    ) -> None:
        """`limits` are those of the LM and of the bridge; `find` gives an LM by its name; `writer`
        takes every exchange. `by_dspy` is the same LM without an engine of the bridge's: it makes
        the calls that the engine cannot."""
        super().__init__(model, num_retries=0, **kwargs)
        self.name = name
        self.retries = retries
        self.price = price
        self.limits = tuple(limits)
        self.fallbacks = tuple(fallbacks)
        self.total = Meter()
        self.breaker = Breaker(name)
        self._find = find
        self._writer = writer
        self._by_dspy = by_dspy
        # Its parameters as it was configured, whatever a copy is changed to.
        self._own = dict(self.kwargs)
        self._changes: dict[str, Any] = {}

    @property
    def has_price(self) -> bool:
        """Whether it is known before a call what its tokens cost."""
        is_told = self.model == EMBEDDED_MODEL or self.model.startswith(REPLAY_PREFIX)
        return is_told or self.price is not None or is_listed(self.model)

    def copy(self, **kwargs: Any) -> LM:
        copied: LM = super().copy(**kwargs)
        copied._changes = {**self._changes, **kwargs}
        return copied

    def line(self) -> list[LM]:
        """This LM and those that stand in for it, in the order in which they are asked, with the
        same config."""
        line = [self]
        for name in self.fallbacks:
            assert self._find is not None  # noqa: S101 - given where there are fallbacks
            for lm in self._find(name).line():
                if all(lm.name != known.name for known in line):
                    line.append(lm.copy(**self._changes))
        return line

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """From a thread of a run's: see ThreadCalls."""
        threads = dspy.settings.get(THREADS_SETTING)
        if threads is None:
            raise RuntimeError(f"the LM {self.name!r} is called outside a run")
        return threads.call(lambda: self.acall(*args, **kwargs))

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """DSPy's answer. Raises what DSPy does (LMError and others), and the bridge's own:
        BudgetExceededError, LMError of a breaker, InvalidParamsError for a price that is needed
        and not known."""
        *line, last = self.line()
        for lm in (*line, last):  # before any of them has cost something
            lm.require_price(lm._scopes())
        tried: list[dict[str, Any]] = []
        for lm in line:
            try:
                return await lm._answer(*args, **kwargs)
            except Exception as error:
                failure = failure_of(error)
                if failure not in _HELPED_BY_ANOTHER:
                    raise
                tried.append({"lm": lm.name, "kind": failure})
        try:
            return await last._answer(*args, **kwargs)
        except Exception as error:
            _tell(error, tried)
            raise

    async def _answer(self, *args: Any, **kwargs: Any) -> Any:
        """This LM's own answer, after retries."""
        stream = dspy.settings.get(STREAM_SETTING)
        args = tuple(self._for_this(arg) for arg in args)
        for attempt in range(self.retries + 1):
            if stream is not None:
                stream.begin_call()
            try:
                return await self._attempt(*args, **kwargs)
            except Exception as error:
                if attempt == self.retries or not is_retryable_lm_error(error):
                    raise
                wait_s = retry_wait(error, attempt)
                if wait_s is None or self.breaker.state != "closed":
                    raise
            await asyncio.sleep(wait_s)
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _attempt(self, *args: Any, **kwargs: Any) -> Any:
        scopes = self._scopes()
        if self.model == EMBEDDED_MODEL or self.model.startswith(REPLAY_PREFIX):
            kwargs["messages"] = without_file_names(kwargs.get("messages"))
        if kwargs.get("cache", self.cache):
            record, answer = await self._cached(scopes, *args, **kwargs)
            if record is not None:
                self._count(record, is_error=record.is_filtered)
                self._refuse_filtered(record)
                return answer
        async with Admission(scopes, self.breaker) as admission:
            record = CallRecord(self.name)
            try:
                with record, lm_call(self.model, record):
                    answer = await self._asked(record, *args, **kwargs)
                self._refuse_filtered(record)
            except BaseException as error:
                failure = failure_of(error)
                admission.end(failure=failure, is_told=failure is not None)
                self._settle(admission, record, is_error=True)
                raise
            # An answer that came into the cache as this call waited says nothing of the LM.
            if record.is_billed:
                admission.end()
            self._settle(admission, record, is_error=False)
            return answer

    async def _cached(
        self, scopes: Sequence[Limits], *args: Any, **kwargs: Any
    ) -> tuple[CallRecord | None, Any]:
        """What the cache has, before anything is waited for: it needs no turn and no LM that is
        there, only a budget that is not spent."""
        for limits in scopes:
            limits.check()
        record = CallRecord(self.name)
        messages = kwargs.pop("messages", None)
        prompt = args[0] if args else kwargs.pop("prompt", None)
        prepare = partial(execution.prepare, asynchronous=True)
        call = await asyncio.to_thread(prepare, self, prompt, messages, kwargs)
        found = await asyncio.to_thread(execution._cached, self, call, True)
        if found is None:
            return None, None
        with record, lm_call(self.model, record), _told_to(record):
            return record, execution.finalize(self, call, found)

    async def _asked(self, record: CallRecord, *args: Any, **kwargs: Any) -> Any:
        """The answer by this LM's engine or, where that could not ask, as DSPy would get it."""
        try:
            return await self._call(record, *args, **kwargs)
        except Exception:
            if self._by_dspy is None or record.is_sent:
                raise
            record.request = None
        return await self._by_dspy.copy(**self._changes)._call(record, *args, **kwargs)

    async def _call(self, record: CallRecord, *args: Any, **kwargs: Any) -> Any:
        if args:  # a Request, and its media may be files: DSPy reads them in a thread
            with _told_to(record):
                return await super().acall(*args, **kwargs)
        # As super().acall does, which goes to a thread for this, too.
        messages, prompt = kwargs.pop("messages", None), kwargs.pop("prompt", None)
        call = execution.prepare(self, prompt, messages, kwargs, asynchronous=True)
        if plain_calls.is_plain(self, call):
            return await plain_calls.answer(self, call, record)
        with _told_to(record):
            return execution.finalize(self, call, await execution.aexecute(self, call))

    def require_price(self, scopes: Sequence[Limits]) -> None:
        """Raises InvalidParamsError where a limit in dollars could not be kept."""
        needing = [limits for limits in scopes if limits.needs_price]
        if needing and not self.has_price:
            raise InvalidParamsError(
                f"max_cost_usd cannot be kept: the price of {self.model!r} (the LM {self.name!r}) "
                "is not known. Give the LM's extra input_cost_per_token and output_cost_per_token, "
                "in dollars, or limit max_tokens instead",
                data={"param": "limits.max_cost_usd", "scope": needing[0].scope, "lm": self.name},
            )

    def _scopes(self) -> tuple[Limits, ...]:
        """The limits that a call is under, the narrowest first."""
        meter: Meter | None = dspy.settings.get(METER_SETTING)
        return (*(() if meter is None else meter.limits), *self.limits)

    def _refuse_filtered(self, record: CallRecord) -> None:
        if record.is_filtered:
            raise LMInvalidRequestError(
                "the answer was cut off by the provider's content filter",
                model=self.model,
                provider_code="content_filter",
            )

    def _settle(self, admission: Admission, record: CallRecord, *, is_error: bool) -> None:
        if record.is_billed:
            if self.price is not None:
                record.cost_usd = self.price.of(record.prompt_tokens, record.completion_tokens)
            admission.settle(record.total_tokens, record.cost_usd)
        elif not is_error:
            admission.take_back()
        self._count(record, is_error=is_error)

    def _count(self, record: CallRecord, *, is_error: bool) -> None:
        self.total.add(record, is_error=is_error)
        meter = dspy.settings.get(METER_SETTING)
        if meter is not None:
            meter.add(record, is_error=is_error)

    def _for_this(self, argument: Any) -> Any:
        """A request that was made for the LM that this one stands in for."""
        if isinstance(argument, Request) and argument.model != self.model:
            return replace(argument, model=self.model)
        return argument

    def update_history(self, entry: dict[str, Any]) -> None:
        """Where DSPy says what a call cost. No history is kept: it would only ever grow."""
        record = CallRecord.current()
        if record is not None:
            if not record.has_cost:
                record.cost_usd = self._cost(entry, record)
            record.is_filtered = _finish_reason(entry["response"]) == "content_filter"
        recorder = dspy.settings.get(RECORDER_SETTING)
        if recorder is not None:
            recorder.add_call(entry)
        if self._writer is not None and record is not None and record.is_billed:
            told = {**entry, "cost": record.cost_usd}
            self._writer.write(self.name, self._own, self.kwargs, told)

    def _cost(self, entry: dict[str, Any], record: CallRecord) -> float | None:
        if self.model == EMBEDDED_MODEL:
            return 0.0
        if record.request is not None:
            return cost_of(entry["response"], record.request)
        cost: float | None = entry.get("cost")
        return cost

    def _warn_zero_temp_rollout(self, temperature: float | None, rollout_id: int | None) -> None:
        """Silent: the rollout id is there to keep LMs of one model apart in the cache."""


def _told_to(record: CallRecord) -> AbstractContextManager[None]:
    """DSPy tells the usage to the record, and the rest to `update_history`."""
    context: AbstractContextManager[None] = dspy.context(
        usage_tracker=record, disable_history=False
    )
    return context


def _tell(error: Exception, tried: list[dict[str, Any]]) -> None:
    """Puts into an error which LMs failed before."""
    if tried and isinstance(error, DSPexError):
        error.data["tried"] = tried
    elif tried:
        error.tried = tried  # type: ignore[attr-defined]  # for errors.translate


def retry_wait(error: Exception, attempt: int) -> float | None:
    """Seconds until the next attempt; None where the provider wants more than we wait."""
    hint = retry_after_of(error)
    if hint is None:
        return min(0.5 * 2.0**attempt, _MAX_RETRY_WAIT_S)
    return None if hint > _MAX_RETRY_WAIT_S else max(0.0, float(hint))


def _finish_reason(response: Any) -> str | None:
    """Of DSPy's own response, or of LiteLLM's."""
    choices = getattr(response, "choices", None)
    found = choices[0] if choices else response
    reason: str | None = getattr(found, "finish_reason", None)
    return reason
