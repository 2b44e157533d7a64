"""The fields of an answer, streamed as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import dspy
from dspex_bridge.engine.field_parsers import ChatParser
from dspex_bridge.engine.streaming import PARSER_SETTING, FieldStream
from dspex_bridge.streams import ChunkStream

MAX_CREDIT = 1_000_000


def delta(text: str) -> Any:
    return SimpleNamespace(choices=[SimpleNamespace(delta=SimpleNamespace(content=text))])


def streamed(tokens: list[str]) -> tuple[float, list[dict[str, Any]]]:
    """The processor time that the tokens of an answer take, and their chunks."""
    chunks: list[dict[str, Any]] = []

    def prepare(chunk: dict[str, Any]) -> Callable[[str], bool]:
        def take(text: str) -> bool:
            chunks.append({**chunk, "text": text})
            return True

        return take

    stream = FieldStream(ChunkStream(prepare, MAX_CREDIT), ["answer"])
    with dspy.context(**{PARSER_SETTING: lambda: ChatParser({"answer"})}):
        stream.begin_call()

    async def send() -> float:
        started = time.thread_time()
        await stream.send(delta("[[ ## answer ## ]]\n"))
        for token in tokens:
            await stream.send(delta(token))
        stream.finish({"answer": "".join(tokens)})
        return time.thread_time() - started

    return asyncio.run(send()), chunks


def test_every_token_is_a_chunk_and_all_are_of_the_first_attempt() -> None:
    tokens = ["One", " two", " three"]
    _, chunks = streamed(tokens)
    assert "".join(chunk["text"] for chunk in chunks) == "".join(tokens)
    assert {chunk["attempt"] for chunk in chunks} == {1}
    assert [chunk["done"] for chunk in chunks] == [False, False, False, True]


def test_a_token_costs_the_same_however_long_the_answer_is() -> None:
    def seconds(count: int) -> float:
        return min(streamed([" " + "x" * 399] * count)[0] for _ in range(3))

    # 16 times the answer; one that copied all of it at each token would take 256 times as long.
    assert seconds(8000) < 80 * max(seconds(500), 0.0005)
