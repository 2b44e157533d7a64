"""The modules that need no Deno, through a real pipe: what they ask, what they answer, and that
they end when they are cancelled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import (
    InvalidParamsError,
    LMError,
    MetricError,
    NotFoundError,
    OutputValidationError,
    RequestCancelledError,
    SignatureError,
)
from dspex_protocol.peer import Handler

from integration.openai_server import (
    Answer,
    OpenAIServer,
    Request,
    answering,
    failure,
    well_formed,
)

BOUND_S = 60.0


def run(
    script: Callable[[Request], Answer],
    test: Callable[[Client, OpenAIServer], Awaitable[None]],
    handlers: dict[str, Handler] | None = None,
) -> None:
    async def whole() -> None:
        with OpenAIServer(script) as server:
            async with await Client.spawn(handlers=handlers or {}) as client:
                lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "num_retries": 0}
                await client.configure(lms={"main": {**lm, "api_key": server.api_key}})
                await test(client, server)

    asyncio.run(asyncio.wait_for(whole(), BOUND_S))


def in_turn(*answers: str, **more: Any) -> Callable[[Request], Answer]:
    """Answers prompts for `answer` in turn, and others with `more`."""
    left: Iterator[str] = iter(answers)

    def script(request: Request) -> Answer:
        if "`discussion` (" in request.turns[0][1]:
            return well_formed(request, more)
        return well_formed(request, {"reasoning": "because", **more, "answer": next(left)})

    return script


def metric(score: Callable[[dict[str, Any]], Any]) -> tuple[dict[str, Handler], list[Any]]:
    """A metric of the client's, and what it was asked."""
    asked: list[Any] = []

    async def call_metric(params: dict[str, Any]) -> Any:
        asked.append(params)
        return score(params["prediction"])

    return {"call_metric": call_metric}, asked


def length(prediction: dict[str, Any]) -> float:
    return 1.0 / len(prediction["answer"])


def prompts(server: OpenAIServer) -> list[str]:
    return ["\n".join(text for _, text in request.turns) for request in server.requests]


BEST: dict[str, Any] = {"N": 3, "metric": {"callback": "short"}, "threshold": 0.5}


# best_of_n


def test_best_of_n_stops_at_the_first_that_is_good_enough() -> None:
    handlers, asked = metric(length)

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create("q -> answer", program="p", module="best_of_n", options=BEST)
        result = await client.execute("p", {"q": "?"}, meta={"trace": "t"})
        assert result["outputs"] == {"answer": "ab"}
        assert [call["prediction"] for call in asked] == [{"answer": "abcd"}, {"answer": "ab"}]
        assert asked[0]["example"] == {"inputs": {"q": "?"}, "outputs": {}}
        assert asked[0]["metric"] == "short"
        assert asked[0]["meta"] == {"trace": "t"}
        assert len(server.requests) == 2
        assert {request.body["temperature"] for request in server.requests} == {1.0}

    run(in_turn("abcd", "ab"), test, handlers)


def test_best_of_n_answers_with_the_best_where_none_is_good_enough() -> None:
    handlers, _ = metric(length)

    async def test(client: Client, server: OpenAIServer) -> None:
        options = {**BEST, "module": "chain_of_thought"}
        await client.create("q -> answer", program="p", module="best_of_n", options=options)
        result = await client.execute("p", {"q": "?"})
        assert result["outputs"] == {"answer": "abc", "reasoning": "because"}
        assert result["usage"]["total_tokens"] > 0
        assert len(server.requests) == 3

    run(in_turn("abcd", "abc", "abcde"), test, handlers)


def test_an_attempt_that_fails_is_one_of_those_that_may() -> None:
    handlers, _ = metric(length)
    number = 0

    def script(request: Request) -> Answer:
        nonlocal number
        number += 1
        return failure(500) if number == 1 else well_formed(request, {"answer": "abc"})

    async def test(client: Client, server: OpenAIServer) -> None:
        nonlocal number
        await client.create("q -> answer", program="p", module="best_of_n", options=BEST)
        result = await client.execute("p", {"q": "?"})
        assert result["outputs"] == {"answer": "abc"}
        assert len(server.requests) == 3
        number = 0
        strict = {**BEST, "fail_count": 0}
        await client.create("q -> answer", program="s", module="best_of_n", options=strict)
        with pytest.raises(LMError):
            await client.execute("s", {"q": "?"})
        assert len(server.requests) == 4

    run(script, test, handlers)


