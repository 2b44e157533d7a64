"""Budgets, rates and calls at once hold over a real pipe, for the bridge, an LM, a program and one
call: before the next LM call is made."""

from __future__ import annotations

import re
from typing import Any

import pytest

from integration.openai_server import Answer, OpenAIServer, Request, answering
from integration.pipe import Pipe

ANSWER = answering({"answer": "Paris"}, usage=(100, 20))
UNREADABLE = Answer("I would rather not.", usage=(100, 20))
HANG = answering({"answer": "Paris"}, fault="hang")
INPUTS = {"program": "qa", "inputs": {"question": "Where?"}}

# In dollars a token; 120 tokens of ANSWER then cost 0.14.
PRICES = {"input_cost_per_token": 0.001, "output_cost_per_token": 0.002}

SCOPES = ("bridge", "lm", "program")


@pytest.fixture
def pipe() -> Any:
    with Pipe() as pipe:
        yield pipe


def configured(
    pipe: Pipe, server: OpenAIServer, scope: str = "", limits: Any = None, **options: Any
) -> None:
    """Limits in one scope, and a program `qa` to spend them."""
    lm = {
        "model": "openai/gpt-4.1-mini",
        "api_base": server.url,
        "api_key": server.api_key,
        "num_retries": 0,
        **options,
        **({"limits": limits} if scope == "lm" else {}),
    }
    pipe.ask(
        "configure", {"lms": {"main": lm}, **({"limits": limits} if scope == "bridge" else {})}
    )
    program = {"signature": "question -> answer", "program": "qa", "replace": True}
    pipe.ask("create", {**program, **({"limits": limits} if scope == "program" else {})})


def answers(pipe: Pipe, ids: list[int]) -> list[Any]:
    """(error, result) of each request."""
    return [tuple(pipe.response(request_id)[2:]) for request_id in ids]


@pytest.mark.parametrize("scope", SCOPES)
def test_no_more_calls_are_made_than_a_budget_allows_however_many_run_at_once(
    pipe: Pipe, scope: str
) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, scope, {"max_calls": 3})
        got = answers(pipe, [pipe.request("execute", INPUTS) for _ in range(10)])
        assert len(server.requests) == 3
    assert sum(error is None for error, _ in got) == 3
    refused = [error for error, _ in got if error is not None]
    assert {error["code"] for error in refused} == {"budget_exceeded"}
    data = refused[0]["data"]
    assert (data["scope"], data["limit"], data["allowed"], data["spent"]) == (
        scope,
        "max_calls",
        3,
        3,
    )
    assert data["usage"]["total_tokens"] == 0


def test_a_budget_of_one_call_ends_it_before_its_second_lm_call(pipe: Pipe) -> None:
    with OpenAIServer(UNREADABLE) as server:
        configured(pipe, server)
        # Without the limit there would be another LM call, in JSON.
        error = pipe.refusal("execute", {**INPUTS, "limits": {"max_calls": 1}})
        assert len(server.requests) == 1
    assert (error["code"], error["data"]["scope"]) == ("budget_exceeded", "call")
    assert error["data"]["usage"]["total_tokens"] == 120


@pytest.mark.parametrize(
    ("limits", "spent"),
    [({"max_tokens": 200}, 240), ({"max_cost_usd": 0.2}, pytest.approx(0.28))],
    ids=["tokens", "dollars"],
)
@pytest.mark.parametrize("scope", SCOPES)
def test_a_spent_budget_refuses_the_next_call(
    pipe: Pipe, scope: str, limits: dict[str, Any], spent: Any
) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, scope, limits, extra=PRICES)
        results = [pipe.ask("execute", INPUTS) for _ in range(2)]
        assert [result["cost_usd"] for result in results] == [pytest.approx(0.14)] * 2
        error = pipe.refusal("execute", INPUTS)
        assert len(server.requests) == 2
    assert (error["code"], error["data"]["scope"]) == ("budget_exceeded", scope)
    assert error["data"]["spent"] == spent


def test_what_was_spent_stays_spent_when_a_limit_is_raised(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, "bridge", {"max_calls": 1})
        pipe.ask("execute", INPUTS)
        configured(pipe, server, "bridge", {"max_calls": 2})
        pipe.ask("execute", INPUTS)
        assert pipe.refusal("execute", INPUTS)["data"]["spent"] == 2
        assert pipe.ask("configure", {"limits": {}})["limits"] == {}
        pipe.ask("execute", INPUTS)


def test_an_answer_from_the_cache_costs_no_call(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, "lm", {"max_calls": 2}, cache=True)
        cached = [pipe.ask("execute", INPUTS)["cached"] for _ in range(4)]
    assert cached == [False, True, True, True]


