"""The local OpenAI-compatible server, through the clients that DSPy uses and through bare HTTP."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dspy
import httpx
import pytest
from dspy.adapters.baml_adapter import BAMLAdapter

from integration.openai_server import (
    Answer,
    OpenAIServer,
    Request,
    ScriptError,
    ToolCall,
    answering,
    content_filter,
    context_length_exceeded,
    failure,
    well_formed,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

# DSPy's own two, and the bridge's for OpenAI's chat API, which fails as DSPy's native one does.
ENGINES = ("auto", "litellm", "bridge")

SERVER = Path(__file__).with_name("openai_server.py")

# Long enough that only a broken server or client comes to it.
PATIENCE_S = 30.0
# For the clients that are meant to give up: the server never answers them.
IMPATIENCE_S = 0.3

# What Pydantic says of LiteLLM's own code; raised there, it would pass for a broken stream.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Item '.*' on TypedDict class:UserWarning"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_.*' attribute:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")


def make_lm(server: OpenAIServer, engine: str = "auto", **options: Any) -> dspy.LM:
    settings: dict[str, Any] = {
        "api_base": server.url,
        "api_key": server.api_key,
        "engine": engine,
        "cache": False,
        "num_retries": 0,
        "timeout": PATIENCE_S,
    }
    model, told = options.pop("model", "openai/gpt-4.1-mini"), {**settings, **options}
    if engine != "bridge":
        return dspy.LM(model, **told)
    from dspex_bridge.engine.openai_engine import AsyncOpenAIEngine, OpenAIEngine, is_served

    lm = dspy.LM(model, **{**told, "engine": "auto"})
    assert is_served(lm)
    for connection in ("api_base", "api_key", "timeout"):
        del told[connection]
    engines = {"engine": OpenAIEngine(lm), "async_engine": AsyncOpenAIEngine(lm)}
    return dspy.LM(model, **{**told, **engines})


def run_with(lm: dspy.LM, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """The result of a coroutine that uses the LM, whose connections are closed afterwards."""

    async def main() -> Any:
        try:
            with dspy.context(lm=lm):
                return await work()
        finally:
            await lm.aclose()
            if not isinstance(lm.engine, str):
                await lm._async_engine_spec.aclose()

    return asyncio.run(main())


def call(lm: dspy.LM, prompt: str = "Say it.", **options: Any) -> Any:
    return run_with(lm, lambda: lm.acall(prompt, **options))


def stream(
    lm: dspy.LM, program: dspy.Module, *, field: str, **inputs: Any
) -> tuple[list[str], Any]:
    """The chunks of one output field, and the prediction."""

    async def work() -> tuple[list[str], Any]:
        listener = dspy.streaming.StreamListener(field)
        chunks, prediction = [], None
        # The bridge's engine is called on the event loop alone.
        is_async = not isinstance(lm.engine, str)
        streamed = dspy.streamify(program, stream_listeners=[listener], is_async_program=is_async)
        async for item in streamed(**inputs):
            if isinstance(item, dspy.Prediction):
                prediction = item
            else:
                chunks.append(item.chunk)
        return chunks, prediction

    result: tuple[list[str], Any] = run_with(lm, work)
    return result


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE_S) as client:
        yield client


def post(
    http: httpx.Client, server: OpenAIServer, path: str = "/chat/completions", **body: Any
) -> Any:
    given = {"model": "m", "messages": [{"role": "user", "content": "hi there"}], **body}
    headers = {"Authorization": f"Bearer {server.api_key}"}
    return http.post(server.url + path, json=given, headers=headers)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


# What DSPy programs get


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    "adapter", [dspy.ChatAdapter, dspy.JSONAdapter, dspy.XMLAdapter, BAMLAdapter]
)
def test_answering_gives_every_adapter_its_typed_outputs(
    engine: str, adapter: type[dspy.Adapter]
) -> None:
    fields = {
        "reasoning": 'Because a < b && "c".\nTwice.',
        "answer": "Grüße, <b>Paris</b> & co.",
        "score": 0.5,
        "tags": ["a & b", "[c]"],
        "kind": "city",
        "counts": {"x": 1, "two words": 2},
        "sure": True,
        "note": None,
        "unasked": "left out",
    }
    signature = dspy.Signature(
        {
            "question": (str, dspy.InputField()),
            "answer": (str, dspy.OutputField()),
            "score": (float, dspy.OutputField()),
            "tags": (list[str], dspy.OutputField()),
            "kind": (Literal["city", "river"], dspy.OutputField()),
            "counts": (dict[str, int], dspy.OutputField()),
            "sure": (bool, dspy.OutputField()),
            "note": (str | None, dspy.OutputField()),
        },
        "Answer the question.",
    )
    with OpenAIServer(answering(fields)) as server:
        program = dspy.ChainOfThought(signature)

        async def work() -> Any:
            with dspy.context(adapter=adapter()):
                return await program.acall(question="Where?")

        prediction = run_with(make_lm(server, engine), work)
    assert len(server.requests) == 1  # no second call: the first answer was well formed
    del fields["unasked"]
    assert prediction.toDict() == fields


@pytest.mark.parametrize("engine", ENGINES)
def test_the_tokens_of_a_call_are_the_ones_scripted(engine: str) -> None:
    with OpenAIServer(answering({"answer": "Paris"}, usage=(11, 7))) as server:
        program = dspy.Predict("question -> answer")

        async def work() -> Any:
            with dspy.context(track_usage=True):
                return await program.acall(question="Where?")

        prediction = run_with(make_lm(server, engine), work)
    usage = prediction.get_lm_usage()["openai/gpt-4.1-mini"]
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (11, 7)


def test_usage_counts_words_where_the_script_says_nothing(http: httpx.Client) -> None:
    with OpenAIServer(Answer("one two three")) as server:
        usage = post(http, server).json()["usage"]
    assert usage == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_streamed_field_arrives_in_pieces_that_join_to_its_value(engine: str) -> None:
    value = "The capital of France is  Paris, of course."
    with OpenAIServer(answering({"answer": value}, usage=(11, 7))) as server:
        lm = make_lm(server, engine)
        with dspy.context(track_usage=True):
            chunks, prediction = stream(
                lm, dspy.Predict("question -> answer"), field="answer", question="Where?"
            )
    assert "".join(chunks) == prediction.answer == value
    assert len(chunks) > 3
    assert server.requests[0].streamed
    assert prediction.get_lm_usage()["openai/gpt-4.1-mini"]["completion_tokens"] == 7


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
        },
    }
]


@pytest.mark.parametrize("model_type", ["chat", "responses"])
def test_tool_calls_reach_dspy_on_both_roads(model_type: str) -> None:
    with OpenAIServer(Answer(tool_calls=[ToolCall("add", {"a": 1})])) as server:
        [output] = call(make_lm(server, model_type=model_type), tools=TOOLS)
    [made] = output["tool_calls"]
    assert made["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert server.requests[0].body["tools"][0]["type"] == "function"


def test_tools_through_litellm_need_the_package_mcp() -> None:
    """A limit of LiteLLM's own, kept here so that its end is noticed."""
    assert importlib.util.find_spec("mcp") is None, "mcp is here now: test tools with both engines"
    with (
        OpenAIServer(Answer(tool_calls=[ToolCall("add", {"a": 1})])) as server,
        pytest.raises(dspy.LMTransportError, match="No module named 'mcp'"),
    ):
        call(make_lm(server, "litellm"), tools=TOOLS)
    assert server.requests == []


