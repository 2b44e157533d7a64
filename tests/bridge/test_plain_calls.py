"""A plain call is what DSPy makes of it: the same request, answer, errors and account."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import dspy
import pytest
from dspex_bridge.engine import plain_calls
from dspex_bridge.engine.lm import LM
from dspy import lm15
from dspy.clients import execution
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

QUESTION = [{"role": "user", "content": "Where?"}]
USAGE = lm15.Usage(input_tokens=7, output_tokens=5)


class Place(BaseModel):
    name: str


def answered(*parts: Any, **more: Any) -> lm15.Response:
    message = lm15.Message(role="assistant", parts=parts)
    told = {"id": "1", "model": "m", "finish_reason": "stop", "usage": USAGE, **more}
    return lm15.Response(message=message, **told)


TEXT = answered(lm15.TextPart(text="Paris"))

ANSWERS: dict[str, Any] = {
    "a text": TEXT,
    "two texts": answered(lm15.TextPart(text="Par"), lm15.TextPart(text="is")),
    "thoughts": answered(lm15.ThinkingPart(text="Hm."), lm15.TextPart(text="Paris")),
    "data": answered(lm15.DataPart(value={"answer": "Paris"})),
    "tool calls": answered(
        lm15.ToolCallPart(id="c1", name="look", input={"at": 1}), finish_reason="tool_call"
    ),
    "a refusal": answered(lm15.RefusalPart(text="No.")),
    "a cut": answered(lm15.TextPart(text="Par"), finish_reason="length"),
    "no usage": answered(lm15.TextPart(text="Paris"), usage=lm15.Usage()),
    "cached tokens": answered(
        lm15.TextPart(text="Paris"),
        usage=lm15.Usage(input_tokens=9, output_tokens=2, cache_read_tokens=4, reasoning_tokens=1),
    ),
    "a content filter": answered(lm15.TextPart(text="Pa"), finish_reason="content_filter"),
    "a failure of the engine": RuntimeError("a bug"),
    "an auth error": lm15.AuthError("no such key", status=401),
    "a rate limit": lm15.RateLimitError("slow down", status=429, retry_after=3.0),
    "the wrong API": lm15.InvalidRequestError("ask at /v1/responses", status=400),
    "a long prompt": lm15.ContextLengthError("too long", status=400),
    "a timeout": lm15.TimeoutError("too late"),
    "no key": lm15.NotConfiguredError("pass RouterConfig(api_keys={'openai': \"...\"})"),
    "DSPy's own error": dspy.LMError("broken"),
}

ASKED: dict[str, dict[str, Any]] = {
    "a question": {},
    "a prompt": {"messages": None, "prompt": "Where?"},
    "options": {"temperature": 0.5, "max_tokens": 9, "top_p": 0.2, "seed": 4},
    "what OpenAI's API has besides": {"presence_penalty": 0.1, "logit_bias": {"1": 2}},
    "log probabilities": {"logprobs": True, "top_logprobs": 2},
    "a type": {"response_format": Place},
    "a schema": {"response_format": {"type": "json_object"}},
    "several answers": {"n": 2},
    "a wrong number of answers": {"n": 0},
    "a rollout": {"rollout_id": 3, "temperature": 1.0},
    "an option that nobody knows": {"colour": "blue"},
    "a wrong temperature": {"temperature": "hot"},
    "a connection": {"api_base": "http://elsewhere"},
    "half a character": {"messages": [{"role": "user", "content": "\ud800"}]},
    "an unknown role": {"messages": [{"role": "uncle", "content": "Hi"}]},
    "a system message alone": {"messages": [{"role": "system", "content": "Be brief."}]},
    "no messages": {"messages": []},
}


class Engine:
    """Notes what it is asked, and answers with the same each time."""

    supports_function_calling = supports_reasoning = supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def __init__(self, answer: Any) -> None:
        self._answer = answer
        self.asked: list[lm15.Request] = []

    def complete(self, request: lm15.Request) -> Any:
        self.asked.append(request)
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


class AsyncEngine:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def complete(self, request: lm15.Request) -> Any:
        return self._engine.complete(request)


def outcome(answer: Any, asked: dict[str, Any]) -> dict[str, Any]:
    """All that can be seen of one call."""
    engine = Engine(answer)
    lm = LM(
        "main", "demo/x", retries=0, cache=False, engine=engine, async_engine=AsyncEngine(engine)
    )
    told: list[dict[str, Any]] = []

    class Recorder:
        def add_call(self, entry: dict[str, Any]) -> None:
            told.append({key: entry[key] for key in ("prompt", "messages", "outputs", "response")})

    found: dict[str, Any] = {}
    with dspy.context(dspex_recorder=Recorder(), disable_history=True):
        try:
            found["outputs"] = asyncio.run(lm.acall(**{"messages": QUESTION, **asked}))
        except Exception as error:  # noqa: BLE001 - whatever it is
            found["error"] = (type(error), str(error), vars(error), type(error.__cause__))
    total = {name: getattr(lm.total, name) for name in lm.total.__slots__}
    return {**found, "asked": engine.asked, "told": told, "total": total}


@pytest.fixture
def by_dspy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What comes of a call that is made by DSPy from its beginning to its end."""

    def run(answer: Any, asked: dict[str, Any]) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            patch.setattr(plain_calls, "is_plain", lambda *_: False)
            return outcome(answer, asked)

    return run


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_what_dspy_makes_of_it(
    name: str, by_dspy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected = by_dspy(ANSWERS[name], {})
    logged = [record.getMessage() for record in caplog.records]
    caplog.clear()
    assert outcome(ANSWERS[name], {}) == expected
    assert [record.getMessage() for record in caplog.records] == logged
    assert len(expected["asked"]) == 1


@pytest.mark.parametrize("name", ASKED)
def test_a_call_asks_for_what_dspy_asks_for(name: str, by_dspy: Any) -> None:
    assert outcome(TEXT, ASKED[name]) == by_dspy(TEXT, ASKED[name])


def test_most_calls_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the others here compare DSPy with itself."""
    made = []
    answer = plain_calls.answer

    async def noted(lm: Any, call: Any, record: Any) -> Any:
        made.append(call.n)
        return await answer(lm, call, record)

    monkeypatch.setattr(plain_calls, "answer", noted)
    outcome(TEXT, {})
    assert made == [1]
    outcome(TEXT, {"n": 2})
    assert made == [1]


texts = st.text(max_size=8) | st.none()
blocks = st.lists(
    st.fixed_dictionaries({"type": st.just("text"), "text": st.text(max_size=4)}), max_size=2
)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "developer", "tool", "uncle"])},
        optional={
            "content": texts | blocks | st.integers(),
            "name": st.just("Ann"),
            "tool_calls": st.just([]),
            "tool_call_id": st.just("c1"),
        },
    )
    | st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant"]),
            "content": st.text(min_size=1, max_size=8),
        }
    ),
    min_size=1,
    max_size=5,
)
options = st.dictionaries(
    st.sampled_from(["temperature", "max_tokens", "top_p", "stop", "n", "rollout_id", "tools"]),
    st.none() | st.integers(-1, 3) | st.floats(0, 2) | st.booleans() | st.just("x"),
    max_size=3,
)


@given(messages, options)
def test_a_request_is_dspy_s(messages: list[dict[str, Any]], options: dict[str, Any]) -> None:
    call = SimpleNamespace(
        request=None, legacy={"model": "demo/x", "messages": messages, **options}
    )

    def made(make: Any) -> Any:
        try:
            return make(call)
        except Exception as error:  # noqa: BLE001 - whatever it is
            return type(error), str(error)

    assert made(plain_calls.request_of) == made(execution._canonical)
