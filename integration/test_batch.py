"""batch: many inputs, through a real pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from dspex_bridge.outflow import OUTFLOW_HIGH
from dspex_protocol.client import Client
from dspex_protocol.errors import (
    FrameTooLargeError,
    InvalidParamsError,
    NotFoundError,
    RequestCancelledError,
    RequestTimeoutError,
)
from dspex_protocol.messages import Notification

from integration.openai_server import Answer, OpenAIServer, Request, failure, well_formed
from integration.pipe import Pipe

BOUND_S = 60.0

# A bridge that does not wait for its client asks its LM for all that there is well within this.
SILENCE_S = 4.0


def echo(request: Request) -> Answer:
    """Answers with the question; `fail` fails, `hang` never comes back."""
    asked = request.turns[-1][1].partition("[[ ## question ## ]]\n")[2].partition("\n")[0]
    if asked.startswith("fail"):
        return failure(400)
    if asked.startswith("hang"):
        return replace(well_formed(request, {"answer": f"about {asked}"}), fault="hang")
    return well_formed(request, {"answer": f"about {asked}"})


def run(test: Callable[[Client, OpenAIServer], Awaitable[None]], **options: Any) -> None:
    async def whole() -> None:
        with OpenAIServer(echo) as server:
            async with await Client.spawn(**options) as client:
                lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "num_retries": 0}
                await client.configure(lms={"main": {**lm, "api_key": server.api_key}})
                await client.create("question -> answer", program="qa")
                await test(client, server)

    asyncio.run(asyncio.wait_for(whole(), BOUND_S))


def questions(*texts: str) -> list[dict[str, Any]]:
    return [{"question": text} for text in texts]


def test_results_are_in_the_order_of_the_inputs_with_what_an_execute_answers() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        heard: list[Notification] = []
        answer = await client.batch(
            "qa", questions("a", "b", "c"), max_concurrency=3, listener=heard.append
        )
        single = await client.execute("qa", {"question": "a"})
        outcomes = [result["ok"] for result in answer["results"]]
        assert [ok["outputs"]["answer"] for ok in outcomes] == ["about a", "about b", "about c"]
        assert all(set(ok) == set(single) for ok in outcomes)
        tokens = [ok["usage"]["total_tokens"] for ok in outcomes]
        assert answer["usage"]["total_tokens"] == sum(tokens) > 0
        assert answer["cost_usd"] == pytest.approx(sum(ok["cost_usd"] for ok in outcomes))
        assert answer["duration_ms"] > 0

        items = [n.params for n in heard if n.method == "item"]
        assert sorted(item["index"] for item in items) == [0, 1, 2]
        assert all(item["ok"] == outcomes[item["index"]] for item in items)
        steps = [n.params for n in heard if n.method == "progress"]
        assert [(step["step"], step["total"]) for step in steps] == [(1, 3), (2, 3), (3, 3)]

    run(test)


def test_no_item_and_no_progress_comes_after_the_response() -> None:
    from integration.pipe import Pipe

    with Pipe() as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        pipe.ask("create", {"program": "qa", "signature": "question -> answer"})
        batch = pipe.request("batch", {"program": "qa", "inputs": questions("a", "b", "c")})
        told = []
        while (message := pipe.receive())[0] != 1:
            told.append(message)
        assert message[:3] == [1, batch, None]
        pipe.ask("ping")
        about = [m for m in told if m[1] in ("item", "progress")]
        assert len(about) == 6
        assert all(m[2]["id"] == batch for m in about)
        assert not [m for m in pipe.notifications if m[1] in ("item", "progress")]


def test_a_failure_is_its_items_alone_and_a_bad_input_never_reaches_the_lm() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        inputs = [*questions("a", "fail"), {"qestion": "b"}, *questions("c")]
        answer = await client.batch("qa", inputs)
        ok, failed, bad, last = answer["results"]
        assert ok["ok"]["outputs"]["answer"] == "about a"
        assert last["ok"]["outputs"]["answer"] == "about c"
        assert (failed["error"]["code"], failed["error"]["data"]["kind"]) == (
            "lm_error",
            "bad_request",
        )
        assert bad["error"]["code"] == "input_validation"
        assert {error["path"][0] for error in bad["error"]["data"]["errors"]} == {
            *("question", "qestion")
        }
        assert len(server.requests) == 3
        assert (await client.describe("qa"))["counters"] == {"executions": 3, "errors": 1}

    run(test)


def test_halt_cancels_what_runs_begins_nothing_more_and_keeps_what_was_paid_for() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        inputs = questions("a", "hang", "fail", "b", "c")
        answer = await client.batch("qa", inputs, max_concurrency=2, on_error="halt")
        kinds = [
            "ok" if "ok" in result else result["error"]["code"] for result in answer["results"]
        ]
        assert kinds == ["ok", "cancelled", "lm_error", "cancelled", "cancelled"]
        assert answer["usage"]["total_tokens"] > 0
        assert len(await asyncio.to_thread(server.expect_left, 1)) == 1
        assert len(server.requests) == 3

    run(test)


def test_at_most_max_concurrency_run_at_once() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        task = asyncio.create_task(
            client.batch("qa", questions(*(f"hang {i}" for i in range(5))), max_concurrency=2)
        )
        await asyncio.to_thread(server.expect, 2)
        # Any input that was not to wait would be ahead of these.
        for _ in range(3):
            await client.execute("qa", {"question": "a"})
        assert len(server.requests) == 2 + 3
        server.release()
        await task
        assert len(server.requests) == 5 + 3

    run(test)


@pytest.mark.parametrize("ending", ["cancel", "deadline"])
def test_a_cancel_and_a_deadline_end_every_run_of_it(ending: str) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        inputs = questions(*(f"hang {i}" for i in range(4)))
        if ending == "cancel":
            task = asyncio.create_task(client.batch("qa", inputs))
            await asyncio.to_thread(server.expect, 4)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            with pytest.raises(RequestTimeoutError):
                await client.batch("qa", inputs, timeout_ms=1500)
        seen = len(server.requests)
        assert len(await asyncio.to_thread(server.expect_left, seen)) == seen
        assert (await client.stats())["stuck"] == 0

    run(test)


def test_without_results_only_items_tell_them() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        heard: list[Notification] = []
        answer = await client.batch("qa", questions("a", "b"), results=False, listener=heard.append)
        assert answer["results"] == []
        assert answer["usage"]["total_tokens"] > 0
        assert len([n for n in heard if n.method == "item"]) == 2

    run(test)


def test_what_is_too_large_for_the_client_was_told_in_items_and_says_what_was_paid() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        heard: list[Notification] = []
        with pytest.raises(FrameTooLargeError) as refusal:
            await client.batch(
                "qa", questions(*("x" * 3000 for _ in range(3))), listener=heard.append
            )
        assert refusal.value.data["usage"]["total_tokens"] > 0
        assert refusal.value.data["limit"] == 8192
        items = [n.params for n in heard if n.method == "item"]
        assert all(len(item["ok"]["outputs"]["answer"]) > 3000 for item in items)
        assert len(items) == 3

        heard.clear()
        answer = await client.batch(
            "qa", questions("x" * 9000), results=False, listener=heard.append
        )
        (item,) = (n.params for n in heard if n.method == "item")
        assert item["error"]["code"] == "frame_too_large"
        assert answer["usage"]["total_tokens"] > 0

    run(test, max_frame_bytes=8192)


def test_no_inputs_are_no_results_and_bad_parameters_are_refused() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        answer = await client.batch("qa", [])
        assert (answer["results"], answer["usage"]["total_tokens"]) == ([], 0)
        with pytest.raises(NotFoundError):
            await client.batch("qb", questions("a"))
        for params in ({"on_error": "stop"}, {"max_concurrency": 0}, {"results": 1}):
            with pytest.raises(InvalidParamsError, match=next(iter(params))):
                await client.batch("qa", questions("a"), **params)

    run(test)


def test_a_shutdown_cuts_a_batch_off_and_ends_its_runs() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        from dspex_protocol.errors import ShuttingDownError

        task = asyncio.create_task(client.batch("qa", questions("hang")))
        await asyncio.to_thread(server.expect, 1)
        assert (await client.shutdown(drain_ms=0))["cancelled"] == 1
        with pytest.raises((ShuttingDownError, RequestCancelledError)):
            await task

    run(test)


def test_elements_that_fail_at_once_do_not_keep_others_waiting() -> None:
    """Nothing in them waits for anything: without a pause they would hold the loop to the end."""
    count = 20_000

    async def test(client: Client, _server: OpenAIServer) -> None:
        begun = asyncio.Event()
        batch = asyncio.create_task(
            client.batch(
                "qa", [{}] * count, results=False, max_concurrency=1, listener=lambda _: begun.set()
            )
        )
        await begun.wait()
        await client.execute("qa", {"question": "a"})
        assert not batch.done()
        batch.cancel()
        with pytest.raises(asyncio.CancelledError):
            await batch

    run(test)


def test_items_wait_for_a_client_that_does_not_read() -> None:
    """What it has not read is bounded, however much there is to tell: the LM is asked no more."""
    size, count = 1024 * 1024, 100

    def long(request: Request) -> Answer:
        return well_formed(request, {"answer": "x" * size})

    with OpenAIServer(long) as server, Pipe() as pipe:
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        pipe.ask("configure", {"lms": {"main": lm}})
        pipe.ask("create", {"signature": "question -> answer", "program": "qa"})
        inputs = [{"question": str(number)} for number in range(count)]
        request = pipe.request(
            "batch", {"program": "qa", "inputs": inputs, "results": False, "max_concurrency": 1}
        )
        # What may wait, a pipe's worth, the one that is being sent and the one that is asked for.
        most = (OUTFLOW_HIGH + 2 * 1024 * 1024) // size + 2
        with pytest.raises(TimeoutError):
            server.expect(most + 1, timeout_s=SILENCE_S)
        items = 0
        while (message := pipe.receive())[:2] != [1, request]:
            items += message[1] == "item"
        assert items == count
