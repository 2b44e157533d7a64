"""The client's tools, called from inside a program: concurrent, nested, failing, cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import InvalidParamsError, RequestCancelledError, ToolError
from dspex_protocol.peer import Handler

from integration.openai_server import Answer, OpenAIServer, Request, well_formed

TOOL = {
    "name": "lookup",
    "description": "Looks a word up.",
    "parameters": [
        {"name": "word", "type": "str", "description": "the word"},
        {"name": "limit", "type": "int", "default": 3},
    ],
}
BOUND_S = 60.0


def agent(arguments: dict[str, Any]) -> Callable[[Request], Answer]:
    """An LM that calls `lookup` once and then answers with what it observed."""

    def script(request: Request) -> Answer:
        asked = request.turns[-1][1]
        observed = asked.partition("[[ ## observation_0 ## ]]\n")[2].partition("\n\n")[0]
        step = {"next_thought": "look it up", "next_tool_name": "lookup"}
        if observed:
            step = {"next_thought": "done", "next_tool_name": "finish"}
        return well_formed(
            request,
            {
                **step,
                "next_tool_args": {} if observed else arguments,
                "reasoning": "it was looked up",
                "answer": observed,
            },
        )

    return script


def run(
    test: Callable[[Client], Awaitable[None]],
    handlers: dict[str, Handler],
    arguments: dict[str, Any] | None = None,
) -> None:
    """Runs `test` with a client whose program `agent` has the tool."""

    async def whole() -> None:
        with OpenAIServer(agent(arguments or {"word": "port"})) as server:
            async with await Client.spawn(handlers=handlers) as client:
                lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url}
                await client.configure(lms={"main": {**lm, "api_key": server.api_key}})
                await client.create(
                    "question -> answer", program="agent", module="react", tools=[TOOL]
                )
                await test(client)

    asyncio.run(asyncio.wait_for(whole(), BOUND_S))


def test_a_tool_is_called_with_its_typed_arguments_and_the_request_it_belongs_to() -> None:
    calls: list[dict[str, Any]] = []

    async def call_tool(params: dict[str, Any]) -> Any:
        calls.append(params)
        return {"meaning": "a pipe"}

    async def test(client: Client) -> None:
        result = await client.execute("agent", {"question": "?"}, meta={"trace": "t1"})
        assert result["outputs"]["answer"] == '{"meaning": "a pipe"}'
        assert result["outputs"]["trajectory"]["observation_0"] == {"meaning": "a pipe"}
        (call,) = calls
        assert type(call.pop("request")) is int
        assert call == {
            "program": "agent",
            "tool": "lookup",
            "args": {"word": "port", "limit": 3},
            "meta": {"trace": "t1"},
        }

    run(test, {"call_tool": call_tool})


@pytest.mark.parametrize("name", ["from", "user-id", "others", "größe"])
def test_a_tool_may_have_a_parameter_that_no_function_of_pythons_could_have(name: str) -> None:
    calls: list[dict[str, Any]] = []

    async def call_tool(params: dict[str, Any]) -> Any:
        calls.append(params["args"])
        return "found"

    async def test(client: Client) -> None:
        schema = {"type": "object", "properties": {name: {"type": "string"}}, "required": [name]}
        tool = {"name": "lookup", "description": "Looks it up.", "parameters": schema}
        await client.create(
            "question -> answer", program="agent", module="react", tools=[tool], replace=True
        )
        result = await client.execute("agent", {"question": "?"})
        assert result["outputs"]["answer"] == "found"
        assert calls == [{name: "x"}]

    run(test, {"call_tool": call_tool}, arguments={name: "x"})


def test_tools_of_many_requests_run_at_the_same_time() -> None:
    count = 20
    everybody = asyncio.Event()
    waiting = 0

    async def call_tool(params: dict[str, Any]) -> Any:
        nonlocal waiting
        waiting += 1
        if waiting == count:
            everybody.set()
        await everybody.wait()
        return f"for {params['request']}"

    async def test(client: Client) -> None:
        results = await asyncio.gather(
            *(client.execute("agent", {"question": str(n)}) for n in range(count))
        )
        assert len({result["outputs"]["answer"] for result in results}) == count

    run(test, {"call_tool": call_tool})


def test_a_tool_may_run_the_same_program() -> None:
    depth = 5
    clients: list[Client] = []

    async def call_tool(params: dict[str, Any]) -> Any:
        left = params["meta"]["left"]
        if not left:
            return "the bottom"
        result = await clients[0].execute("agent", {"question": "?"}, meta={"left": left - 1})
        return f"above {result['outputs']['answer']}"

    async def test(client: Client) -> None:
        clients.append(client)
        result = await client.execute("agent", {"question": "?"}, meta={"left": depth})
        assert result["outputs"]["answer"] == "above " * depth + "the bottom"

    run(test, {"call_tool": call_tool})


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ToolError("the dictionary is closed"), "the dictionary is closed"),
        (RuntimeError("a bug"), "a bug"),
    ],
)
def test_the_error_of_a_tool_is_its_observation(error: Exception, told: str) -> None:
    async def call_tool(_params: dict[str, Any]) -> Any:
        raise error

    async def test(client: Client) -> None:
        outputs = (await client.execute("agent", {"question": "?"}))["outputs"]
        observation = outputs["trajectory"]["observation_0"]
        assert observation.startswith("Execution error in lookup: ")
        assert told in observation
        assert ".py" not in observation, "no path of Python's"

    run(test, {"call_tool": call_tool})


def test_arguments_that_do_not_fit_are_an_observation_and_the_client_is_not_asked() -> None:
    async def call_tool(_params: dict[str, Any]) -> Any:
        raise AssertionError("asked all the same")

    async def test(client: Client) -> None:
        outputs = (await client.execute("agent", {"question": "?"}))["outputs"]
        observation = outputs["trajectory"]["observation_0"]
        assert "word: expected str, got nothing" in observation
        assert "limit: expected int" in observation
        assert ".py" not in observation, "no path of Python's"

    run(test, {"call_tool": call_tool}, arguments={"limit": "many"})


def test_a_client_without_tools_is_an_observation_too() -> None:
    async def test(client: Client) -> None:
        outputs = (await client.execute("agent", {"question": "?"}))["outputs"]
        assert "call_tool" in outputs["trajectory"]["observation_0"]

    run(test, {})


def test_cancelling_the_request_cancels_its_tool() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def call_tool(_params: dict[str, Any]) -> Any:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def test(client: Client) -> None:
        execute = asyncio.create_task(client.execute("agent", {"question": "?"}))
        await started.wait()
        execute.cancel()
        with pytest.raises(asyncio.CancelledError):
            await execute
        await ended.wait()
        assert (await client.stats())["in_flight"] == 0

    run(test, {"call_tool": call_tool})


def test_a_deadline_ends_a_tool_that_does_not_answer() -> None:
    ended = asyncio.Event()

    async def call_tool(_params: dict[str, Any]) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def test(client: Client) -> None:
        with pytest.raises(Exception, match="500 ms") as caught:
            await client.execute("agent", {"question": "?"}, timeout_ms=500)
        assert type(caught.value).__name__ == "RequestTimeoutError"
        assert not isinstance(caught.value, RequestCancelledError)
        await ended.wait()

    run(test, {"call_tool": call_tool})


def test_tools_are_refused_where_they_make_no_sense() -> None:
    async def test(client: Client) -> None:
        with pytest.raises(InvalidParamsError, match="predict takes no tools"):
            await client.create("question -> answer", tools=[TOOL])
        with pytest.raises(InvalidParamsError, match="cannot be the name of a tool"):
            await client.create("q -> a", module="react", tools=[TOOL, TOOL])

    run(test, {})


def test_a_program_with_tools_is_the_same_after_dump_and_load() -> None:
    async def call_tool(params: dict[str, Any]) -> Any:
        return params["program"]

    async def test(client: Client) -> None:
        await client.load(await client.dump("agent"), program="again")
        result = await client.execute("again", {"question": "?"})
        assert result["outputs"]["answer"] == "again"
        described = await client.describe("again")
        assert described["tools"] == (await client.describe("agent"))["tools"]

    run(test, {"call_tool": call_tool})
