"""Every failure of an LM over real HTTP is an `lm_error` of its kind; and the next call works."""

from __future__ import annotations

from importlib.util import find_spec
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

ANSWER = answering({"answer": "Paris"})
INPUTS = {"program": "qa", "inputs": {"question": "Where?"}}


def configured(pipe: Pipe, server: OpenAIServer, **options: Any) -> None:
    lm = {
        "model": "openai/gpt-4.1-mini",
        "api_base": server.url,
        "api_key": server.api_key,
        "num_retries": 0,
        "timeout_ms": 10_000,
    }
    pipe.ask("configure", {"lms": {"main": {**lm, **options}}})
    pipe.ask("create", {"signature": "question -> answer", "program": "qa", "replace": True})


# The bridge's own engine, and DSPy's in its place.
ENGINES = pytest.mark.parametrize(
    "extra", [{}, {"engine": "dspy"}], ids=["bridge's engine", "DSPy's engine"]
)


def failing_once(answer: Answer) -> Any:
    return lambda request: answer if request.number == 0 else ANSWER(request)


@pytest.fixture(scope="module")
def pipe() -> Any:
    with Pipe() as pipe:
        yield pipe


@ENGINES
@pytest.mark.parametrize(
    ("answer", "kind", "status", "retryable"),
    [
        (failure(400), "bad_request", 400, False),
        (failure(401), "auth", 401, False),
        (failure(403), "auth", 403, False),
        (failure(404), "bad_request", 404, False),
        (failure(429), "rate_limit", 429, True),
        (failure(500), "server", 500, True),
        (failure(503), "server", 503, True),
        (context_length_exceeded(), "context_window", 400, False),
        (content_filter(), "content_filter", 400, False),
        (Answer("x", fault="disconnect"), "connection", None, True),
        (Answer("x" * 1000, fault="half_body"), "connection", None, True),
        (Answer("x", fault="malformed_json"), "server", 200, True),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_failure_has_its_kind_and_the_next_call_works(
    pipe: Pipe, answer: Answer, kind: str, *, status: int | None, retryable: bool, extra: Any
) -> None:
    with OpenAIServer(failing_once(answer)) as server:
        configured(pipe, server, extra=extra)
        error = pipe.refusal("execute", INPUTS)
        assert error["code"] == "lm_error"
        assert (error["data"]["kind"], error["retryable"]) == (kind, retryable), error
        assert error["data"].get("status") == status
        assert server.api_key not in str(error)
        assert "To fix" not in error["message"], "DSPy's advice, for who calls DSPy"
        assert ("api_key_env in configure" in error["message"]) == (kind == "auth")
        assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "Paris"}


@pytest.mark.parametrize(
    ("answer", "kind", "told", "retryable"),
    [
        (failure(400), "bad_request", {"status": 400}, False),
        (failure(401), "auth", {"status": 401}, False),
        (failure(403), "auth", {"status": 403}, False),
        (failure(404), "bad_request", {"status": 404}, False),
        (
            failure(429, retry_after=7),
            "rate_limit",
            {"status": 429, "retry_after_ms": 7000},
            True,
        ),
        (failure(503), "server", {"status": 503}, True),
        (context_length_exceeded(), "context_window", {"status": 400}, False),
        (content_filter(), "content_filter", {"status": 400}, False),
        (Answer("x", fault="disconnect"), "connection", {}, True),
        (Answer("x" * 1000, fault="half_body"), "connection", {}, True),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_failure_has_the_same_kind_by_litellm_s_road(
    pipe: Pipe, answer: Answer, kind: str, told: dict[str, int], retryable: bool
) -> None:
    with OpenAIServer(failing_once(answer)) as server:
        # DSPy's own engine has no such parameter, and leaves the call to LiteLLM.
        configured(pipe, server, extra={"organization": "org-any"})
        error = pipe.refusal("execute", INPUTS)
        assert (error["data"]["kind"], error["retryable"]) == (kind, retryable), error
        data = error["data"]
        assert {key: data[key] for key in ("status", "retry_after_ms") if key in data} == told
        assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "Paris"}


@pytest.mark.parametrize(
    "extra",
    [{}, {"engine": "dspy"}, {"organization": "org-any"}],
    ids=["bridge's engine", "DSPy's engine", "litellm"],
)
def test_an_answer_that_a_content_filter_cut_off_is_none(pipe: Pipe, extra: Any) -> None:
    cut = Answer("[[ ## answer ## ]]\nI wo", finish_reason="content_filter", usage=(10, 2))
    with OpenAIServer(cut) as server:
        configured(pipe, server, extra=extra)
        error = pipe.refusal("execute", INPUTS)
        assert len(server.requests) == 1
    assert (error["code"], error["data"]["kind"]) == ("lm_error", "content_filter")
    assert error["data"]["usage"]["total_tokens"] == 12


def test_a_package_that_litellm_lacks_for_tools_is_named_with_what_installs_it(
    pipe: Pipe,
) -> None:
    if find_spec("mcp") is not None:
        pytest.skip("mcp is installed, so nothing is lacking")
    program = {"signature": "question -> answer", "module": "react_v2", "tools": []}
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, extra={"organization": "org-any"})
        # The JSON adapter hands tools to the provider, which LiteLLM needs mcp for.
        params = {"program": program, "adapter": "json", "inputs": {"question": "?"}}
        error = pipe.refusal("execute", params)
    assert error["code"] == "unavailable"
    assert "pip install 'litellm[mcp]'" in error["message"]


@ENGINES
def test_a_hanging_lm_ends_with_its_own_timeout(pipe: Pipe, extra: Any) -> None:
    with OpenAIServer(failing_once(Answer(fault="hang"))) as server:
        configured(pipe, server, extra=extra, timeout_ms=100)
        error = pipe.refusal("execute", INPUTS)
        assert (error["code"], error["data"]["kind"]) == ("lm_error", "timeout")
        assert error["retryable"] is True
        configured(pipe, server)
        assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "Paris"}


