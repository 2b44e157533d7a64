"""Budgets, rates, calls at once and the breaker, on a clock that jumps."""

from __future__ import annotations

import asyncio
import selectors
from typing import Any

import pytest
from dspex_bridge.limits import (
    BREAKER_FAILURES,
    BREAKER_OPEN_S,
    Admission,
    Breaker,
    Limits,
    limits_of,
)
from dspex_protocol.errors import BudgetExceededError, LMError


class Jumping(selectors.SelectSelector):
    """Nobody waits: where the loop would, its clock jumps."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing will happen")
        self.now += timeout
        return super().select(0)


def run(coroutine: Any) -> Any:
    """Runs it on a loop with such a clock."""
    selector = Jumping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def now() -> float:
    return asyncio.get_running_loop().time()


async def settled() -> None:
    """What can go on has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


async def begin(*scopes: Limits) -> float:
    """Begins a call that never ends; when it was let in."""
    await admitted(*scopes).__aenter__()
    return now()


# Rates


def a_minute(count: int) -> Limits:
    return Limits("lm", {"requests_per_minute": count})


def test_takings_over_the_rate_wait_for_the_window_in_the_order_they_came() -> None:
    async def scenario() -> list[tuple[int, float]]:
        rate, taken = a_minute(2), []

        async def take(number: int) -> None:
            taken.append((number, await begin(rate)))

        await asyncio.gather(*(take(number) for number in range(5)))
        return taken

    got = run(scenario())
    assert [number for number, _ in got] == [0, 1, 2, 3, 4]
    assert [at for _, at in got] == pytest.approx([0, 0, 60, 60, 120], abs=0.01)


def test_no_window_of_a_minute_has_more_takings_than_the_rate() -> None:
    async def scenario() -> list[float]:
        rate, times = a_minute(3), []
        for pause in (0, 50, 0, 20, 0, 0, 0, 90, 0, 0, 0, 0):
            await asyncio.sleep(pause)
            times.append(await begin(rate))
        return times

    times = run(scenario())
    assert all(later - earlier >= 60 for earlier, later in zip(times, times[3:], strict=False))


def test_a_waiter_that_is_cancelled_leaves_its_place_to_the_next() -> None:
    async def scenario() -> float:
        rate = a_minute(1)
        await begin(rate)
        waiters = [asyncio.create_task(begin(rate)) for _ in range(3)]
        await settled()
        waiters[0].cancel()
        waiters[1].cancel()
        return await waiters[2]

    assert run(scenario()) == pytest.approx(60, abs=0.01)


def test_a_waiter_that_is_cancelled_as_it_is_let_in_takes_nothing() -> None:
    async def scenario() -> float:
        lm = Limits("lm", {"max_concurrency": 1, "requests_per_minute": 2})
        first = admitted(lm)
        await first.__aenter__()
        waiting = asyncio.create_task(begin(lm))
        await settled()
        await first.__aexit__()  # lets it in
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return await begin(lm)

    assert run(scenario()) == 0


def test_a_place_that_is_given_back_is_the_next_ones_at_once() -> None:
    async def scenario() -> float:
        rate = a_minute(1)
        first = admitted(rate)
        await first.__aenter__()
        waiting = asyncio.create_task(begin(rate))
        await settled()
        first.take_back()
        return await waiting

    assert run(scenario()) == 0


@pytest.mark.parametrize("limits", [{"requests_per_minute": 2}, {}])
def test_a_rate_that_is_raised_or_lifted_lets_in_who_waits(limits: dict[str, int]) -> None:
    async def scenario() -> float:
        rate = a_minute(1)
        await begin(rate)
        waiting = asyncio.create_task(begin(rate))
        await asyncio.sleep(5)
        rate.change(limits)
        return await waiting

    assert run(scenario()) == pytest.approx(5, abs=0.01)


def test_a_rate_that_is_lowered_counts_what_was_begun() -> None:
    async def scenario() -> float:
        rate = a_minute(3)
        for _ in range(3):
            await begin(rate)
            await asyncio.sleep(10)
        rate.change({"requests_per_minute": 1})
        return await begin(rate)

    assert run(scenario()) == pytest.approx(80, abs=0.01)


@pytest.mark.parametrize("limits", [{"requests_per_minute": 1}, {"max_concurrency": 1}])
def test_calls_that_wait_for_one_lm_keep_nothing_from_those_of_another(
    limits: dict[str, int],
) -> None:
    async def scenario() -> float:
        narrow, bridge = Limits("lm", limits), Limits("bridge", {"max_concurrency": 3})
        await begin(narrow, bridge)
        waiting = [asyncio.create_task(begin(narrow, bridge)) for _ in range(5)]
        await asyncio.sleep(1)
        at = await begin(Limits("lm"), bridge)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return at

    assert run(scenario()) == pytest.approx(1, abs=0.01)