@pytest.mark.parametrize(
    ("engine", "requests", "texts"),
    # DSPy's native engine asks once for each; LiteLLM lets the server make them.
    [
        ("auto", [None, None], ["one", "one"]),
        ("bridge", [None, None], ["one", "one"]),
        ("litellm", [2], ["one", "two"]),
    ],
)
def test_several_completions_are_asked_for_as_the_engine_does(
    engine: str, requests: list[int | None], texts: list[str]
) -> None:
    with OpenAIServer(Answer(["one", "two"])) as server:
        assert call(make_lm(server, engine), n=2) == texts
    assert [request.body.get("n") for request in server.requests] == requests


@pytest.mark.parametrize("model", ["gpt-4.1-mini", "gpt-5-mini", "gpt-5-pro", "o3-pro", "own-name"])
@pytest.mark.parametrize(
    ("model_type", "path"), [("chat", "/v1/chat/completions"), ("responses", "/v1/responses")]
)
def test_the_native_engine_takes_the_road_of_the_model_type_whatever_the_name(
    model: str, model_type: str, path: str
) -> None:
    with OpenAIServer(Answer("hello")) as server:
        [output] = call(make_lm(server, model=f"openai/{model}", model_type=model_type))
    assert output in ("hello", {"text": "hello"})
    assert [(request.path, request.model) for request in server.requests] == [(path, model)]


