"""The modules whose LM writes code, through a real pipe: in jobs, with a stand-in for Deno."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import (
    LMError,
    RequestCancelledError,
    RequestTimeoutError,
    UnavailableError,
)
from dspex_protocol.peer import Handler

from integration.deno_stand_in import stand_in
from integration.lifetime import seconds_until_gone
from integration.openai_server import Answer, OpenAIServer, Request, failure, well_formed

BOUND_S = 100.0

TOOL = {
    "name": "lookup",
    "description": "Looks a word up.",
    "parameters": [{"name": "word", "type": "str"}],
}


def saying(code: str, **fields: Any) -> Callable[[Request], Answer]:
    """An LM that writes this code, and then these answers."""
    block = f"```python\n{code}\n```"
    own = {"reasoning": "so it is", "generated_code": block, "code": block, "finished": True}
    return lambda request: well_formed(request, {**own, **fields})


def run(
    folder: Path,
    script: Callable[[Request], Answer],
    test: Callable[[Client, OpenAIServer], Awaitable[None]],
    handlers: dict[str, Handler] | None = None,
) -> None:
    async def whole() -> None:
        env = {**os.environ, "PATH": f"{stand_in(folder)}{os.pathsep}{os.environ['PATH']}"}
        with OpenAIServer(script) as server:
            async with await Client.spawn(handlers=handlers or {}, env=env) as client:
                lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "num_retries": 0}
                await client.configure(lms={"main": {**lm, "api_key": server.api_key}})
                await test(client, server)

    asyncio.run(asyncio.wait_for(whole(), BOUND_S))


@pytest.mark.parametrize(
    ("module", "code", "outputs"),
    [
        ("program_of_thought", "SUBMIT(6 * 7)", {"answer": 42, "reasoning": "so it is"}),
        ("rlm", "SUBMIT(answer=len(question))", {"answer": 9, "final_reasoning": "so it is"}),
        ("flex", "", {"answer": 42}),
    ],
)
def test_a_module_that_runs_code_runs_it(
    module: str, code: str, outputs: dict[str, Any], tmp_path: Path
) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create("question -> answer: int", program="p", module=module)
        result = await client.execute("p", {"question": "How many?"})
        assert {k: v for k, v in result["outputs"].items() if k != "trajectory"} == outputs
        assert result["usage"]["total_tokens"] > 0
        assert (await client.stats())["lms"]["main"]["calls"] == len(server.requests)

    run(tmp_path, saying(code, answer=42), test)


def test_code_asks_the_clients_tools(tmp_path: Path) -> None:
    calls: list[Any] = []

    async def call_tool(params: dict[str, Any]) -> Any:
        calls.append((params["tool"], params["args"], params["meta"]))
        return {"meaning": "a pipe"}

    async def test(client: Client, _server: OpenAIServer) -> None:
        for module in ("code_act", "rlm"):
            options = {"max_iters": 1}
            await client.create(
                "question -> answer",
                program="p",
                module=module,
                tools=[TOOL],
                options=options,
                replace=True,
            )
            result = await client.execute("p", {"question": "?"}, meta={"trace": "t"})
            assert "a pipe" in str(result["outputs"]["trajectory"])
            assert calls.pop() == ("lookup", {"word": "port"}, {"trace": "t"})

    script = saying("print(lookup('port')['meaning'])", answer="it is")
    run(tmp_path, script, test, {"call_tool": call_tool})


def test_a_cancel_ends_code_that_never_would(tmp_path: Path) -> None:
    pids: list[int] = []
    looping = asyncio.Event()

    async def call_tool(params: dict[str, Any]) -> Any:
        pids.append(int(params["args"]["word"]))
        looping.set()
        return "go on"

    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.create("question -> answer", program="p", module="code_act", tools=[TOOL])
        execute = asyncio.create_task(client.execute("p", {"question": "?"}))
        await looping.wait()
        await client.ping()
        execute.cancel()
        with pytest.raises((asyncio.CancelledError, RequestCancelledError)):
            await execute
        assert await asyncio.to_thread(seconds_until_gone, pids, 10) is not None
        assert (await client.stats())["in_flight"] == 0
        # Others are not disturbed.
        await client.create("question -> answer", program="q")
        assert (await client.execute("q", {"question": "?"}))["outputs"] == {"answer": "fine"}

    code = "import os\nlookup(str(os.getpid()))\nwhile True: pass"
    run(tmp_path, saying(code, answer="fine"), test, {"call_tool": call_tool})


def test_a_limit_of_time_and_a_failing_lm_are_told(tmp_path: Path) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        await client.create(
            "question -> answer", program="p", module="rlm", options={"code_timeout_ms": 200}
        )
        with pytest.raises(RequestTimeoutError, match=r"a piece of code ran for 0\.2 s"):
            await client.execute("p", {"question": "?"})
        answers.append(lambda _request: failure(401))
        with pytest.raises(LMError) as refused:
            await client.execute("p", {"question": "?"})
        assert refused.value.data["kind"] == "auth"
        assert len(server.requests) == 2

    answers = [saying("while True: pass")]

    def script(request: Request) -> Answer:
        return answers[-1](request)

    run(tmp_path, script, test)


def test_a_step_of_a_pipeline_may_run_code(tmp_path: Path) -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.create(
            program="p",
            inputs=[{"name": "question", "type": "str"}],
            steps=[
                {
                    "name": "count",
                    "signature": "question -> number: int",
                    "module": "program_of_thought",
                },
                {"name": "say", "signature": "number: int -> answer"},
            ],
            outputs=["say.answer", "count.number"],
        )
        result = await client.execute("p", {"question": "?"})
        assert result["outputs"] == {"answer": "forty-two", "number": 42}
        predictors = (await client.describe("p"))["predictors"]
        assert "count.code_generate.predict" in predictors
        assert "say" in predictors

    run(tmp_path, saying("SUBMIT(42)", number=42, answer="forty-two"), test)


def test_code_finds_no_key_of_the_bridges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import os
try:
    found = dspy.Predict("x: os.environ -> y")(x="1").y
except Exception as error:
    found = str(error)
SUBMIT(answer=found + " and here " + str(dict(os.environ)))
"""
    monkeypatch.setenv("DATABASE_URL", "postgres://u:hunter2@db/x")

    async def test(client: Client, _server: OpenAIServer) -> None:
        await client.create("question -> answer", program="p", module="rlm")
        outputs = (await client.execute("p", {"question": "?"}))["outputs"]
        assert "unknown type 'os'" in outputs["answer"]
        assert "PATH" in outputs["answer"], "the environment of the stand-in for Deno"
        assert "hunter2" not in str(outputs)

    run(tmp_path, saying(code), test)


def test_without_deno_they_are_listed_and_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    async def whole() -> None:
        async with await Client.spawn() as client:
            offered = (await client.initialize())["modules"]
            for module in ("program_of_thought", "code_act", "rlm", "flex"):
                assert module in offered
                with pytest.raises(UnavailableError, match=r"pip install 'dspy\[deno\]'"):
                    await client.create("question -> answer", module=module)

    asyncio.run(asyncio.wait_for(whole(), BOUND_S))