def test_failures_are_counted_for_each_run() -> None:
    """And not, as in DSPy, for the life of the module."""
    handlers, _ = metric(length)
    fails: list[bool] = []

    def script(request: Request) -> Answer:
        return failure(500) if fails.pop(0) else well_formed(request, {"answer": "a"})

    async def test(client: Client, _server: OpenAIServer) -> None:
        options = {**BEST, "fail_count": 2}
        await client.create("q -> answer", program="p", module="best_of_n", options=options)
        for _ in range(3):
            fails.extend([True, True, False])
            assert (await client.execute("p", {"q": "?"}))["outputs"] == {"answer": "a"}

    run(script, test, handlers)


def test_where_every_attempt_fails_the_last_error_is_the_answer() -> None:
    handlers, _ = metric(lambda _prediction: "nonsense")

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create("q -> answer", program="p", module="best_of_n", options=BEST)
        with pytest.raises(MetricError, match="the metric 'short' answered"):
            await client.execute("p", {"q": "?"})
        assert len(server.requests) == 3

    run(in_turn("a", "b", "c"), test, handlers)


def test_a_spent_budget_is_no_attempt_that_failed() -> None:
    handlers, _ = metric(length)

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create("q -> answer", program="p", module="best_of_n", options=BEST)
        with pytest.raises(Exception, match="max_calls") as caught:
            await client.execute("p", {"q": "?"}, limits={"max_calls": 1})
        assert type(caught.value).__name__ == "BudgetExceededError"
        assert len(server.requests) == 1

    run(in_turn("abcd", "abc", "abcde"), test, handlers)


def test_a_cancel_ends_an_attempt_and_its_metric() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def call_metric(_params: dict[str, Any]) -> Any:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create("q -> answer", program="p", module="best_of_n", options=BEST)
        execute = asyncio.create_task(client.execute("p", {"q": "?"}))
        await started.wait()
        execute.cancel()
        with pytest.raises((asyncio.CancelledError, RequestCancelledError)):
            await execute
        await ended.wait()
        assert (await client.stats())["in_flight"] == 0
        assert len(server.requests) == 1

    run(in_turn("abcd", "abc", "abcde"), test, {"call_metric": call_metric})


def test_a_judge_is_a_program_and_is_paid_for() -> None:
    judge = {
        "signature": "example: dict, prediction: dict -> good: float",
        "instructions": "How good is it?",
    }
    scores = iter([0.2, 0.9])
    answers = iter(["bad", "good"])

    def script(request: Request) -> Answer:
        if "How good is it?" in request.turns[0][1]:
            return well_formed(request, {"good": next(scores)})
        return well_formed(request, {"answer": next(answers)})

    async def test(client: Client, server: OpenAIServer) -> None:
        options = {**BEST, "metric": {"judge": judge, "field": "good"}}
        await client.create("q -> answer", program="p", module="best_of_n", options=options)
        result = await client.execute("p", {"q": "?"})
        assert result["outputs"] == {"answer": "good"}
        assert len(server.requests) == 4
        stats = await client.stats()
        assert stats["lms"]["main"]["calls"] == 4
        assert result["usage"]["total_tokens"] == stats["lms"]["main"]["tokens"]
        assert json.dumps({"answer": "bad"}) in prompts(server)[1]

    run(script, test)


def test_a_reward_that_makes_no_sense_is_refused() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        for options, told in (
            ({"N": 3, "threshold": 1}, "'metric' is missing"),
            ({**BEST, "metric": {"name": "exact_match"}}, "has none to compare with"),
            ({**BEST, "metric": {"judge": {"signature": "a -> b"}, "field": "b"}}, "'example'"),
            ({**BEST, "N": 0}, "from 1 to 100"),
            ({**BEST, "module": "react"}, "Valid: predict, chain_of_thought"),
            ({**BEST, "treshold": 1}, "Did you mean 'threshold'"),
        ):
            with pytest.raises(InvalidParamsError, match=told):
                await client.create("q -> answer", module="best_of_n", options=options)

    run(in_turn(), test)


