"""How an optimize ends before its time: cancel, deadline, budget, a killed worker or bridge."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import (
    BudgetExceededError,
    ConnectionLostError,
    DSPexError,
    InternalError,
    RequestCancelledError,
    RequestTimeoutError,
    ShuttingDownError,
)

from integration import lifetime
from integration.openai_server import Answer, OpenAIServer, Request
from integration.optimizing import BOUND_S, EXACT, ROWS, answer, with_bridge, workers

TRAIN, VAL = ROWS[:12], ROWS[12:]
ENDED_WITHIN_S = 2.0

# It would take minutes, with the LM as slow as it is here.
LONG = {
    "name": "bootstrap_few_shot_random_search",
    "params": {"num_candidate_programs": 200, "num_threads": 2},
}


def slow(request: Request) -> Answer:
    made = answer(request)
    return Answer(made.content, delay_s=0.02)


def run(test: Callable[[Client, OpenAIServer], Awaitable[None]]) -> None:
    with OpenAIServer(slow) as server:
        asyncio.run(
            asyncio.wait_for(
                with_bridge(lambda client: test(client, server), server=server), BOUND_S
            )
        )


class Run:
    """A long optimize that has begun, and has a better candidate than the program itself, or not
    a worse one: at least two have been scored."""

    def __init__(self, client: Client, **params: Any) -> None:
        self._client = client
        self._two = asyncio.Event()
        self.id = 0
        self.heard: list[dict[str, Any]] = []
        self.result = asyncio.create_task(
            client.optimize(
                "p",
                LONG,
                TRAIN,
                valset=VAL,
                metric=EXACT,
                save_as="best",
                listener=self._hear,
                **params,
            )
        )

    def _hear(self, told: Any) -> None:
        self.id = told.params["id"]
        self.heard.append(told.params)
        if told.params["step"] >= 2:
            self._two.set()

    async def two_candidates(self) -> list[int]:
        """Waits for them. The workers there are."""
        waiting = asyncio.create_task(self._two.wait())
        await asyncio.wait({waiting, self.result}, return_when=asyncio.FIRST_COMPLETED)
        assert self._two.is_set(), self.result.exception()
        found = workers(self._client)
        assert len(found) == 1
        return found

    def cancel(self) -> None:
        self._client.notify("cancel", {"id": self.id})


async def is_gone(pids: list[int]) -> bool:
    gone = await asyncio.to_thread(lifetime.seconds_until_gone, pids, ENDED_WITHIN_S)
    return gone is not None


async def programs(client: Client) -> list[str]:
    return [program["program"] for program in await client.list()]


async def assert_is_best_so_far(client: Client, result: dict[str, Any], reason: str) -> None:
    assert result["stopped"] == reason
    assert result["program"] == "best"
    assert "best" in await programs(client)
    whole = [trial for trial in result["trials"] if trial["examples"] >= len(VAL) / 2]
    assert len(whole) >= 2
    assert result["score"] == max(trial["score"] for trial in whole)
    assert result["best_trial"] in {trial["trial"] for trial in whole}
    assert result["usage"]["total_tokens"] > 0
    answered = await client.execute("best", {"text": "apple, ripe"})
    assert answered["outputs"]["label"] in ("fruit", "tool")
    again = await client.evaluate("best", VAL, EXACT)
    best = next(trial for trial in result["trials"] if trial["trial"] == result["best_trial"])
    if best["examples"] == len(VAL):
        assert again["score"] == pytest.approx(result["score"])


def test_a_cancel_is_answered_at_once_and_the_worker_is_gone() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        long = Run(client)
        left = await long.two_candidates()
        long.cancel()
        async with asyncio.timeout(0.5):
            with pytest.raises(RequestCancelledError):
                await long.result
        assert await is_gone(left)
        assert await programs(client) == ["p"]

    run(test)


@pytest.mark.parametrize("on_stop", ["discard", "best"])
def test_a_worker_that_does_not_answer_any_more_is_killed(on_stop: str) -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        long = Run(client, on_stop=on_stop)
        left = await long.two_candidates()
        os.kill(left[0], signal.SIGSTOP)
        long.cancel()
        async with asyncio.timeout(ENDED_WITHIN_S):
            with pytest.raises(RequestCancelledError):
                await long.result
        assert await is_gone(left)
        assert await programs(client) == ["p"]

    run(test)


def test_a_cancel_gives_the_best_so_far_to_who_asked_for_it() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        long = Run(client, on_stop="best")
        left = await long.two_candidates()
        long.cancel()
        async with asyncio.timeout(ENDED_WITHIN_S):
            result = await long.result
        assert await is_gone(left)
        await assert_is_best_so_far(client, result, "cancelled")

    run(test)


async def enough_for_two(client: Client) -> int:
    """Milliseconds in which a run has scored two candidates, and has not ended: by what one takes
    on this machine, as busy as it is."""
    began = time.monotonic()
    first = Run(client)
    left = await first.two_candidates()
    first.cancel()
    with pytest.raises(RequestCancelledError):
        await first.result
    assert await is_gone(left)
    return round(1000 * (1.0 + 3 * (time.monotonic() - began)))


def test_a_deadline_ends_a_run_and_its_worker() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        timeout_ms = await enough_for_two(client)
        began = time.monotonic()
        long = Run(client, timeout_ms=timeout_ms)
        left = await long.two_candidates()
        with pytest.raises(RequestTimeoutError):
            await long.result
        assert 0 <= time.monotonic() - began - timeout_ms / 1000 < ENDED_WITHIN_S
        assert await is_gone(left)
        assert await programs(client) == ["p"]

    run(test)


def test_a_deadline_gives_the_best_so_far_to_who_asked_for_it() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        timeout_ms = await enough_for_two(client)
        began = time.monotonic()
        long = Run(client, timeout_ms=timeout_ms, on_stop="best")
        left = await long.two_candidates()
        result = await long.result
        assert 0 <= time.monotonic() - began - timeout_ms / 1000 < ENDED_WITHIN_S
        assert await is_gone(left)
        await assert_is_best_so_far(client, result, "timeout")

    run(test)


def test_a_deadline_before_the_first_score_is_a_timeout_or_the_program_itself() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.optimize("p", "labeled_few_shot", TRAIN)  # the zygote is there from here on
        for timeout_ms in (1, 20, 40, 80, 160, 320):
            long = Run(client, timeout_ms=timeout_ms, on_stop="best")
            try:
                result = await long.result
            except RequestTimeoutError:
                continue
            assert result["stopped"] == "timeout"
            await client.delete("best")

    run(test)


def test_a_budget_ends_a_run_before_it_is_overrun() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        long = Run(client, limits={"max_calls": 60})
        with pytest.raises(BudgetExceededError) as spent:
            await long.result
        assert spent.value.data["limit"] == "max_calls"
        assert spent.value.data["usage"]["total_tokens"] > 0
        assert len(server.requests) == 60
        assert await is_gone(workers(client))
        assert await programs(client) == ["p"]

    run(test)


def test_a_spent_budget_gives_the_best_so_far_to_who_asked_for_it() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        result = await Run(client, limits={"max_calls": 60}, on_stop="best").result
        assert len(server.requests) == 60
        await assert_is_best_so_far(client, result, "budget")

    run(test)


def test_a_budget_that_a_judge_spends_ends_a_run_too() -> None:
    judge = {
        "signature": "example: dict, prediction: dict -> label: Literal['fruit', 'tool'], ok: bool",
        "lm": "main",
    }

    async def test(client: Client) -> None:
        for on_stop in ("discard", "best"):
            asked = client.optimize(
                "p",
                "labeled_few_shot",
                TRAIN,
                metric={"judge": judge, "field": "ok"},
                limits={"max_calls": 20},
                on_stop=on_stop,
            )
            if on_stop == "discard":
                with pytest.raises(BudgetExceededError):
                    await asked
            else:
                assert (await asked)["stopped"] == "budget"

    asyncio.run(asyncio.wait_for(with_bridge(test), BOUND_S))


def test_an_lm_that_only_fails_ends_a_run_with_its_error() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": "wrong"}
        await client.configure(lms={"main": {**lm, "num_retries": 0}})
        with pytest.raises(DSPexError) as failed:
            await Run(client).result
        assert failed.value.code == "lm_error"
        assert failed.value.data["kind"] == "auth"
        assert len(server.requests) < 40

    run(test)


def test_a_killed_worker_is_an_error_and_the_bridge_goes_on() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        long = Run(client)
        (worker,) = await long.two_candidates()
        os.kill(worker, signal.SIGKILL)
        async with asyncio.timeout(ENDED_WITHIN_S):
            with pytest.raises(InternalError, match="killed") as failed:
                await long.result
        assert failed.value.retryable
        assert failed.value.data["usage"]["total_tokens"] > 0
        result = await client.optimize("p", "labeled_few_shot", TRAIN, save_as="best")
        assert result["program"] == "best"

    run(test)


def test_no_worker_outlives_a_bridge_that_was_killed() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        long = Run(client)
        left = await long.two_candidates()
        assert client.process is not None
        left += list(lifetime.group(client.process.pid))
        client.process.kill()
        with pytest.raises(ConnectionLostError):
            await long.result
        assert await is_gone(left)

    run(test)


def test_a_shutdown_cuts_a_run_off() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        long = Run(client)
        left = await long.two_candidates()
        told = await client.shutdown(drain_ms=100)
        assert told == {"completed": 0, "cancelled": 1}
        with pytest.raises(ShuttingDownError):
            await long.result
        assert client.process is not None
        async with asyncio.timeout(ENDED_WITHIN_S):
            assert await client.process.wait() == 0
        assert await is_gone(left)

    run(test)


def test_pings_are_answered_within_milliseconds_while_an_optimizer_runs() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        long = Run(client)
        await long.two_candidates()
        times = []
        for _ in range(200):
            began = time.monotonic()
            await client.ping()
            times.append(time.monotonic() - began)
        assert sorted(times)[len(times) // 2] < 0.02
        long.cancel()
        with pytest.raises(RequestCancelledError):
            await long.result

    run(test)
