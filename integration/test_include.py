"""What `include` adds to the result of an execute."""

from __future__ import annotations

from typing import Any

import pytest

from integration.pipe import Pipe

DEMO = {"inputs": {"question": "Where is Paris?"}, "outputs": {"answer": "France"}}


@pytest.fixture(scope="module")
def pipe() -> Any:
    with Pipe() as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn", "cache": True}}})
        program = {"program": "qa", "signature": "question -> answer", "demos": [DEMO]}
        pipe.ask("create", program)
        pipe.ask("create", {**program, "program": "cot", "module": "chain_of_thought"})
        yield pipe


def execute(pipe: Pipe, program: str, include: list[str]) -> dict[str, Any]:
    params = {"program": program, "inputs": {"question": "Where is Paris?"}, "include": include}
    return dict(pipe.ask("execute", params))


def test_a_trace_has_every_step_with_its_predictor_inputs_and_outputs(pipe: Pipe) -> None:
    (step,) = execute(pipe, "qa", ["trace"])["trace"]
    assert step == {
        "predictor": "self",
        "inputs": {"question": "Where is Paris?"},
        "outputs": {"answer": "France"},
    }
    state = pipe.ask("dump", {"program": "cot"})["state"]
    (step,) = execute(pipe, "cot", ["trace"])["trace"]
    assert {step["predictor"]} == set(state["predictors"])
    assert set(step["outputs"]) == {"reasoning", "answer"}


def test_a_prompt_is_the_messages_and_a_completion_the_text_of_every_call(pipe: Pipe) -> None:
    for _ in range(2):  # the second time the answer is the cache's
        result = execute(pipe, "qa", ["completions", "prompt"])
        (messages,), ((text,),) = result["prompt"], result["completions"]
        assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
        assert "Where is Paris?" in messages[-1]["content"]
        assert text.startswith("[[ ## answer ## ]]\nFrance")
        assert "trace" not in result


def test_a_key_that_was_not_asked_for_is_not_there(pipe: Pipe) -> None:
    assert set(execute(pipe, "qa", [])) == {
        *("outputs", "program", "lm", "usage", "cost_usd", "duration_ms", "cached")
    }


def test_another_word_is_refused_with_those_there_are(pipe: Pipe) -> None:
    params = {"program": "qa", "inputs": {"question": "?"}, "include": ["traces"]}
    error = pipe.refusal("execute", params)
    assert error["code"] == "invalid_params"
    assert "Did you mean 'trace'?" in error["message"]
    assert error["data"] == {"param": "include[0]"}