def test_a_response_is_streamed_on_the_responses_road() -> None:
    with OpenAIServer(answering({"answer": "It is Paris, of course."}, usage=(11, 7))) as server:
        lm = make_lm(server, model_type="responses")
        with dspy.context(track_usage=True):
            chunks, prediction = stream(
                lm, dspy.Predict("question -> answer"), field="answer", question="Where?"
            )
    assert "".join(chunks) == prediction.answer == "It is Paris, of course."
    assert server.requests[0].path == "/v1/responses"
    assert prediction.get_lm_usage()["openai/gpt-4.1-mini"]["completion_tokens"] == 7


def test_embeddings_are_unit_vectors_in_which_shared_words_mean_nearness() -> None:
    texts = ["the cat sat", "the cat slept", "markets fell sharply"]
    with OpenAIServer(Answer()) as server:
        embedder = dspy.Embedder(
            "openai/text-embedding-3-small",
            api_base=server.url,
            api_key=server.api_key,
            caching=False,
        )
        first, again = embedder(texts), asyncio.run(embedder.acall(texts))
    assert (first == again).all()
    near = first @ first.T
    assert near.diagonal() == pytest.approx([1.0] * 3)
    assert near[0, 1] > near[0, 2]
    assert [request.path for request in server.requests] == ["/v1/embeddings"] * 2


# How DSPy sees each failure: exception, HTTP status, the provider's code


Seen = tuple[str, int | None, str | None]

FAILURES: dict[str, tuple[Answer, Seen, Seen]] = {
    "bad request": (
        failure(400),
        ("LMInvalidRequestError", 400, "invalid_request_error"),
        ("LMInvalidRequestError", 400, "invalid_request_error"),
    ),
    "key refused": (
        failure(401),
        ("LMAuthError", 401, "invalid_api_key"),
        ("LMAuthError", 401, None),
    ),
    "forbidden": (
        failure(403),
        ("LMAuthError", 403, "invalid_request_error"),
        ("LMInvalidRequestError", 403, "invalid_request_error"),
    ),
    "no such model": (
        failure(404),
        ("LMUnsupportedModelError", 404, "model_not_found"),
        ("LMUnsupportedModelError", 404, None),
    ),
    "rate limit": (
        failure(429, retry_after=2),
        ("LMRateLimitError", 429, "rate_limit_exceeded"),
        ("LMRateLimitError", 429, "rate_limit_exceeded"),
    ),
    "no quota": (
        failure(429, code="insufficient_quota"),
        ("LMBillingError", 429, "insufficient_quota"),
        ("LMBillingError", 429, "insufficient_quota"),
    ),
    "server error": (
        failure(500),
        ("LMServerError", 500, "server_error"),
        ("LMServerError", 500, "server_error"),
    ),
    "unavailable": (
        failure(503),
        ("LMServerError", 503, "server_error"),
        ("LMServerError", 503, None),
    ),
    "prompt too long": (
        context_length_exceeded(),
        ("ContextWindowExceededError", 400, "context_length_exceeded"),
        ("ContextWindowExceededError", 400, None),
    ),
    "content filter": (
        content_filter(),
        ("LMInvalidRequestError", 400, "content_filter"),
        ("LMInvalidRequestError", 400, "content_filter"),
    ),
    "hang": (
        Answer("late", fault="hang"),
        ("LMTransportError", None, None),
        ("LMTimeoutError", 408, None),
    ),
    "disconnect": (
        Answer("lost", fault="disconnect"),
        ("LMTransportError", None, None),
        ("LMServerError", 500, None),
    ),
    "half a body": (
        Answer("one two three four", fault="half_body"),
        ("LMTransportError", None, None),
        ("LMServerError", 500, None),
    ),
    "half an error": (
        Answer(status=500, error={"message": "no"}, fault="half_body"),
        ("LMTransportError", None, None),
        ("LMServerError", 500, None),
    ),
}