@ENGINES
def test_a_rate_limit_says_when_to_come_back(pipe: Pipe, extra: Any) -> None:
    with OpenAIServer(failing_once(failure(429, retry_after=7))) as server:
        configured(pipe, server, extra=extra)
        assert pipe.refusal("execute", INPUTS)["data"]["retry_after_ms"] == 7000


@ENGINES
def test_retries_hide_a_failure_that_passes(pipe: Pipe, extra: Any) -> None:
    with OpenAIServer(failing_once(failure(429, retry_after=0.01))) as server:
        configured(pipe, server, extra=extra, num_retries=2)
        assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "Paris"}
        assert len(server.requests) == 2


@ENGINES
def test_a_wait_that_nobody_would_wait_for_is_an_error_at_once(pipe: Pipe, extra: Any) -> None:
    with OpenAIServer(failing_once(failure(429, retry_after=3600))) as server:
        configured(pipe, server, extra=extra, num_retries=2)
        error = pipe.refusal("execute", INPUTS)
        assert error["data"]["retry_after_ms"] == 3_600_000
        assert len(server.requests) == 1


@ENGINES
def test_an_unreachable_lm_is_a_connection_error(pipe: Pipe, extra: Any) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server, extra=extra)
    error = pipe.refusal("execute", INPUTS)
    assert (error["code"], error["data"]["kind"]) == ("lm_error", "connection")


@ENGINES
def test_a_key_that_is_missing_is_an_auth_error_that_says_so(extra: Any) -> None:
    lm = {"model": "openai/gpt-4.1-mini", "num_retries": 0, "extra": extra}
    with Pipe(env={"OPENAI_API_KEY": ""}) as keyless:
        keyless.ask("configure", {"lms": {"main": lm}})
        params = {"program": {"signature": "question -> answer"}, "inputs": {"question": "?"}}
        error = keyless.refusal("execute", params)
    assert (error["code"], error["data"]["kind"]) == ("lm_error", "auth")
    assert "OPENAI_API_KEY" in error["message"]
    assert error["message"].count("in configure") == 1


def test_a_model_of_no_provider_is_told_with_how_models_are_named(pipe: Pipe) -> None:
    pipe.ask("configure", {"lms": {"main": {"model": "opnai/gpt-5", "num_retries": 0}}})
    params = {"program": {"signature": "question -> answer"}, "inputs": {"question": "?"}}
    error = pipe.refusal("execute", params)
    assert error["data"]["kind"] == "bad_request"
    assert "no provider is known for the model 'opnai/gpt-5'" in error["message"]
    assert "PROVIDER/MODEL" in error["message"]
    assert "Did you mean 'openai'?" in error["message"]


def test_an_answer_in_no_readable_form_is_output_validation_with_what_it_cost(pipe: Pipe) -> None:
    with OpenAIServer(Answer("I would rather not.", usage=(100, 20))) as server:
        configured(pipe, server)
        error = pipe.refusal("execute", INPUTS)
    assert error["code"] == "output_validation"
    assert error["data"]["errors"][0]["path"] == ["answer"]
    assert "I would rather not." in error["data"]["errors"][0]["got"]
    # The Chat adapter asks once more, in JSON, before it gives up: both calls are counted.
    assert len(server.requests) == 2
    assert error["data"]["usage"]["total_tokens"] == 240


def test_a_value_that_breaks_a_constraint_is_output_validation(pipe: Pipe) -> None:
    with OpenAIServer(answering({"score": 7})) as server:
        configured(pipe, server)
        signature = {
            "inputs": [{"name": "question", "type": "str"}],
            "outputs": [{"name": "score", "type": "float", "constraints": {"max": 1}}],
        }
        error = pipe.refusal(
            "execute", {"program": {"signature": signature}, "inputs": {"question": "?"}}
        )
    assert error["code"] == "output_validation"
    (wrong,) = error["data"]["errors"]
    assert (wrong["path"], wrong["type"], wrong["got"]) == (["score"], "max", "7.0")


