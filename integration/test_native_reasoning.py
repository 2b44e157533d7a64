"""A reasoning model's own reasoning, in place of one that it is asked to write."""

from __future__ import annotations

from typing import Any

import pytest

from integration.openai_server import Answer, OpenAIServer, Request
from integration.pipe import Pipe

THOUGHT = "Ports are pipes, and pipes are simple."


def thinking(request: Request) -> Answer:
    """Answers in words of its own only what the prompt asks for."""
    asks = "[[ ## reasoning ## ]]" in request.turns[0][1]
    written = "[[ ## reasoning ## ]]\nWritten.\n\n" if asks else ""
    text = f"{written}[[ ## answer ## ]]\nYes, it is.\n\n[[ ## completed ## ]]"
    return Answer(text, reasoning=THOUGHT if request.model.endswith("reasoner") else "")


@pytest.fixture
def server() -> Any:
    with OpenAIServer(thinking) as server:
        yield server


@pytest.fixture
def pipe(server: OpenAIServer) -> Any:
    with Pipe() as pipe:
        lm = {"api_base": server.url, "api_key": server.api_key}
        lms = {
            "thinker": {**lm, "model": "deepseek/deepseek-reasoner"},
            "plain": {**lm, "model": "openai/gpt-4.1-mini"},
        }
        pipe.ask("configure", {"lms": lms, "default_lm": "thinker"})
        cot = {"signature": "question -> answer", "module": "chain_of_thought"}
        pipe.ask("create", {**cot, "program": "native", "options": {"native_reasoning": True}})
        pipe.ask("create", {**cot, "program": "written"})
        yield pipe


def run(pipe: Pipe, program: str, **params: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """The outputs, and the text of the last attempt's chunks by field."""
    inputs = {"question": "Is it?"}
    execute = {"program": program, "inputs": inputs, "stream": {}, **params}
    request = pipe.request("execute", execute)
    chunks: list[dict[str, Any]] = []
    while (message := pipe.receive())[0] != 1:
        if message[1] == "chunk":
            chunks.append(message[2])
    assert message[:3] == [1, request, None], message
    texts: dict[str, str] = {}
    for chunk in chunks:
        if chunk["attempt"] == chunks[-1]["attempt"]:
            texts[chunk["field"]] = texts.get(chunk["field"], "") + chunk["text"]
    assert chunks[-1]["attempt"] == 1
    return message[3]["outputs"], texts


@pytest.mark.parametrize(
    ("program", "lm", "reasoning"),
    [
        ("native", "thinker", THOUGHT),
        # A model that has none of its own is asked to write it.
        ("native", "plain", "Written."),
        ("written", "thinker", "Written."),
    ],
)
def test_the_reasoning_is_the_models_own_where_it_was_asked_for_and_the_model_has_it(
    pipe: Pipe, program: str, lm: str, reasoning: str
) -> None:
    outputs, texts = run(pipe, program, lm=lm)
    assert outputs == {"reasoning": reasoning, "answer": "Yes, it is."}
    assert texts == outputs
    plain = pipe.ask("execute", {"program": program, "lm": lm, "inputs": {"question": "Is it?"}})
    assert plain["outputs"] == outputs


def test_the_option_is_a_part_of_the_state(pipe: Pipe) -> None:
    state = pipe.ask("dump", {"program": "native"})["state"]
    assert state["options"] == {"native_reasoning": True}
    pipe.ask("load", {"state": state, "program": "again"})
    assert run(pipe, "again")[0]["reasoning"] == THOUGHT