# refine


@pytest.mark.parametrize(
    ("inner", "name", "predictor"),
    [("predict", "self", "module"), ("chain_of_thought", "predict", "module.predict")],
)
def test_refine_tells_the_next_attempt_what_the_lm_advised(
    inner: str, name: str, predictor: str
) -> None:
    def score(prediction: dict[str, Any]) -> Any:
        return {"score": length(prediction), "feedback": "It is too long by far."}

    handlers, _ = metric(score)
    advice = {name: "Use two letters at most."}
    script = in_turn("abcd", "ab", discussion="It was too long.", advice=advice)

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create(
            "q -> answer", program="p", module="refine", options={**BEST, "module": inner}
        )
        result = await client.execute("p", {"q": "Why?"})
        assert result["outputs"]["answer"] == "ab"
        first, feedback, second = prompts(server)
        assert "hint_" not in first
        for told in ("abcd", "It is too long by far.", '"callback": "short"', "0.25", "Why?"):
            assert told in feedback
        assert "Use two letters at most." in second
        described = await client.describe("p")
        assert list(described["predictors"]) == [predictor]
        assert described["demos"] == []

    run(script, test, handlers)


def test_refine_asks_for_no_advice_after_the_last_attempt() -> None:
    handlers, _ = metric(length)
    script = in_turn("abcd", "abc", discussion="-", advice={"module": "-"})

    async def test(client: Client, server: OpenAIServer) -> None:
        options = {**BEST, "N": 2}
        await client.create("q -> answer", program="p", module="refine", options=options)
        assert (await client.execute("p", {"q": "?"}))["outputs"] == {"answer": "abc"}
        assert len(server.requests) == 3

    run(script, test, handlers)


# multi_chain_comparison


def test_chains_of_thought_are_made_at_once_and_compared() -> None:
    def script(request: Request) -> Answer:
        if "`rationale` (" in request.turns[0][1]:
            return well_formed(request, {"rationale": "the second is right", "answer": "Rome"})
        said = {"reasoning": f"thought {request.number}\nmore", "answer": f"city {request.number}"}
        return well_formed(request, said, fault="hang")

    async def test(client: Client, server: OpenAIServer) -> None:
        options = {"M": 4, "temperature": 0.9}
        await client.create(
            "q -> answer", program="p", module="multi_chain_comparison", options=options
        )
        execute = asyncio.create_task(client.execute("p", {"q": "?"}))
        await asyncio.to_thread(server.expect, 4)  # before any of them is answered
        server.release()
        result = await execute
        assert result["outputs"] == {"answer": "Rome", "rationale": "the second is right"}
        assert len(server.requests) == 5
        assert {request.body["temperature"] for request in server.requests} == {0.9}
        last = prompts(server)[-1]
        for number in range(4):
            assert (
                f"«I'm trying to thought {number} I'm not sure but my prediction is city " in last
            )
        described = await client.describe("p")
        assert list(described["predictors"]) == ["attempt.predict", "compare.predict"]

    run(script, test)


def test_a_chain_that_fails_cancels_the_others() -> None:
    def script(request: Request) -> Answer:
        if request.number == 2:
            return failure(401)
        return well_formed(request, {"reasoning": "-", "answer": "-"}, fault="hang")

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create("q -> answer", program="p", module="multi_chain_comparison")
        with pytest.raises(LMError):
            await client.execute("p", {"q": "?"})
        await asyncio.to_thread(server.expect_left, 2)

    run(script, test)


def test_of_a_comparison_the_answer_is_streamed() -> None:
    heard: list[dict[str, Any]] = []

    def script(request: Request) -> Answer:
        said = {"reasoning": "-", "rationale": "the best of them", "answer": f"a{request.number}"}
        return well_formed(request, said)

    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.create("q -> answer", program="p", module="multi_chain_comparison")
        result = await client.execute(
            "p", {"q": "?"}, stream={}, listener=lambda told: heard.append(told.params)
        )
        assert {chunk["attempt"] for chunk in heard} == {1}
        for field in ("rationale", "answer"):
            text = "".join(chunk["text"] for chunk in heard if chunk["field"] == field)
            assert text == result["outputs"][field]

    run(script, test)