WHOLE_FAILURES: dict[str, tuple[Answer, Seen, Seen]] = {
    **FAILURES,
    "stall": (
        Answer("one two three four", fault="stall"),
        ("LMTransportError", None, None),
        ("LMTimeoutError", 408, None),
    ),
    "malformed": (
        Answer("{}", fault="malformed_json"),
        ("LMProviderError", 200, None),
        ("LMServerError", 500, None),
    ),
}

STREAMED_FAILURES: dict[str, tuple[Answer, Seen, Seen]] = {
    **FAILURES,
    "stall": (
        Answer("one two three four", fault="stall"),
        ("LMTransportError", None, None),
        ("LMServerError", 500, None),
    ),
    "malformed": (
        Answer("{}", fault="malformed_json"),
        ("LMUnexpectedError", None, None),
        ("LMServerError", 500, None),
    ),
}


def seen(error: BaseException) -> Seen:
    while isinstance(error, BaseExceptionGroup):  # streamify runs the program in a task group
        [error] = error.exceptions
    assert isinstance(error, dspy.LMError), repr(error)
    return type(error).__name__, error.status, error.provider_code


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", WHOLE_FAILURES)
def test_dspy_sees_the_failure_of_a_whole_answer_as(name: str, engine: str) -> None:
    answer, *expected = WHOLE_FAILURES[name]
    held = answer.fault in ("hang", "stall")
    with OpenAIServer(answer) as server:
        lm = make_lm(server, engine, timeout=IMPATIENCE_S if held else PATIENCE_S)
        with pytest.raises(dspy.LMError) as raised:
            call(lm)
        if held:
            server.expect_left(1)
    assert seen(raised.value) == expected[engine == "litellm"]
    assert len(server.requests) == 1
    assert server.api_key not in str(raised.value)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", STREAMED_FAILURES)
def test_dspy_sees_the_failure_of_a_streamed_answer_as(name: str, engine: str) -> None:
    answer, *expected = STREAMED_FAILURES[name]
    held = answer.fault in ("hang", "stall")
    with OpenAIServer(answer) as server:
        lm = make_lm(server, engine, timeout=IMPATIENCE_S if held else PATIENCE_S)
        with pytest.raises((dspy.LMError, BaseExceptionGroup)) as raised:
            stream(lm, dspy.Predict("question -> answer"), field="answer", question="Where?")
        if held:
            server.expect_left(1)
    assert seen(raised.value) == expected[engine == "litellm"]
    assert len(server.requests) == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_a_completion_cut_off_by_a_filter_is_no_error_to_dspy(engine: str) -> None:
    with OpenAIServer(Answer("", finish_reason="content_filter")) as server:
        [text] = call(make_lm(server, engine))
    assert not text


def causes(error: BaseException) -> list[BaseException]:
    chain = [error]
    while (cause := chain[-1].__cause__) is not None:
        chain.append(cause)
    return chain


@pytest.mark.parametrize("engine", ENGINES)
def test_a_timeout_is_found_in_the_causes_whatever_the_engine_calls_it(engine: str) -> None:
    with OpenAIServer(Answer(fault="hang")) as server, pytest.raises(dspy.LMError) as raised:
        call(make_lm(server, engine, timeout=IMPATIENCE_S))
    assert any(isinstance(cause, TimeoutError) for cause in causes(raised.value))