def test_an_engine_that_there_is_not_is_refused(pipe: Pipe) -> None:
    lm = {"model": "openai/gpt-4.1-mini", "extra": {"engine": "litellm"}}
    error = pipe.refusal("configure", {"lms": {"main": lm}})
    assert error["code"] == "invalid_params"
    assert error["message"].startswith("lms.main.extra.engine is 'litellm': it can be 'dspy'")


def test_what_the_bridge_s_engine_cannot_ask_is_asked_as_dspy_does(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        # DSPy's requests have no such thing; LiteLLM's have.
        configured(pipe, server, extra={"modalities": ["text"]})
        assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "Paris"}
        (request,) = server.requests
    assert request.body["modalities"] == ["text"]


@pytest.mark.parametrize("extra", [{}, {"engine": "dspy"}, {"modalities": ["text"]}])
def test_a_call_costs_the_same_whichever_engine_makes_it(pipe: Pipe, extra: Any) -> None:
    answer = answering({"answer": "Paris"}, usage=(1_000_000, 1_000_000))
    with OpenAIServer(answer) as server:
        configured(pipe, server, extra=extra)
        result = pipe.ask("execute", INPUTS)
    assert result["usage"]["total_tokens"] == 2_000_000
    assert result["cost_usd"] == pytest.approx(2.0)  # gpt-4.1-mini: 0.40 and 1.60 dollars


def test_no_key_is_in_any_answer_or_on_stderr() -> None:
    rejection = failure(401, message="Incorrect API key provided: swordfish-and-salt")
    with (
        OpenAIServer(rejection, api_key="swordfish-and-salt") as server,
        Pipe("--log-level", "debug") as pipe,
    ):
        lm = {"model": "openai/m", "api_base": server.url, "api_key": "swordfish-and-salt"}
        answer = pipe.ask("configure", {"lms": {"main": lm}})
        assert answer["lms"]["main"]["api_key"] == "***"
        params = {"program": {"signature": "question -> answer"}, "inputs": {"question": "?"}}
        error = pipe.refusal("execute", params)
        assert error["data"]["kind"] == "auth"
        assert "Incorrect API key provided: ***" in error["message"]
        assert "swordfish-and-salt" not in str(error)
        pipe.ask("shutdown")
        pipe.wait()
        assert "swordfish-and-salt" not in pipe.stderr_after_exit()


def test_secrets_of_the_configuration_are_masked_wherever_they_stand() -> None:
    lm = {
        "model": "openai/m",
        "api_base": "http://user:hunter22@127.0.0.1:9/v1?key=querysecret",
        "api_key": "swordfish-and-salt",
        "extra": {"aws_secret_access_key": "shh-very-secret", "top_k": 5},
        "num_retries": 0,
    }
    with Pipe() as pipe:
        answer = pipe.ask("configure", {"lms": {"masked": lm}})
        error = pipe.refusal("execute", {"program": {"signature": "q -> a"}, "inputs": {"q": "?"}})
    shown = answer["lms"]["masked"]
    assert shown["extra"] == {"aws_secret_access_key": "***", "top_k": 5}
    assert shown["api_base"] == "http://***@127.0.0.1:9/v1?***"
    assert shown["api_key"] == "***"
    assert "hunter22" not in str(error)
    assert "querysecret" not in str(error)


@pytest.mark.parametrize("params", [{}, {"stream": {}}])
def test_text_that_cannot_be_sent_is_an_error_and_the_next_call_works(
    pipe: Pipe, params: dict[str, Any]
) -> None:
    lone_surrogate = Answer('{"answer": "\\ud800"}')
    with OpenAIServer(failing_once(lone_surrogate)) as server:
        configured(pipe, server)
        error = pipe.refusal("execute", {**INPUTS, "adapter": "json", **params})
        assert error["code"] == "output_validation"
        assert error["data"]["errors"][0]["path"] == ["answer"]
        assert error["data"]["usage"]["total_tokens"] > 0
        assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "Paris"}


def test_the_cache_answers_only_where_an_lm_asked_for_it(pipe: Pipe) -> None:
    with OpenAIServer(ANSWER) as server:
        configured(pipe, server)
        results = [pipe.ask("execute", INPUTS) for _ in range(2)]
        assert [result["cached"] for result in results] == [False, False]
        configured(pipe, server, cache=True)
        results = [pipe.ask("execute", INPUTS) for _ in range(2)]
        assert [result["cached"] for result in results] == [False, True]
        assert results[1]["usage"]["total_tokens"] == 0
        assert len(server.requests) == 3


def test_two_lms_of_one_model_do_not_share_a_cache(pipe: Pipe) -> None:
    other_answer = answering({"answer": "London"})
    with OpenAIServer(ANSWER) as one, OpenAIServer(other_answer) as other:
        for server, city in ((one, "Paris"), (other, "London"), (one, "Paris")):
            configured(pipe, server, cache=True)
            assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": city}