# react_v2


def agent(request: Request) -> Answer:
    """Calls `lookup` once, then hands in what it observed."""
    told = "\n".join(text for _, text in request.turns)
    if "a pipe" in told:
        call = {"name": "submit", "args": {"answer": "a pipe", "sure": True}}
    else:
        call = {"name": "lookup", "args": {"word": "port"}}
    return well_formed(
        request, {"next_thought": "let me see", "tool_calls": {"tool_calls": [call]}}
    )


LOOKUP = {
    "name": "lookup",
    "description": "Looks a word up.",
    "parameters": [{"name": "word", "type": "str"}, {"name": "limit", "type": "int", "default": 3}],
}


def test_react_v2_calls_the_clients_tools_and_hands_in_its_outputs() -> None:
    calls: list[Any] = []

    async def call_tool(params: dict[str, Any]) -> Any:
        calls.append((params["tool"], params["args"]))
        return "a pipe"

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create(
            "question -> answer, sure: bool", program="p", module="react_v2", tools=[LOOKUP]
        )
        outputs = (await client.execute("p", {"question": "What is a port?"}))["outputs"]
        assert outputs["answer"] == "a pipe"
        assert outputs["sure"] is True
        assert outputs["termination_reason"] == "submit"
        assert calls == [("lookup", {"word": "port", "limit": 3})]
        assert "a pipe" in json.dumps(outputs["history"])
        assert len(server.requests) == 2

    run(agent, test, {"call_tool": call_tool})


def test_the_error_of_a_tool_is_an_observation_of_react_v2() -> None:
    async def call_tool(_params: dict[str, Any]) -> Any:
        raise RuntimeError("the dictionary is closed, ask for a pipe")

    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.create(
            "question -> answer, sure: bool", program="p", module="react_v2", tools=[LOOKUP]
        )
        outputs = (await client.execute("p", {"question": "What is a port?"}))["outputs"]
        told = json.dumps(outputs["history"])
        assert "Execution error in lookup: " in told
        assert "the dictionary is closed" in told
        assert ".py" not in told

    run(agent, test, {"call_tool": call_tool})


# knn

CAPITALS = [
    {"inputs": {"question": f"What is the capital of {land}?"}, "outputs": {"answer": city}}
    for land, city in (("France", "Paris"), ("Italy", "Rome"), ("Spain", "Madrid"))
]
RIVERS = [
    {"inputs": {"question": f"Which river flows through {city}?"}, "outputs": {"answer": river}}
    for city, river in (("Paris", "Seine"), ("Rome", "Tiber"), ("London", "Thames"))
]


def test_knn_shows_the_demonstrations_that_are_nearest() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        await client.configure(embedders={"words": {"model": "demo/tfidf"}})
        demos = [*CAPITALS, *RIVERS]
        for module, outputs in (
            ("predict", {"answer": "Danube"}),
            ("chain_of_thought", {"answer": "Danube", "reasoning": "because"}),
        ):
            options = {"k": 3, "module": module, "embedder": "words"}
            await client.create(
                "question -> answer", program=module, module="knn", options=options, demos=demos
            )
            result = await client.execute(module, {"question": "Which river flows through Vienna?"})
            assert result["outputs"] == outputs
            told = prompts(server)[-1]
            assert all(river in told for river in ("Seine", "Tiber", "Thames"))
            assert not any(city in told for city in ("Madrid", "capital"))
            # All of them are the program's: another question is shown others.
            await client.execute(module, {"question": "What is the capital of Austria?"})
            told = prompts(server)[-1]
            assert all(city in told for city in ("Paris", "Rome", "Madrid"))
            assert "river" not in told
            assert len((await client.describe(module))["demos"]) == 6

    run(in_turn("Danube", "Vienna", "Danube", "Vienna"), test)


def test_knn_works_with_the_embedded_lm() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.configure(
            lms={"demo": {"model": "demo/knn"}}, embedders={"words": {"model": "demo/tfidf"}}
        )
        result = await client.execute(
            {
                "signature": "question -> answer",
                "module": "knn",
                "options": {"k": 1},
                "demos": RIVERS,
            },
            {"question": "Which river flows through Rome?"},
            lm="demo",
        )
        assert result["outputs"] == {"answer": "Tiber"}

    run(in_turn(), test)


