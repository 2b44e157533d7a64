"""Programs of several modules through a real pipe: values from step to step, at the same time."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import (
    InputValidationError,
    InvalidParamsError,
    LMError,
    OutputValidationError,
    RequestCancelledError,
    SignatureError,
)
from dspex_protocol.messages import Notification

from integration.openai_server import (
    Answer,
    OpenAIServer,
    Request,
    answering,
    failure,
    well_formed,
)

SPEC = Path(__file__).parents[1] / "protocol" / "SPEC.md"
BOUND_S = 60.0

QUESTION = {"name": "question", "type": "str"}
DRAFT = {"name": "draft", "signature": "question -> text: str"}
DOUBTS = {"name": "doubts", "signature": "question -> points: list[str]"}
FINAL = {
    "name": "final",
    "signature": "text, points: list[str] -> answer",
    "module": "chain_of_thought",
}
PIPELINE: dict[str, Any] = {
    "inputs": [QUESTION],
    "steps": [DRAFT, DOUBTS, FINAL],
    "outputs": ["final.answer", "draft.text"],
}
FIELDS = {
    "text": "It is in France.",
    "points": ["Which one?", "Since when?"],
    "answer": "Paris, in France.",
    "reasoning": "there is one that everybody means",
}


def run(
    script: Callable[[Request], Answer], test: Callable[[Client, OpenAIServer], Awaitable[None]]
) -> None:
    async def whole() -> None:
        with OpenAIServer(script) as server:
            async with await Client.spawn() as client:
                lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "num_retries": 0}
                await client.configure(lms={"main": {**lm, "api_key": server.api_key}})
                await test(client, server)

    asyncio.run(asyncio.wait_for(whole(), BOUND_S))


def wants(request: Request, field: str) -> bool:
    """Whether a prompt asks for an output field."""
    system = request.turns[0][1].partition("Your output fields are:\n")[2]
    return f"`{field}` (" in system.partition("\n\n")[0].partition("All interactions")[0]


async def expect(server: OpenAIServer, count: int) -> list[Request]:
    return await asyncio.to_thread(server.expect, count)


def test_values_go_from_step_to_step() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        created = await client.create(program="p", **PIPELINE)
        assert created["module"] == "pipeline"
        assert [field["name"] for field in created["signature"]["inputs"]] == ["question"]
        assert [field["name"] for field in created["signature"]["outputs"]] == ["answer", "text"]
        result = await client.execute("p", {"question": "Where is Paris?"})
        assert result["outputs"] == {"answer": FIELDS["answer"], "text": FIELDS["text"]}
        assert result["usage"]["total_tokens"] > 0
        assert len(server.requests) == 3
        last = server.requests[-1].turns[-1][1]
        assert "It is in France." in last
        assert "Since when?" in last
        assert (await client.describe("p"))["counters"] == {"executions": 1, "errors": 0}

    run(answering(FIELDS), test)


def test_the_example_of_the_specification_runs() -> None:
    text = SPEC.read_text(encoding="utf-8")
    section = text[text.index("#### Pipelines") : text.index("### `execute`")]
    (example,) = re.findall(r"^```json\n(.*?)^```$", section, re.M | re.S)

    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.create(program="p", **json.loads(example))
        result = await client.execute("p", {"question": "Where is Paris?"})
        assert result["outputs"] == {"answer": FIELDS["answer"], "text": FIELDS["text"]}

    run(answering(FIELDS), test)


def test_steps_that_do_not_need_one_another_run_at_the_same_time() -> None:
    answer = answering(FIELDS)

    def script(request: Request) -> Answer:
        if wants(request, "answer"):
            return answer(request)
        return well_formed(request, FIELDS, fault="hang")

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create(program="p", **PIPELINE)
        execute = asyncio.create_task(client.execute("p", {"question": "?"}))
        # Neither is answered before both have asked.
        first = await expect(server, 2)
        assert sorted(wants(request, "text") for request in first) == [False, True]
        server.release()
        assert (await execute)["outputs"]["answer"] == FIELDS["answer"]
        assert len(server.requests) == 3

    run(script, test)


def test_a_step_that_fails_cancels_the_others_and_is_named() -> None:
    def script(request: Request) -> Answer:
        if wants(request, "points"):
            return failure(401)
        return well_formed(request, FIELDS, fault="hang")

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create(program="p", **PIPELINE)
        with pytest.raises(LMError, match=r"^step 'doubts': the LM failed \(auth\)") as caught:
            await client.execute("p", {"question": "?"})
        assert caught.value.data["step"] == "doubts"
        assert caught.value.data["kind"] == "auth"
        (left,) = await asyncio.to_thread(server.expect_left, 1)
        assert wants(left, "text")
        assert (await client.stats())["in_flight"] == 0
        assert (await client.describe("p"))["counters"] == {"executions": 1, "errors": 1}

    run(script, test)


def test_a_cancel_ends_every_step() -> None:
    def script(request: Request) -> Answer:
        return well_formed(request, FIELDS, fault="hang")

    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create(program="p", **PIPELINE)
        execute = asyncio.create_task(client.execute("p", {"question": "?"}))
        await expect(server, 2)
        execute.cancel()
        with pytest.raises((asyncio.CancelledError, RequestCancelledError)):
            await execute
        await asyncio.to_thread(server.expect_left, 2)

    run(script, test)


def test_values_are_judged_between_steps() -> None:
    score = {
        "inputs": [{"name": "text", "type": "str"}],
        "outputs": [{"name": "score", "type": "float", "constraints": {"min": 0, "max": 1}}],
    }
    use = {
        "inputs": [{"name": "score", "type": "float", "constraints": {"max": 0.5}}],
        "outputs": [{"name": "answer", "type": "str"}],
    }
    steps = [{"name": "rate", "signature": score}, {"name": "use", "signature": use}]
    scores = iter([2.0, 0.75, 0.25])

    def script(request: Request) -> Answer:
        if wants(request, "score"):
            return well_formed(request, {"score": next(scores)})
        return well_formed(request, FIELDS)

    async def test(client: Client, _server: OpenAIServer) -> None:
        text = {"name": "text", "type": "str"}
        await client.create(program="p", inputs=[text], steps=steps, outputs=["use.answer"])
        with pytest.raises(OutputValidationError, match=r"^step 'rate': ") as output:
            await client.execute("p", {"text": "?"})
        assert output.value.data["errors"][0]["path"] == ["score"]
        with pytest.raises(InputValidationError, match=r"^step 'use': ") as wanted:
            await client.execute("p", {"text": "?"})
        assert wanted.value.data["step"] == "use"
        result = await client.execute("p", {"text": "?"})
        assert result["outputs"] == {"answer": FIELDS["answer"]}

    run(script, test)


def test_a_missing_link_is_refused_when_the_program_is_created() -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        for steps in (
            [DRAFT, {"name": "b", "signature": "txt -> answer"}],
            [DRAFT, {"name": "b", "signature": "text: int -> answer"}],
            [{"name": "b", "signature": "text -> answer"}, DRAFT],
        ):
            with pytest.raises(SignatureError, match="of step 'b'"):
                await client.create(inputs=[QUESTION], steps=steps, outputs=["b.answer"])
        assert await client.list() == []
        assert server.requests == []

    run(answering(FIELDS), test)


@pytest.mark.parametrize("name", ["forward", "batch", "callbacks", "predictors", "save"])
def test_a_step_cannot_have_the_name_of_what_a_module_has(name: str) -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        step = {"name": name, "signature": "question -> text"}
        with pytest.raises(SignatureError, match=f"step name '{name}' is reserved"):
            await client.create(inputs=[QUESTION], steps=[step], outputs=[f"{name}.text"])

    run(answering(FIELDS), test)


def test_what_belongs_to_one_module_is_refused_beside_steps() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        own: list[dict[str, Any]] = [{"signature": "q -> a"}, {"module": "predict"}, {"demos": []}]
        for more in own:
            with pytest.raises(InvalidParamsError, match="unknown parameter"):
                await client.create(**PIPELINE, **more)
        with pytest.raises(InvalidParamsError, match=r"steps\[0\]: unknown parameter 'modul'"):
            await client.create(**{**PIPELINE, "steps": [{**DRAFT, "modul": "predict"}]})
        tool = {"name": "look", "description": "", "parameters": []}
        steps = [{**DRAFT, "tools": [tool]}, DOUBTS, FINAL]
        with pytest.raises(InvalidParamsError, match="predict takes no tools"):
            await client.create(**{**PIPELINE, "steps": steps})

    run(answering(FIELDS), test)


def test_a_pipeline_is_dumped_loaded_described_and_listed() -> None:
    demo = {"inputs": {"question": "Where is Rome?"}, "outputs": {"text": "In Italy, not here."}}

    async def test(client: Client, server: OpenAIServer) -> None:
        steps = [{**DRAFT, "demos": [demo]}, DOUBTS, FINAL]
        await client.create(program="p", **{**PIPELINE, "steps": steps})
        state = await client.dump("p")
        state["predictors"]["final.predict"]["instructions"] = "Answer in one word, as optimized."
        await client.load(json.loads(json.dumps(state)), program="q")
        result = await client.execute("q", {"question": "?"})
        assert result["outputs"]["answer"] == FIELDS["answer"]
        prompts = [" ".join(text for _, text in one.turns) for one in server.requests]
        assert "Answer in one word, as optimized." in prompts[-1]
        assert sum("In Italy, not here." in prompt for prompt in prompts) == 1
        described = await client.describe("q")
        assert list(described["predictors"]) == ["draft", "doubts", "final.predict"]
        assert described["predictors"]["draft"]["demos"] == [demo]
        assert described["outputs"] == PIPELINE["outputs"]
        assert described["steps"][2]["from"] == {"text": "draft.text", "points": "doubts.points"}
        created = await client.create(
            program="again",
            inputs=described["signature"]["inputs"],
            steps=described["steps"],
            outputs=described["outputs"],
        )
        assert created["signature"] == described["signature"]
        listed = {one["program"]: one for one in await client.list()}
        assert listed["q"]["module"] == "pipeline"
        assert listed["q"]["signature"] == "question: str -> answer: str, text: str"

    run(answering(FIELDS), test)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (None, {"answer", "text"}),
        (["answer"], {"answer"}),
        (["final.answer", "final.reasoning"], {"final.answer", "final.reasoning"}),
        (["text", "draft.text", "answer"], {"text", "draft.text", "answer"}),
    ],
)
def test_the_fields_of_every_step_can_be_streamed(fields: list[str] | None, told: set[str]) -> None:
    """Steps are streamed at the same time and none of them in another's form."""
    heard: list[dict[str, Any]] = []

    def listen(notification: Notification) -> None:
        heard.append(notification.params)

    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.create(program="p", **PIPELINE)
        stream = {"window": 1000} | ({} if fields is None else {"fields": fields})
        await client.execute("p", {"question": "?"}, stream=stream, listener=listen)
        assert {chunk["field"] for chunk in heard} == told
        for field in told:
            chunks = [chunk for chunk in heard if chunk["field"] == field]
            assert {chunk["attempt"] for chunk in chunks} == {1}
            assert [chunk["done"] for chunk in chunks][-1] is True
            text = "".join(chunk["text"] for chunk in chunks)
            assert text == FIELDS[field.rpartition(".")[2]]
        with pytest.raises(InvalidParamsError, match=r"Did you mean 'draft\.text'"):
            await client.execute("p", {"question": "?"}, stream={"fields": ["draft.txt"]})

    run(answering(FIELDS), test)


def test_a_pipeline_may_be_run_once_without_being_registered() -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        result = await client.execute(PIPELINE, {"question": "?"})
        assert result["outputs"]["text"] == FIELDS["text"]
        assert await client.list() == []

    run(answering(FIELDS), test)
