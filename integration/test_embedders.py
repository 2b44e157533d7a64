"""Embedders, by the program that uses one: knn, with the nearest of its demonstrations."""

from __future__ import annotations

from typing import Any

import pytest

from integration.openai_server import OpenAIServer, answering
from integration.pipe import Pipe

SPAM = [
    ("win a free prize now", "spam"),
    ("free money, click the link", "spam"),
    ("the meeting is moved to monday", "ham"),
    ("lunch on monday with the team?", "ham"),
]
PROGRAM = {
    "signature": "text -> label",
    "module": "knn",
    "options": {"k": 2},
    "demos": [{"inputs": {"text": text}, "outputs": {"label": label}} for text, label in SPAM],
    "program": "filter",
}


@pytest.fixture
def pipe() -> Any:
    with Pipe() as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        yield pipe


def test_the_embedded_embedder_finds_the_nearest_demonstrations(pipe: Pipe) -> None:
    with OpenAIServer(answering({"label": "ham"})) as server:
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        configured = {"lms": {"main": lm}, "embedders": {"words": {"model": "demo/tfidf"}}}
        answer = pipe.ask("configure", configured)
        assert answer["embedders"] == {"words": {"model": "demo/tfidf"}}
        pipe.ask("create", PROGRAM)
        pipe.ask("execute", {"program": "filter", "inputs": {"text": "the team meeting on monday"}})
        (request,) = server.requests
        prompt = "\n".join(text for _, text in request.turns)
    assert "lunch on monday" in prompt
    assert "moved to monday" in prompt
    assert "free" not in prompt


def test_a_provider_s_embedder_is_asked_with_its_key(pipe: Pipe) -> None:
    with OpenAIServer([]) as server:
        embedder = {
            "model": "openai/text-embedding-3-small",
            "api_base": server.url,
            "api_key": server.api_key,
        }
        answer = pipe.ask("configure", {"embedders": {"real": embedder}})
        assert answer["embedders"]["real"]["api_key"] == "***"
        pipe.ask("create", PROGRAM)
        result = pipe.ask("execute", {"program": "filter", "inputs": {"text": "free prize"}})
        assert result["outputs"]["label"] in ("spam", "ham")
        assert [request.path for request in server.requests] == ["/v1/embeddings"] * 2
        texts = [request.body["input"] for request in server.requests]
    assert texts == [[f"text: {text}" for text, _ in SPAM], ["text: free prize"]]


def test_an_embedder_s_failure_is_an_lm_error_of_its_kind(pipe: Pipe) -> None:
    with OpenAIServer([]) as server:
        embedder = {"model": "openai/m", "api_base": server.url, "api_key": "sk-wrong-and-secret"}
        pipe.ask("configure", {"embedders": {"real": embedder}})
        pipe.ask("create", PROGRAM)
        error = pipe.refusal("execute", {"program": "filter", "inputs": {"text": "free"}})
    assert (error["code"], error["data"]["kind"]) == ("lm_error", "auth")
    assert "sk-wrong-and-secret" not in str(error)


def test_without_an_embedder_a_program_that_needs_one_is_refused(pipe: Pipe) -> None:
    error = pipe.refusal("create", PROGRAM)
    assert (error["code"], error["data"]["kind"]) == ("not_found", "embedder")
    assert "demo/tfidf" in error["message"]
    error = pipe.refusal("configure", {"embedders": {"a": {"model": "demo/tf-idf"}}})
    assert "Did you mean 'demo/tfidf'?" in error["message"]
    error = pipe.refusal("configure", {"embedders": {"a": {"model": "m", "cache": True}}})
    assert error["code"] == "invalid_params"