def test_knn_needs_demonstrations_and_an_embedder() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        with pytest.raises(InvalidParamsError, match="give it some in demos"):
            await client.create("question -> answer", module="knn", options={"k": 1})
        with pytest.raises(NotFoundError, match="there is no embedder 'words'"):
            await client.create(
                "question -> answer",
                module="knn",
                options={"k": 1, "embedder": "words"},
                demos=RIVERS,
            )
        with pytest.raises(InvalidParamsError, match="'k' is missing"):
            await client.create("question -> answer", module="knn", demos=RIVERS)

    run(in_turn(), test)


# What every module has in common


@pytest.mark.parametrize(
    ("module", "field", "more"),
    [
        ("chain_of_thought", "reasoning", {}),
        ("react", "trajectory", {}),
        ("react_v2", "history", {}),
        ("best_of_n", "reasoning", {"options": BEST}),
        ("refine", "hint_", {"options": BEST}),
        ("multi_chain_comparison", "rationale", {}),
        ("multi_chain_comparison", "reasoning_attempt_1", {}),
    ],
)
def test_a_field_that_is_the_modules_own_is_refused(
    module: str, field: str, more: dict[str, Any]
) -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        for signature in (f"{field}, q -> a", f"q -> {field}, a"):
            with pytest.raises(SignatureError, match=f"has a field '{field}' of its own"):
                await client.create(signature, module=module, **more)

    run(in_turn(), test)


@pytest.mark.parametrize("module", ["predict", "chain_of_thought"])
def test_an_input_named_prediction_reaches_the_lm_whatever_is_in_it(module: str) -> None:
    """DSPy takes one that looks like this for a parameter of OpenAI's."""

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create("example: dict, prediction: dict -> answer", program="p", module=module)
        prediction = {"type": "content", "content": "a text to be judged"}
        await client.execute("p", {"example": {}, "prediction": prediction})
        (request,) = server.requests
        assert "a text to be judged" in prompts(server)[0]
        assert "prediction" not in request.body

    run(in_turn("fine"), test)


def test_an_answer_that_does_not_fit_is_refused_whatever_the_module() -> None:
    handlers, _ = metric(lambda _prediction: 1)
    field = {"name": "score", "type": "float", "constraints": {"max": 1}}
    signature = {"inputs": [{"name": "q", "type": "str"}], "outputs": [field]}
    script = answering({"score": 2.0, "rationale": "-", "reasoning": "-"})

    async def test(client: Client, _server: OpenAIServer) -> None:
        for module, options in (("best_of_n", BEST), ("multi_chain_comparison", {})):
            await client.create(signature, program=module, module=module, options=options)
            with pytest.raises(OutputValidationError, match="score"):
                await client.execute(module, {"q": "?"})

    run(script, test, handlers)


def test_a_program_of_every_module_is_the_same_after_dump_and_load() -> None:
    handlers, _ = metric(lambda _prediction: 1)
    made: dict[str, dict[str, Any]] = {
        "predict": {},
        "chain_of_thought": {},
        "react": {"tools": [LOOKUP], "options": {"max_iters": 2}},
        "react_v2": {"tools": [LOOKUP], "options": {"max_iters": 2}},
        "best_of_n": {"options": BEST},
        "refine": {"options": BEST},
        "multi_chain_comparison": {"options": {"M": 2}},
    }
    demo = {"inputs": {"q": "one"}, "outputs": {"answer": "two"}}

    async def test(client: Client, _server: OpenAIServer) -> None:
        for module, more in made.items():
            await client.create("q -> answer", program=module, module=module, demos=[demo], **more)
            state = json.loads(json.dumps(await client.dump(module)))
            await client.load(state, program=f"{module} again")
            assert await client.dump(f"{module} again") == state
            one, other = [await client.describe(name) for name in (module, f"{module} again")]
            assert {**one, "program": None} == {**other, "program": None}
            assert one["predictors"]
            assert all(p["demos"] == [demo] for p in one["predictors"].values())

    run(in_turn(), test, handlers)
