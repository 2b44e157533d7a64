"""An LM that fails is stood in for by the next one, and left alone for a while where it is down."""

from __future__ import annotations

from typing import Any

import pytest

from integration.openai_server import (
    Answer,
    OpenAIServer,
    answering,
    content_filter,
    context_length_exceeded,
    failure,
)
from integration.pipe import Pipe

PARIS = answering({"answer": "Paris"}, usage=(100, 20))
LONDON = answering({"answer": "London"}, usage=(10, 2))
INPUTS = {"program": {"signature": "question -> answer"}, "inputs": {"question": "Where?"}}

FAILURES_UNTIL_LEFT_ALONE = 5


@pytest.fixture(scope="module")
def pipe() -> Any:
    with Pipe() as pipe:
        yield pipe


def lm(server: OpenAIServer, **options: Any) -> dict[str, Any]:
    return {
        "model": "openai/gpt-4.1-mini",
        "api_base": server.url,
        "api_key": server.api_key,
        "num_retries": 0,
        "timeout_ms": 10_000,
        **options,
    }


def configured(pipe: Pipe, main: OpenAIServer, spare: OpenAIServer, **options: Any) -> None:
    lms = {"main": lm(main, fallbacks=["spare"], **options), "spare": lm(spare)}
    pipe.ask("configure", {"lms": lms, "default_lm": "main"})


@pytest.mark.parametrize(
    ("answer", "options"),
    [
        (failure(401), {}),
        (failure(403), {}),
        (failure(429, retry_after=3600), {}),
        (failure(500), {}),
        (context_length_exceeded(), {}),
        (Answer(fault="disconnect"), {}),
        (Answer(fault="hang"), {"timeout_ms": 100}),
        (Answer("x", fault="malformed_json"), {}),
    ],
    ids=["auth", "forbidden", "rate", "server", "context", "connection", "timeout", "malformed"],
)
def test_the_next_lm_answers_where_one_fails_for_a_reason_of_its_own(
    pipe: Pipe, answer: Answer, options: dict[str, Any]
) -> None:
    with OpenAIServer(answer) as main, OpenAIServer(LONDON) as spare:
        configured(pipe, main, spare, **options)
        result = pipe.ask("execute", INPUTS)
        assert (result["lm"], result["outputs"]) == ("spare", {"answer": "London"})
        assert (len(main.requests), len(spare.requests)) == (1, 1)


@pytest.mark.parametrize("answer", [failure(400), content_filter()], ids=["request", "filter"])
def test_no_other_lm_is_asked_what_one_refused_for_what_it_says(pipe: Pipe, answer: Answer) -> None:
    with OpenAIServer(answer) as main, OpenAIServer(LONDON) as spare:
        configured(pipe, main, spare)
        assert pipe.refusal("execute", INPUTS)["code"] == "lm_error"
        assert spare.requests == []


def test_retries_come_before_fallbacks(pipe: Pipe) -> None:
    passing = failure(429, retry_after=0.01)
    with OpenAIServer([passing, passing]) as main, OpenAIServer(LONDON) as spare:
        configured(pipe, main, spare, num_retries=1)
        assert pipe.ask("execute", INPUTS)["lm"] == "spare"
        assert len(main.requests) == 2


def test_the_usage_is_that_of_all_that_were_asked(pipe: Pipe) -> None:
    filtered = Answer("I will", finish_reason="length", usage=(100, 20))
    with OpenAIServer([filtered, failure(500)]) as main, OpenAIServer(LONDON) as spare:
        # The first answer cannot be read, so it is asked again in JSON, and fails then.
        configured(pipe, main, spare)
        result = pipe.ask("execute", INPUTS)
    assert (result["lm"], result["usage"]["total_tokens"]) == ("spare", 132)


def test_the_call_s_own_config_goes_to_the_one_that_stands_in(pipe: Pipe) -> None:
    with OpenAIServer(failure(500)) as main, OpenAIServer(LONDON) as spare:
        configured(pipe, main, spare, temperature=0.9)
        pipe.ask("execute", {**INPUTS, "config": {"top_p": 0.5}})
        (request,) = spare.requests
        assert request.body["top_p"] == 0.5
        assert request.body.get("temperature") is None


def test_a_stand_in_begins_a_new_attempt_of_a_stream(pipe: Pipe) -> None:
    text = "[[ ## answer ## ]]\nParis is the place\n\n[[ ## completed ## ]]"
    with OpenAIServer(Answer(text, fault="half_body")) as main, OpenAIServer(LONDON) as spare:
        configured(pipe, main, spare)
        pipe.notifications.clear()
        result = pipe.ask("execute", {**INPUTS, "stream": {}})
    assert result["outputs"] == {"answer": "London"}
    chunks = [params for _, name, params in pipe.notifications if name == "chunk"]
    last = max(chunk["attempt"] for chunk in chunks)
    assert last > 1
    assert "".join(chunk["text"] for chunk in chunks if chunk["attempt"] == last) == "London"


