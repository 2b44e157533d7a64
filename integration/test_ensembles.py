"""The optimizer `ensemble`: a program of several that vote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import InvalidParamsError, LMError, NotFoundError

from integration.openai_server import Answer, OpenAIServer, Request, failure, well_formed
from integration.optimizing import BOUND_S, EXACT, ROWS, SIGNATURE, with_bridge

# What the program with these instructions says.
SAYS = {"one": "tool", "two": "fruit", "three": "fruit"}


def voices(request: Request) -> Answer:
    prompt = request.turns[0][1]
    said = next(name for name in SAYS if f"voice {name}" in prompt)
    if "together" in request.turns[-1][1]:
        return well_formed(request, {"label": SAYS[said]}, delay_s=0.5)
    if "fail" in request.turns[-1][1] and said == "two":
        return failure(400)
    return well_formed(request, {"label": SAYS[said]})


def run(test: Any, state_dir: Path) -> None:
    with OpenAIServer(voices) as server:

        async def whole(client: Client) -> None:
            for name in SAYS:
                await client.create(SIGNATURE, program=name, instructions=f"Be voice {name}.")
            await test(client, server)

        asyncio.run(
            asyncio.wait_for(with_bridge(whole, server=server, state_dir=state_dir), BOUND_S)
        )


def others(**params: Any) -> dict[str, Any]:
    return {"name": "ensemble", "params": {"programs": ["two", "three"], **params}}


def test_an_ensemble_asks_all_at_once_and_answers_what_most_say(tmp_path: Path) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        result = await client.optimize("one", others(), valset=ROWS, metric=EXACT, save_as="all")
        # Alone it is right about tools, with the others about fruit.
        assert (result["base_score"], result["score"]) == (0.5, 0.5)
        assert result["comparison"]["won"] != result["comparison"]["lost"]
        before = len(server.requests)
        answered = await client.execute("all", {"text": "together"})
        assert answered["outputs"] == {"label": "fruit"}
        assert len(server.requests) == before + 3
        assert answered["duration_ms"] < 3 * 500, "one after the other takes longer"
        assert answered["usage"]["total_tokens"] > 0
        described = await client.describe("all")
        assert (described["module"], described["base_program"]) == ("ensemble", "one")
        assert len(described["predictors"]) == 3

    run(test, tmp_path)


def test_an_ensemble_is_dumped_saved_and_loaded_with_its_programs(tmp_path: Path) -> None:
    async def test(client: Client, _server: OpenAIServer) -> None:
        result = await client.optimize("one", others(reduce="majority"), save_as="all")
        assert result["score"] is None
        for name in SAYS:
            await client.delete(name)  # it has them itself
        state = await client.dump("all")
        assert state == result["state"]
        assert await client.load(state, program="again") | {"program": "all"} == {
            **await client.load(state, program="all", replace=True),
            "revision": 1,
        }
        assert await client.dump("again") == state
        await client.save("all", "all.json")
        await client.load(path="all.json", program="saved")
        for name in ("all", "again", "saved"):
            answered = await client.execute(name, {"text": "apple"})
            assert answered["outputs"] == {"label": "fruit"}

    run(test, tmp_path)


def test_an_ensemble_may_draw_some_of_its_programs_and_each_has_its_own_lm(tmp_path: Path) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        lm = {"model": "openai/other", "api_base": server.url, "api_key": server.api_key}
        await client.configure(lms={"other": lm}, default_lm="main")
        await client.create(
            SIGNATURE, program="four", instructions="Be voice three.", lm="other", adapter="json"
        )
        optimizer = {"name": "ensemble", "params": {"programs": ["four"]}}
        await client.optimize("two", optimizer, save_as="both")
        await client.execute("both", {"text": "apple"})
        assert sorted(request.model for request in server.requests) == ["gpt-4.1-mini", "other"]
        (asked,) = (request for request in server.requests if request.model == "other")
        assert "Respond with a JSON object" in asked.turns[-1][1]
        await client.optimize("one", others(size=1), save_as="some")
        before = len(server.requests)
        for _ in range(5):
            await client.execute("some", {"text": "apple"})
        assert len(server.requests) == before + 5

    run(test, tmp_path)


def test_programs_that_are_not_alike_or_fail_are_told(tmp_path: Path) -> None:
    async def test(client: Client, server: OpenAIServer) -> None:
        with pytest.raises(NotFoundError, match="nobody"):
            await client.optimize("one", others(programs=["nobody"]))
        await client.create("q -> a", program="other")
        with pytest.raises(InvalidParamsError, match="the same inputs and outputs"):
            await client.optimize("one", others(programs=["other"]))
        with pytest.raises(InvalidParamsError, match="cannot draw 4"):
            await client.optimize("one", others(size=4))
        await client.optimize("one", others(), save_as="all")
        assert server.requests == []
        with pytest.raises(LMError):
            await client.execute("all", {"text": "fail"})

    run(test, tmp_path)