def test_a_limit_in_dollars_needs_a_price(pipe: Pipe) -> None:
    limits = {"max_cost_usd": 1.0}
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, model="openai/gpt-none-such")
        error = pipe.refusal("execute", {**INPUTS, "limits": limits})
        assert (error["code"], error["data"]["param"]) == (
            "invalid_params",
            "limits.max_cost_usd",
        )
        assert "input_cost_per_token" in error["message"]
        lm = {"model": "openai/gpt-none-such", "limits": limits}
        error = pipe.refusal("configure", {"lms": {"dear": lm}})
        assert error["code"] == "invalid_params"
        pipe.ask("configure", {"limits": limits})
        assert pipe.refusal("execute", INPUTS)["code"] == "invalid_params"
        assert server.requests == []


def test_a_known_price_is_looked_up_offline(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server)
        cost = pipe.ask("execute", {**INPUTS, "limits": {"max_cost_usd": 1}})["cost_usd"]
    assert 0 < cost < 0.01


def test_calls_over_the_rate_wait_and_end_with_their_deadline(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, "lm", {"requests_per_minute": 2})
        for _ in range(2):
            pipe.ask("execute", INPUTS)
        error = pipe.refusal("execute", {**INPUTS, "timeout_ms": 200})
        assert error["code"] == "timeout"
        assert len(server.requests) == 2


def test_an_answer_of_the_cache_needs_no_place_in_the_minute(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, "lm", {"requests_per_minute": 1}, cache=True)
        pipe.ask("execute", INPUTS)
        other = {**INPUTS, "inputs": {"question": "When?"}}
        waiting = pipe.request("execute", other)
        got = answers(pipe, [pipe.request("execute", INPUTS) for _ in range(5)])
        assert [(error, result["cached"]) for error, result in got] == [(None, True)] * 5
        cancel(pipe, waiting)
        assert len(server.requests) == 1


def test_calls_that_wait_for_the_rate_of_one_lm_do_not_keep_those_of_another(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, "lm", {"requests_per_minute": 1})
        spec = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        pipe.ask("configure", {"lms": {"free": spec}, "limits": {"max_concurrency": 2}})
        slow = {**INPUTS, "lm": "main"}
        pipe.ask("execute", slow)
        waiting = [pipe.request("execute", slow) for _ in range(4)]
        assert pipe.ask("execute", {**INPUTS, "lm": "free"})["lm"] == "free"
        for request_id in waiting:
            cancel(pipe, request_id)
        assert len(server.requests) == 2


@pytest.mark.parametrize("scope", SCOPES)
def test_no_more_calls_are_under_way_than_a_limit_allows(pipe: Pipe, scope: str) -> None:
    with OpenAIServer(HANG) as server:
        configured(pipe, server, scope, {"max_concurrency": 2})
        waiting = {
            word: pipe.request("execute", {**INPUTS, "inputs": {"question": f"{word}?"}})
            for word in ("one", "two", "three", "four", "five")
        }
        # Which of them come to their LM call first is not said.
        under_way = [waiting.pop(asked(request)) for request in server.expect(2)]
        # One that waits is cancelled; then one that is under way, whose place another one takes.
        cancel(pipe, waiting.popitem()[1])
        assert len(server.requests) == 2
        cancel(pipe, under_way.pop())
        under_way.append(waiting.pop(asked(server.expect(3)[2])))
        server.expect_left(1)
        assert len(server.requests) == 3
        server.release()
        results = answers(pipe, [*under_way, *waiting.values()])
        assert [error for error, _ in results] == [None] * 3
        assert len(server.requests) == 4


def asked(request: Request) -> str:
    """The question of a request, without its mark."""
    found = re.search(r"(\w+)\?", request.turns[-1][1])
    assert found is not None
    return found[1]


def cancel(pipe: Pipe, request_id: int) -> None:
    pipe.send([2, "cancel", {"id": request_id}])
    assert pipe.response(request_id)[2]["code"] == "cancelled"


def test_a_program_keeps_its_limits_in_its_state(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, "program", {"max_calls": 1})
        assert pipe.ask("describe", {"program": "qa"})["limits"] == {"max_calls": 1}
        state = pipe.ask("dump", {"program": "qa"})["state"]
        pipe.ask("load", {"state": state, "program": "again"})
        again = {**INPUTS, "program": "again"}
        pipe.ask("execute", again)
        assert pipe.refusal("execute", again)["data"]["name"] == "again"


@pytest.mark.parametrize(
    ("limits", "told"),
    [
        ({"max_call": 1}, "Did you mean 'max_calls'?"),
        ({"max_calls": -1}, "an integer of at least 0"),
        ({"max_concurrency": 0}, "an integer of at least 1"),
        ({"requests_per_minute": 0}, "an integer from 1"),
    ],
)
def test_limits_that_are_none_are_refused_by_name(pipe: Pipe, limits: Any, told: str) -> None:
    error = pipe.refusal("configure", {"limits": limits})
    assert error["code"] == "invalid_params"
    assert told in error["message"]