def test_those_that_stand_in_are_asked_in_turn_and_the_last_error_tells_of_the_others(
    pipe: Pipe,
) -> None:
    with OpenAIServer(failure(500)) as one, OpenAIServer(failure(429)) as two:
        lms = {
            "first": lm(one, fallbacks=["second"]),
            "second": lm(two, fallbacks=["third"]),
            "third": lm(one),
        }
        pipe.ask("configure", {"lms": lms})
        error = pipe.refusal("execute", {**INPUTS, "lm": "first"})
        assert (len(one.requests), len(two.requests)) == (2, 1)
    assert error["data"]["kind"] == "server"
    assert error["data"]["tried"] == [
        {"lm": "first", "kind": "server"},
        {"lm": "second", "kind": "rate_limit"},
    ]


def test_an_lm_of_one_call_may_have_stand_ins_too(pipe: Pipe) -> None:
    with OpenAIServer(failure(500)) as main, OpenAIServer(LONDON) as spare:
        pipe.ask("configure", {"lms": {"spare": lm(spare)}})
        result = pipe.ask("execute", {**INPUTS, "lm": lm(main, fallbacks=["spare"])})
    assert result["lm"] == "spare"


def test_fallbacks_that_lead_nowhere_or_back_are_refused(pipe: Pipe) -> None:
    one = {"model": "demo/knn", "fallbacks": ["b"]}
    error = pipe.refusal("configure", {"lms": {"a": {**one, "fallbacks": ["nobody"]}}})
    assert (error["code"], error["data"]["name"]) == ("not_found", "nobody")
    lms = {"a": one, "b": {"model": "demo/knn", "fallbacks": ["c"]}}
    pipe.ask("configure", {"lms": {**lms, "c": {"model": "demo/knn"}}})
    error = pipe.refusal("configure", {"lms": {"c": {"model": "demo/knn", "fallbacks": ["a"]}}})
    assert error["code"] == "invalid_params"
    assert "c → a → b → c" in error["message"]
    error = pipe.refusal("configure", {"lms": {"d": {"model": "demo/knn", "fallbacks": ["d"]}}})
    assert error["code"] == "invalid_params"


def test_an_lm_that_is_down_is_left_alone_and_others_stand_in_meanwhile(pipe: Pipe) -> None:
    with OpenAIServer(failure(503)) as main, OpenAIServer(LONDON) as spare:
        configured(pipe, main, spare)
        for _ in range(FAILURES_UNTIL_LEFT_ALONE + 3):
            assert pipe.ask("execute", INPUTS)["lm"] == "spare"
        assert len(main.requests) == FAILURES_UNTIL_LEFT_ALONE
        assert pipe.ask("stats")["lms"]["main"]["breaker"] == "open"
        pipe.ask("configure", {"lms": {"main": lm(main)}})
        assert pipe.ask("stats")["lms"]["main"]["breaker"] == "closed"


def test_without_a_stand_in_the_answer_is_an_error_at_once_that_says_when(pipe: Pipe) -> None:
    with OpenAIServer(failure(503)) as main:
        pipe.ask("configure", {"lms": {"main": lm(main)}, "default_lm": "main"})
        for _ in range(FAILURES_UNTIL_LEFT_ALONE):
            pipe.refusal("execute", INPUTS)
        error = pipe.refusal("execute", INPUTS)
        assert len(main.requests) == FAILURES_UNTIL_LEFT_ALONE
    assert (error["code"], error["data"]["kind"], error["retryable"]) == (
        "lm_error",
        "server",
        True,
    )
    assert 0 < error["data"]["retry_after_ms"] <= 10_000


def test_an_answer_in_between_starts_the_count_again(pipe: Pipe) -> None:
    def script(request: Any) -> Answer:
        return PARIS(request) if request.number % 5 == 4 else failure(503)

    with OpenAIServer(script) as main:
        pipe.ask("configure", {"lms": {"main": lm(main)}, "default_lm": "main"})
        for _ in range(3):
            for _ in range(4):
                pipe.refusal("execute", INPUTS)
            assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "Paris"}
        assert len(main.requests) == 15


def test_answers_of_the_cache_neither_hide_that_an_lm_is_down_nor_wait_for_it(pipe: Pipe) -> None:
    def script(request: Any) -> Answer:
        return PARIS(request) if request.number == 0 else failure(503)

    with OpenAIServer(script) as main:
        cached = {"lms": {"cached": lm(main, cache=True)}, "default_lm": "cached"}
        pipe.ask("configure", cached)
        pipe.ask("execute", INPUTS)
        for number in range(FAILURES_UNTIL_LEFT_ALONE):
            pipe.refusal("execute", {**INPUTS, "inputs": {"question": f"{number}?"}})
            # In between, and after the last one too: the breaker is open then.
            assert pipe.ask("execute", INPUTS)["cached"] is True
        assert pipe.ask("stats")["lms"]["cached"]["breaker"] == "open"
        assert len(main.requests) == 1 + FAILURES_UNTIL_LEFT_ALONE


def test_a_limit_in_dollars_needs_the_price_of_every_stand_in_before_any_is_asked(
    pipe: Pipe,
) -> None:
    with OpenAIServer(failure(503)) as main, OpenAIServer(LONDON) as spare:
        lms = {
            "main": lm(main, fallbacks=["spare"]),
            "spare": lm(spare, model="openai/gpt-none-such"),
        }
        pipe.ask("configure", {"lms": lms, "default_lm": "main"})
        error = pipe.refusal("execute", {**INPUTS, "limits": {"max_cost_usd": 1}})
        assert (error["code"], error["data"]["lm"]) == ("invalid_params", "spare")
        assert main.requests == spare.requests == []
