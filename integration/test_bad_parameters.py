"""Parameters that cannot be meant, and what a bridge says about them to whoever wrote them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from dspex_protocol.client import Client
from dspex_protocol.errors import InvalidParamsError

from integration.pipe import BRIDGE

BOUND_S = 60
QA = {"signature": "question -> answer"}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda client: client.execute(QA, ["?"]),
            "execute: inputs must be a map, got a list.",
        ),
        (
            lambda client: client.batch(QA, ["?"]),
            "batch: inputs[0] must be a map, got a string.",
        ),
        (
            lambda client: client.batch(QA, {"question": "?"}),
            "batch: inputs must be a list, got a map.",
        ),
        (
            lambda client: client.evaluate(QA, ["?"], {"name": "exact_match"}),
            "evaluate: devset[0] must be a map, got a string.",
        ),
        (
            lambda client: client.request("execute", {"program": QA, "inputs": {}, "timeout": 5}),
            "execute: unknown parameter 'timeout'. Did you mean 'timeout_ms'? Valid: program, ",
        ),
        (
            lambda client: client.request("ping", {"metta": {}}),
            "ping: unknown parameter 'metta'. Did you mean 'meta'? Valid: payload, timeout_ms, "
            "meta.",
        ),
        (
            # DSPy's own words for it are Python.
            lambda client: client.request(
                "configure", {"lms": {"main": {"model": "openai/gpt-5", "temperature": 0.2}}}
            ),
            "the LM 'main' cannot be made: [openai/gpt-5] OpenAI's reasoning models take a "
            "temperature of 1.0 or none, and max_tokens of at least 16000 or none",
        ),
        (
            lambda client: client.request("configure", {"limits": {"timeout": 5}}),
            "configure: limits: unknown parameter 'timeout'. Valid: max_cost_usd, max_tokens, "
            "max_calls, requests_per_minute, max_concurrency.",
        ),
    ],
)
def test_the_bridge_says_what_was_expected_and_where(
    ask: Callable[[Client], Awaitable[Any]], message: str
) -> None:
    async def play() -> str:
        client = await Client.spawn(BRIDGE)
        try:
            with pytest.raises(InvalidParamsError) as caught:
                await ask(client)
            return str(caught.value)
        finally:
            await client.close()

    told = asyncio.run(asyncio.wait_for(play(), BOUND_S))
    assert told.startswith(message)
    if "timeout_ms" in message and told.startswith("execute"):
        assert told.endswith("timeout_ms, meta.")
