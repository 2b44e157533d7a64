from __future__ import annotations

from typing import Any

from dspex_bridge.dispatch import Call
from dspex_bridge.methods import METHODS
from dspex_bridge.streams import ChunkStream
from dspex_protocol.messages import Request


def streamed(window: int) -> tuple[Call, ChunkStream, list[Any]]:
    sent: list[Any] = []

    def send(text: str) -> bool:
        sent.append(text)
        return True

    call = Call(Request(1, "execute", {}), METHODS["execute"], {})
    return call, ChunkStream(lambda _chunk: send, window), sent


def test_what_was_granted_before_there_was_a_stream_counts() -> None:
    call, chunks, sent = streamed(window=1)
    call.grant(1)
    call.grant(2)
    call.open_stream(chunks)
    for text in "abcdef":
        chunks.put("answer", text)
    assert sent == ["a", "b", "c", "d"]


def test_what_is_granted_later_counts_once() -> None:
    call, chunks, sent = streamed(window=1)
    call.open_stream(chunks)
    for text in "abc":
        chunks.put("answer", text)
    call.grant(1)
    assert sent == ["a", "bc"]
    chunks.put("answer", "d")
    assert sent == ["a", "bc"]