def test_places_that_are_raised_let_in_who_waits_and_count_who_is_there() -> None:
    async def scenario() -> list[bool]:
        lm = Limits("lm", {"max_concurrency": 1})
        await begin(lm)
        waiting = [asyncio.create_task(begin(lm)) for _ in range(3)]
        await settled()
        lm.change({"max_concurrency": 3})
        await settled()
        done = [task.done() for task in waiting]
        waiting[2].cancel()
        return done

    assert run(scenario()) == [True, True, False]


# Budgets


@pytest.mark.parametrize(
    ("limits", "settle", "spent"),
    [
        ({"max_calls": 1}, (5, 0.5), 1),
        ({"max_tokens": 5}, (5, 0.5), 5),
        ({"max_cost_usd": 0.5}, (5, 0.5), 0.5),
    ],
)
def test_a_budget_that_is_reached_is_spent(
    limits: dict[str, Any], settle: tuple[int, float], spent: float
) -> None:
    budget = Limits("lm", limits, name="main")
    budget.check()
    budget.begin()
    budget.settle(*settle)
    with pytest.raises(BudgetExceededError, match="the LM 'main'") as refusal:
        budget.check()
    (limit,) = limits
    assert refusal.value.data == {
        "scope": "lm",
        "name": "main",
        "limit": limit,
        "allowed": limits[limit],
        "spent": spent,
    }


def test_a_budget_of_nothing_lets_nothing_be_called() -> None:
    for limit in ("max_calls", "max_tokens", "max_cost_usd"):
        with pytest.raises(BudgetExceededError):
            Limits("call", {limit: 0}).check()


def test_a_limit_in_dollars_is_not_kept_by_guessing() -> None:
    budget = Limits("call", {"max_cost_usd": 1})
    budget.settle(5, None)
    with pytest.raises(BudgetExceededError, match="is not known"):
        budget.check()
    # Where nobody asked for dollars, a call without a price spoils nothing.
    account = Limits("bridge")
    account.settle(5, None)
    account.change({"max_cost_usd": 1})
    account.check()


def test_limits_of_a_map_without_any_are_none() -> None:
    assert limits_of("call", {}) == limits_of("call", {"limits": None}) == []
    (limits,) = limits_of("call", {"limits": {"max_calls": 1, "max_tokens": None}})
    assert limits.spec == {"max_calls": 1}


# Admissions


def admitted(*scopes: Limits, breaker: Breaker | None = None) -> Admission:
    return Admission(scopes, breaker or Breaker("main"))


def test_a_budget_is_taken_from_before_the_call_is_made() -> None:
    async def scenario() -> int:
        budget, made = Limits("call", {"max_calls": 3}), 0

        async def call() -> None:
            nonlocal made
            async with admitted(budget) as admission:
                made += 1
                await asyncio.sleep(1)
                admission.end()

        results = await asyncio.gather(*(call() for _ in range(9)), return_exceptions=True)
        assert sum(isinstance(result, BudgetExceededError) for result in results) == 6
        return made

    assert run(scenario()) == 3


def test_a_budget_that_is_spent_while_a_call_waits_is_seen_by_it() -> None:
    async def scenario() -> tuple[float, int]:
        budget = Limits("lm", {"max_tokens": 10, "max_concurrency": 1})

        async def call() -> None:
            async with admitted(budget) as admission:
                await asyncio.sleep(1)
                admission.settle(10, 0.0)
                admission.end()

        results = await asyncio.gather(*(call() for _ in range(3)), return_exceptions=True)
        return now(), sum(isinstance(result, BudgetExceededError) for result in results)

    assert run(scenario()) == (pytest.approx(1, abs=0.01), 2)


def test_calls_of_several_scopes_never_wait_for_one_another_in_a_ring() -> None:
    async def scenario() -> float:
        bridge = Limits("bridge", {"max_concurrency": 2})
        lms = [Limits("lm", {"max_concurrency": 1}) for _ in range(3)]

        async def call(lm: Limits) -> None:
            async with admitted(lm, bridge) as admission:
                await asyncio.sleep(1)
                admission.end()

        await asyncio.gather(*(call(lm) for _ in range(4) for lm in lms))
        return now()

    assert run(scenario()) == pytest.approx(6, abs=0.01)


