"""evaluate: a program against examples, by each kind of metric, through a real pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import DSPexError, InvalidParamsError, MetricError
from dspex_protocol.messages import Notification
from dspex_protocol.peer import Handler

from integration.openai_server import Answer, OpenAIServer, Request, failure, well_formed

BOUND_S = 60.0
EXACT = {"name": "exact_match"}


def answer(request: Request) -> Answer:
    """Answers `X?` with `X`; a judge's prompt with 0.5, a semantic comparison with its parts."""
    system, asked = request.turns[0][1], request.turns[-1][1]
    if "ground_truth" in system:
        return well_formed(request, {"reasoning": "…", "recall": "1.0", "precision": "0.5"})
    if "verdict" in system:
        return well_formed(request, {"verdict": "0.5", "why": "half"})
    question = asked.partition("[[ ## question ## ]]\n")[2].partition("\n")[0]
    if question.startswith("fail"):
        return failure(400)
    return well_formed(request, {"answer": question.rstrip("?")})


def run(
    test: Callable[[Client, OpenAIServer], Awaitable[None]],
    call_metric: Handler | None = None,
) -> None:
    async def whole() -> None:
        with OpenAIServer(answer) as server:
            handlers = {} if call_metric is None else {"call_metric": call_metric}
            async with await Client.spawn(handlers=handlers) as client:
                lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "num_retries": 0}
                await client.configure(lms={"main": {**lm, "api_key": server.api_key}})
                await client.create("question -> answer", program="qa")
                await test(client, server)

    asyncio.run(asyncio.wait_for(whole(), BOUND_S))


def example(question: str, expected: Any) -> dict[str, Any]:
    return {"inputs": {"question": question}, "outputs": {"answer": expected}}


DEVSET = [example("Paris?", "paris"), example("Rome?", "Oslo"), example("Kyiv?", ["Kyiv", "Kiev"])]


def test_the_score_is_the_mean_and_every_example_has_its_own() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        heard: list[Notification] = []
        result = await client.evaluate("qa", DEVSET, EXACT, listener=heard.append)
        assert result["score"] == pytest.approx(2 / 3)
        assert [one["score"] for one in result["results"]] == [1.0, 0.0, 1.0]
        assert [one["outputs"]["answer"] for one in result["results"]] == ["Paris", "Rome", "Kyiv"]
        assert result["results"][1]["feedback"] == 'answer: expected "Oslo", got "Rome"'
        assert result["usage"]["total_tokens"] > 0
        assert result["cost_usd"] > 0
        steps = [n.params["step"] for n in heard if n.method == "progress"]
        assert steps == [1, 2, 3]
        assert not [n for n in heard if n.method == "item"]

    run(test)


def test_a_failed_example_counts_as_zero_and_not_as_absent() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        devset = [
            example("Paris?", "Paris"),
            example("fail", "x"),
            {"inputs": {"qestion": "x"}, "outputs": {"answer": "x"}},
            {"inputs": {"question": "Oslo?"}, "outputs": {}},
        ]
        result = await client.evaluate("qa", devset, EXACT)
        assert result["score"] == 0.25
        assert [one["score"] for one in result["results"]] == [1.0, 0.0, 0.0, 0.0]
        codes = [one["error"]["code"] for one in result["results"][1:]]
        assert codes == ["lm_error", "input_validation", "metric_error"]
        # What cannot be scored is not paid for.
        assert len(server.requests) == 2

    run(test)


def test_no_examples_score_zero_and_results_can_be_left_out() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        assert (await client.evaluate("qa", [], EXACT))["score"] == 0.0
        result = await client.evaluate("qa", DEVSET, EXACT, results=False)
        assert (result["results"], result["score"]) == ([], pytest.approx(2 / 3))

    run(test)


def test_a_metric_of_the_hosts_is_asked_concurrently_with_what_it_needs() -> None:
    calls: list[dict[str, Any]] = []
    all_there = asyncio.Event()

    async def call_metric(params: dict[str, Any]) -> Any:
        calls.append(params)
        if len(calls) == len(DEVSET):
            all_there.set()
        await all_there.wait()  # for ever, were they asked one by one
        return {"score": len(params["prediction"]["answer"]), "feedback": "its length"}

    async def test(client: Client, _server: OpenAIServer) -> None:
        result = await client.evaluate("qa", DEVSET, {"callback": "length"}, meta={"t": 1})
        assert result["score"] == pytest.approx((5 + 4 + 4) / 3)
        assert result["results"][0]["feedback"] == "its length"
        assert {call["metric"] for call in calls} == {"length"}
        assert all(set(call) == CALL_KEYS for call in calls)
        assert sorted(call["example"]["inputs"]["question"] for call in calls) == [
            *("Kyiv?", "Paris?", "Rome?")
        ]
        assert all(call["meta"] == {"t": 1} for call in calls)

    run(test, call_metric)