def test_retry_after_is_on_the_error_with_the_native_engine_and_below_it_with_litellm() -> None:
    with OpenAIServer(failure(429, retry_after=2)) as server:
        with pytest.raises(dspy.LMRateLimitError) as native:
            call(make_lm(server, "auto"))
        with pytest.raises(dspy.LMRateLimitError) as litellm:
            call(make_lm(server, "litellm"))
    assert native.value.retry_after == 2.0
    assert litellm.value.retry_after is None
    headers = [getattr(c, "litellm_response_headers", None) for c in causes(litellm.value)]
    assert [h["retry-after"] for h in headers if h is not None] == ["2"]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_retried_call_gets_the_next_answer_of_the_list(engine: str) -> None:
    # With LiteLLM, DSPy does not see the Retry-After and waits a second of its own.
    answers = [failure(429, retry_after=0), Answer("second")]
    with OpenAIServer(answers) as server:
        assert call(make_lm(server, engine, num_retries=1)) == ["second"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("engine", ENGINES)
def test_a_refused_key_reaches_no_script(engine: str) -> None:
    with OpenAIServer(lambda _: pytest.fail("asked")) as server:
        lm = make_lm(server, engine, api_key="sk-wrong")
        with pytest.raises(dspy.LMAuthError):
            call(lm)
    assert len(server.requests) == 1


# Waiting and many at once


def test_a_hanging_answer_comes_when_it_is_released() -> None:
    with OpenAIServer(Answer("at last", fault="hang")) as server:
        lm = make_lm(server)

        async def work() -> Any:
            answer = asyncio.create_task(lm.acall("Say it."))
            await asyncio.to_thread(server.expect, 1)
            assert not answer.done()
            server.release()
            return await answer

        assert run_with(lm, work) == ["at last"]
    assert server.left == []


def test_a_stalled_stream_gives_its_first_half_and_the_rest_when_it_is_released() -> None:
    with OpenAIServer(Answer("one two three four five six", fault="stall")) as server:
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
        headers = {"Authorization": f"Bearer {server.api_key}"}
        with httpx.stream(
            "POST", f"{server.url}/chat/completions", json=body, headers=headers, timeout=PATIENCE_S
        ) as response:
            lines = (line for line in response.iter_lines() if line)
            first = [next(lines) for _ in range(3)]
            server.release()
            rest = list(lines)
    assert json.loads(first[2].removeprefix("data: "))["choices"][0]["delta"] == {"content": "two "}
    assert rest[-1] == "data: [DONE]"


def test_a_client_that_gives_up_is_seen_to_leave() -> None:
    with OpenAIServer(Answer(fault="hang")) as server:
        lm = make_lm(server)

        async def work() -> None:
            answer = asyncio.create_task(lm.acall("Say it."))
            await asyncio.to_thread(server.expect, 1)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
            await asyncio.to_thread(server.expect_left, 1)

        run_with(lm, work)
    assert server.left == server.requests


@pytest.mark.parametrize(
    ("engine", "in_flight"),
    # DSPy's native engine holds 100 connections to one address; LiteLLM takes what it needs.
    [("auto", 100), ("litellm", 200), ("bridge", 200)],
)
def test_two_hundred_calls_each_get_their_own_answer(engine: str, in_flight: int) -> None:
    def echo(request: Request) -> Answer:
        return Answer(f"you said {request.turns[-1][1]}", fault="hang")

    with OpenAIServer(echo) as server:
        lm = make_lm(server, engine)

        async def work() -> list[Any]:
            calls = [asyncio.create_task(lm.acall(f"number {i}")) for i in range(200)]
            await asyncio.to_thread(server.expect, in_flight)
            server.release()
            return list(await asyncio.gather(*calls))

        texts = run_with(lm, work)
    assert texts == [[f"you said number {i}"] for i in range(200)]
    assert sorted(request.number for request in server.requests) == list(range(200))


@pytest.fixture
def _many_descriptors() -> Iterator[None]:
    """A thousand connections, both their ends in this process, need more than the usual 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_descriptors")
def test_a_thousand_requests_are_in_flight_at_once() -> None:
    count = 1000

    async def ask(server: OpenAIServer, request: bytes) -> bytes:
        port = httpx.URL(server.url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        reply = await reader.read()
        writer.close()
        return reply

    async def main(server: OpenAIServer) -> list[bytes]:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]})
        request = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {server.api_key}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        ).encode()
        asking = asyncio.gather(*(ask(server, request) for _ in range(count)))
        await asyncio.to_thread(server.expect, count)
        server.release()
        return await asyncio.wait_for(asking, PATIENCE_S)

    with OpenAIServer(Answer("hello", fault="hang")) as server:
        replies = asyncio.run(main(server))
    assert sum(b'"content":"hello"' in reply for reply in replies) == count


# Scripts


def test_a_script_may_choose_by_model_and_by_number(http: httpx.Client) -> None:
    def script(request: Request) -> Answer:
        if request.model == "broken":
            return failure(500)
        return Answer(f"answer {request.number}")

    with OpenAIServer(script) as server:
        assert post(http, server, model="broken").status_code == 500
        content = post(http, server, model="fine").json()["choices"][0]["message"]["content"]
    assert content == "answer 1"


def test_a_list_that_is_used_up_is_an_error_of_the_test(http: httpx.Client) -> None:
    codes: list[str | None] = []
    with (
        pytest.raises(ScriptError, match="holds 1 answers and all are used up; request 1"),
        OpenAIServer([Answer("only")]) as server,
    ):
        codes += [post(http, server).json().get("error", {}).get("code") for _ in range(2)]
    assert codes == [None, "script_error"]


def test_a_field_that_answering_was_not_given_is_an_error_of_the_test(http: httpx.Client) -> None:
    user = (
        "Respond with a JSON object in the following order of fields: `reasoning`, then `answer`."
    )
    expected = "asks for reasoning, answer; the script gives answer, so reasoning is missing"
    with (
        pytest.raises(ScriptError, match=expected),
        OpenAIServer(answering({"answer": "Paris"})) as server,
    ):
        post(http, server, messages=[{"role": "user", "content": user}])


def test_a_prompt_of_no_known_adapter_is_an_error_of_the_test(http: httpx.Client) -> None:
    with (
        pytest.raises(ScriptError, match="none of them: …'hi there'"),
        OpenAIServer(answering({"answer": "Paris"})) as server,
    ):
        post(http, server)


def test_a_script_that_raises_is_told_to_the_test(http: httpx.Client) -> None:
    def script(_: Request) -> Answer:
        raise KeyError("oops")

    with pytest.raises(KeyError, match="oops"), OpenAIServer(script) as server:
        post(http, server)


def test_an_error_of_the_test_itself_is_not_hidden_by_one_of_its_script(
    http: httpx.Client,
) -> None:
    with pytest.raises(AssertionError, match="script_error"), OpenAIServer([]) as server:
        raise AssertionError(post(http, server).json()["error"]["code"])


def test_a_script_can_answer_each_prompt_with_its_own_fields() -> None:
    def script(request: Request) -> Answer:
        return well_formed(request, {"answer": f"number {request.number}"})

    with OpenAIServer(script) as server:
        program = dspy.Predict("question -> answer")

        async def work() -> list[str]:
            return [(await program.acall(question="?")).answer for _ in range(2)]

        assert run_with(make_lm(server), work) == ["number 0", "number 1"]


def test_a_fault_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="fault is one of hang, disconnect, half_body"):
        Answer(fault="hung")  # type: ignore[arg-type]


# The bare wire


def test_the_pieces_of_a_stream_join_to_the_whole_answer(http: httpx.Client) -> None:
    texts = ["  Grüße \n an\talle 🎉", "two"]
    answer = Answer(texts, tool_calls=[ToolCall("add", {"a": 1, "b": "x y"})])
    with_usage = {"include_usage": True}
    with OpenAIServer(answer) as server:
        whole = post(http, server, n=2).json()
        chunks = events(post(http, server, stream=True, n=2, stream_options=with_usage))
    for index, choice in enumerate(whole["choices"]):
        deltas = [c["choices"][0] for c in chunks if c["choices"]]
        mine = [d for d in deltas if d["index"] == index]
        assert "".join(d["delta"].get("content", "") for d in mine) == texts[index]
        assert choice["message"]["content"] == texts[index]
        pieces = [d["delta"]["tool_calls"][0] for d in mine if "tool_calls" in d["delta"]]
        arguments = "".join(piece["function"]["arguments"] for piece in pieces)
        assert json.loads(arguments) == {"a": 1, "b": "x y"}
        assert pieces[0]["function"]["name"] == "add"
        assert choice["message"]["tool_calls"][0]["function"]["arguments"] == arguments
        assert mine[-1]["finish_reason"] == choice["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"] == whole["usage"]
    assert chunks[-1]["choices"] == []


def test_a_stream_has_usage_only_where_it_was_asked_for(http: httpx.Client) -> None:
    with OpenAIServer(Answer("hello")) as server:
        response = post(http, server, stream=True)
    assert response.headers["content-type"] == "text/event-stream"
    assert response.text.endswith("data: [DONE]\n\n")
    assert not any("usage" in event for event in events(response))


def test_a_response_that_ran_out_of_tokens_is_incomplete(http: httpx.Client) -> None:
    with OpenAIServer(Answer("cut", finish_reason="length")) as server:
        body = post(http, server, "/responses", input="hi").json()
        streamed = events(post(http, server, "/responses", input="hi", stream=True))
    assert (body["status"], body["incomplete_details"]) == (
        "incomplete",
        {"reason": "max_output_tokens"},
    )
    assert streamed[-1]["type"] == "response.incomplete"
    assert [event["sequence_number"] for event in streamed] == list(range(len(streamed)))


def test_embeddings_come_as_floats_or_as_base64_and_in_the_length_asked_for(
    http: httpx.Client,
) -> None:
    with OpenAIServer(Answer()) as server:
        plain = post(http, server, "/embeddings", input="a b", dimensions=4).json()
        packed = post(
            http, server, "/embeddings", input=["a b"], dimensions=4, encoding_format="base64"
        ).json()
    assert len(plain["data"][0]["embedding"]) == 4
    assert len(packed["data"][0]["embedding"]) == 24  # 4 floats of 4 bytes
    assert plain["usage"] == {"prompt_tokens": 2, "total_tokens": 2}


def test_the_models_are_listed_for_who_has_the_key(http: httpx.Client) -> None:
    with OpenAIServer(Answer(), models=["a", "b"]) as server:
        refused = http.get(f"{server.url}/models")
        headers = {"Authorization": f"Bearer {server.api_key}"}
        listed = http.get(f"{server.url}/models", headers=headers)
    assert refused.status_code == 401
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert [model["id"] for model in listed.json()["data"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/chat/completions", b"{", "Expecting property name"),
        ("/chat/completions", b"[]", "the body must be a JSON object"),
        ("/chat/completions", b"{}", "model must be a string"),
        ("/chat/completions", b'{"model": "m"}', "messages must be a list of at least one"),
        ("/chat/completions", b'{"model": "m", "messages": [1]}', "an object with a role"),
        (
            "/chat/completions",
            b'{"model": "m", "messages": [{"role": "user"}], "n": 0}',
            "n must be an integer of at least 1",
        ),
        ("/responses", b'{"model": "m"}', "input must be a string or a list"),
        ("/embeddings", b'{"model": "m"}', "input must be a string or a list"),
    ],
)
def test_a_body_that_openai_would_refuse_is_refused(
    http: httpx.Client, path: str, body: bytes, message: str
) -> None:
    with OpenAIServer(Answer("never")) as server:
        headers = {"Authorization": f"Bearer {server.api_key}"}
        response = http.post(server.url + path, content=body, headers=headers)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]


def test_an_unknown_address_is_named(http: httpx.Client) -> None:
    with OpenAIServer(Answer()) as server:
        response = http.get(server.url.removesuffix("/v1") + "/chat/completions")
    assert response.status_code == 404
    assert response.json()["error"]["message"] == "Unknown request URL: GET /chat/completions."


def test_no_key_is_recorded(http: httpx.Client) -> None:
    with OpenAIServer(Answer()) as server:
        headers = {"Authorization": f"Bearer {server.api_key}", "api-key": server.api_key}
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        http.post(f"{server.url}/chat/completions", json=body, headers=headers)
    [request] = server.requests
    assert request.headers["authorization"] == request.headers["api-key"] == "***"
    assert server.api_key not in repr(server.requests)


def test_it_listens_on_the_loopback_address_alone(http: httpx.Client) -> None:
    with OpenAIServer(Answer()) as server:
        assert server.url.startswith("http://127.0.0.1:")
        # All of 127/8 is this machine; a server on every address would answer here.
        with pytest.raises(httpx.ConnectError):
            http.get(server.url.replace("127.0.0.1", "127.0.0.2") + "/models")


# Its life


def test_it_is_an_async_context_manager_too() -> None:
    async def main() -> Any:
        async with OpenAIServer(Answer("hello")) as server:
            lm = make_lm(server)
            try:
                return await lm.acall("Say it.")
            finally:
                await lm.aclose()

    assert asyncio.run(main()) == ["hello"]


def test_leaving_cuts_off_what_still_hangs_and_counts_nobody_as_gone() -> None:
    async def main() -> OpenAIServer:
        async with OpenAIServer(Answer(fault="hang")) as server:
            lm = make_lm(server)
            answer = asyncio.create_task(lm.acall("Say it."))
            await asyncio.to_thread(server.expect, 1)
        with pytest.raises(dspy.LMTransportError, match="server closed connection"):
            await answer
        await lm.aclose()
        return server

    assert asyncio.run(main()).left == []


def test_waiting_for_requests_that_do_not_come_says_how_many_did() -> None:
    expected = r"expected 1 requests within 0.01 s and saw 0"
    with OpenAIServer(Answer()) as server, pytest.raises(TimeoutError, match=expected):
        server.expect(1, timeout_s=0.01)


def test_a_port_in_use_is_an_error_where_the_server_is_entered() -> None:
    with OpenAIServer(Answer()) as server:
        port = httpx.URL(server.url).port
        assert port is not None
        with pytest.raises(OSError, match="address already in use"):
            OpenAIServer(Answer(), port=port).__enter__()


# As a process


def process(*options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(SERVER), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_process_prints_its_url_first_and_ends_with_its_input(http: httpx.Client) -> None:
    with process("--port", "0", "--answer", "answer=Paris", "--answer", "score=0.5") as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        lm = dspy.LM("openai/gpt-4.1-mini", api_base=url, api_key="sk-local", cache=False)
        program = dspy.Predict("question -> answer, score: float")
        prediction = run_with(lm, lambda: program.acall(question="Where?"))
        rest, errors = server.communicate(timeout=PATIENCE_S)  # closes its input
    assert prediction.toDict() == {"answer": "Paris", "score": 0.5}
    assert (server.returncode, rest, errors) == (0, "", "")


def test_a_process_can_be_told_to_fail(http: httpx.Client) -> None:
    with process("--status", "429", "--retry-after", "1.5", "--api-key", "k") as server:
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        headers = {"Authorization": "Bearer k"}
        response = http.post(f"{url}/chat/completions", json=body, headers=headers)
        server.communicate(timeout=PATIENCE_S)
    assert (response.status_code, response.headers["retry-after"]) == (429, "1.5")


def test_a_process_whose_port_is_taken_says_so_in_one_line() -> None:
    with OpenAIServer(Answer()) as server:
        port = str(httpx.URL(server.url).port)
        with process("--port", port) as second:
            out, errors = second.communicate(timeout=PATIENCE_S)
    assert (second.returncode, out) == (1, "")
    assert errors.startswith(f"openai_server.py: cannot listen on 127.0.0.1:{port}: ")
    assert errors.count("\n") == 1