def test_what_a_refused_call_had_taken_is_given_back() -> None:
    async def scenario() -> float:
        lm = Limits("lm", {"max_concurrency": 1, "requests_per_minute": 1})
        spent = Limits("bridge", {"max_concurrency": 1})

        async def call() -> None:
            async with admitted(lm, spent) as admission:
                admission.end()

        async with admitted(spent):
            waiting = asyncio.create_task(call())
            await settled()
            spent.change({"max_calls": 0})
        with pytest.raises(BudgetExceededError):
            await waiting
        spent.change({})
        await call()
        return now()

    assert run(scenario()) < 1


def test_an_answer_from_the_cache_gives_back_all_that_was_taken() -> None:
    async def scenario() -> tuple[float, int]:
        lm = Limits("lm", {"max_calls": 2, "requests_per_minute": 1})
        for _ in range(5):
            async with admitted(lm) as admission:
                admission.take_back()
        return now(), lm.calls

    assert run(scenario()) == (0, 0)


def test_a_call_that_is_cancelled_gives_back_its_place_and_counts() -> None:
    async def scenario() -> int:
        lm = Limits("lm", {"max_concurrency": 1})

        async def call() -> None:
            async with admitted(lm):
                await asyncio.Event().wait()

        task = asyncio.create_task(call())
        await settled()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        async with admitted(lm) as admission:
            admission.end()
        return lm.calls

    assert run(scenario()) == 2


# The breaker


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def failed(breaker: Breaker, kind: str = "server", times: int = 1) -> None:
    for _ in range(times):
        call = object()
        breaker.begin(call)
        breaker.end(call, failure=kind)


@pytest.mark.parametrize("kind", ["auth", "connection", "server", "timeout"])
def test_a_breaker_opens_after_failures_in_a_row(kind: str) -> None:
    clock = Clock()
    breaker = Breaker("main", clock)
    failed(breaker, kind, BREAKER_FAILURES - 1)
    assert breaker.state == "closed"
    failed(breaker, kind)
    assert breaker.state == "open"
    clock.now += 1
    with pytest.raises(LMError) as refusal:
        breaker.check()
    assert refusal.value.retryable == (kind != "auth")
    assert refusal.value.data["kind"] == kind
    assert refusal.value.data["retry_after_ms"] == (BREAKER_OPEN_S - 1) * 1000


@pytest.mark.parametrize("kind", ["bad_request", "rate_limit", "context_window", None])
def test_an_lm_that_answers_is_not_down(kind: str | None) -> None:
    breaker = Breaker("main", Clock())
    failed(breaker, "server", BREAKER_FAILURES - 1)
    failed(breaker, kind)  # type: ignore[arg-type]
    failed(breaker, "server", BREAKER_FAILURES - 1)
    assert breaker.state == "closed"


def test_a_call_that_was_given_up_says_nothing_of_the_lm() -> None:
    breaker = Breaker("main", Clock())
    failed(breaker, "server", BREAKER_FAILURES - 1)
    breaker.end(object(), is_told=False)
    failed(breaker)
    assert breaker.state == "open"


def test_one_probe_is_let_through_after_a_while_and_decides() -> None:
    clock = Clock()
    breaker = Breaker("main", clock)
    failed(breaker, "server", BREAKER_FAILURES)
    clock.now += BREAKER_OPEN_S
    assert breaker.state == "half_open"
    probe = object()
    breaker.begin(probe)
    with pytest.raises(LMError):
        breaker.begin(object())
    breaker.end(probe, failure="timeout")
    assert breaker.state == "open"
    clock.now += BREAKER_OPEN_S
    breaker.begin(probe)
    breaker.end(probe)
    assert breaker.state == "closed"
    failed(breaker, "server", BREAKER_FAILURES - 1)
    assert breaker.state == "closed"


def test_a_probe_that_was_given_up_leaves_its_place_to_another() -> None:
    clock = Clock()
    breaker = Breaker("main", clock)
    failed(breaker, "server", BREAKER_FAILURES)
    clock.now += BREAKER_OPEN_S
    probe = object()
    breaker.begin(probe)
    breaker.end(object(), is_told=False)  # another call, from before
    with pytest.raises(LMError):
        breaker.check()
    breaker.end(probe, is_told=False)
    breaker.check()


def test_an_answer_from_the_cache_says_nothing_of_an_lm() -> None:
    async def scenario() -> None:
        clock, lm = Clock(), Limits("lm")
        breaker = Breaker("main", clock)
        failed(breaker, "server", BREAKER_FAILURES - 1)
        async with admitted(lm, breaker=breaker) as admission:
            admission.take_back()
        failed(breaker)
        assert breaker.state == "open"
        clock.now += BREAKER_OPEN_S
        async with admitted(lm, breaker=breaker) as probe:
            probe.take_back()
        assert breaker.state == "half_open"
        breaker.check()  # the next one may be the probe

    run(scenario())