def test_at_most_max_concurrency_run_at_once() -> None:
    asked, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def call_metric(_params: dict[str, Any]) -> Any:
        asked.release()
        await go_on.wait()
        return 1

    async def test(client: Client, server: OpenAIServer) -> None:
        devset = [example(f"{i}?", "") for i in range(12)]
        evaluating = asyncio.create_task(
            client.evaluate("qa", devset, {"callback": "m"}, max_concurrency=2)
        )
        await asked.acquire()
        await asked.acquire()
        # Any example that was not to wait would be ahead of these.
        for _ in range(3):
            await client.execute("qa", {"question": "x"})
        assert len(server.requests) == 2 + 3
        go_on.set()
        assert (await evaluating)["score"] == 1.0

    run(test, call_metric)


CALL_KEYS = {"request", "metric", "example", "prediction", "meta"}


def test_a_metric_that_fails_is_a_metric_error_with_the_example_that_caused_it() -> None:
    async def call_metric(params: dict[str, Any]) -> Any:
        answer = params["prediction"]["answer"]
        if answer == "Rome":
            raise DSPexError("no idea about Rome")
        return "very good" if answer == "Kyiv" else True

    async def test(client: Client, _server: OpenAIServer) -> None:
        result = await client.evaluate("qa", DEVSET, {"callback": "mine"})
        good, failed, nonsense = result["results"]
        assert good["score"] == 1.0
        assert result["score"] == pytest.approx(1 / 3)
        assert failed["error"]["code"] == "metric_error"
        assert failed["error"]["data"]["index"] == 1
        assert failed["error"]["data"]["example"] == DEVSET[1]
        assert "no idea about Rome" in failed["error"]["message"]
        assert nonsense["error"]["data"]["index"] == 2
        assert '"very good"' in nonsense["error"]["message"]

    run(test, call_metric)


def test_a_client_without_the_metric_is_told_so_at_once_and_not_for_every_example() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        devset = [example(f"{i}?", str(i)) for i in range(50)]
        with pytest.raises(MetricError, match="call_metric") as refusal:
            await client.evaluate("qa", devset, {"callback": "mine"}, max_concurrency=1)
        assert refusal.value.data["index"] == 0
        assert refusal.value.data["usage"]["total_tokens"] > 0
        assert len(server.requests) == 1

    run(test)


def test_a_cancelled_evaluate_cancels_the_metrics_that_were_asked() -> None:
    asked, cancelled = asyncio.Event(), asyncio.Event()

    async def call_metric(_params: dict[str, Any]) -> Any:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def test(client: Client, _server: OpenAIServer) -> None:
        task = asyncio.create_task(client.evaluate("qa", DEVSET[:1], {"callback": "mine"}))
        await asked.wait()
        task.cancel()
        await cancelled.wait()

    run(test, call_metric)


JUDGE = {
    "signature": "example: dict, prediction: dict -> verdict: float, why: str",
    "instructions": "Judge the prediction.",
}


def test_a_program_judges_and_its_calls_are_paid_for() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        judge = {"judge": JUDGE, "field": "verdict"}
        result = await client.evaluate("qa", DEVSET[:2], judge)
        assert result["score"] == 0.5
        assert len(server.requests) == 4
        prompts = [request.turns[-1][1] for request in server.requests]
        assert any('"answer": "Paris"' in prompt and '"paris"' in prompt for prompt in prompts)
        plain = await client.evaluate("qa", DEVSET[:2], EXACT)
        assert result["usage"]["total_tokens"] > plain["usage"]["total_tokens"]

    run(test)


def test_semantic_f1_asks_the_lm_of_the_program() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        result = await client.evaluate("qa", DEVSET[:1], {"name": "semantic_f1"})
        assert result["score"] == pytest.approx(2 / 3)

    run(test)


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ({"name": "exactmatch"}, "Did you mean 'exact_match'"),
        ({"name": "f1", "callback": "x"}, "exactly one of name, callback, judge"),
        ({}, "exactly one of name, callback, judge"),
        ({"name": "f1", "field": "anwser"}, "Did you mean 'answer'"),
        ({"judge": JUDGE, "field": "verdikt"}, "Did you mean 'verdict'"),
        ({"judge": JUDGE}, "field"),
        ({"judge": {"signature": "question -> verdict"}, "field": "verdict"}, "'example'"),
        ({"name": "numeric_close", "params": {"tolerance": 1}}, "unknown parameter 'tolerance'"),
    ],
)
def test_a_metric_that_cannot_be_is_refused_before_any_lm_is_called(
    metric: dict[str, Any], message: str
) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        with pytest.raises(InvalidParamsError, match=message):
            await client.evaluate("qa", DEVSET, metric)
        assert not server.requests

    run(test)
