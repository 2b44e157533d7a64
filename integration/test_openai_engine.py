"""The bridge's engine for `openai/…` on the wire, in process."""

from __future__ import annotations

import asyncio
import threading

import pytest
from dspex_bridge.engine.lms import LMs
from dspex_bridge.redaction import Redactor

from integration.openai_server import Answer, OpenAIServer


def test_a_request_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """DSPy writes the head and the body of a request, one after the other: what puts them together
    stands on names that are DSPy's own business."""
    written: list[bytes] = []
    write = asyncio.StreamWriter.write

    def noted(writer: asyncio.StreamWriter, data: bytes) -> None:
        if threading.current_thread() is threading.main_thread():  # not the server's
            written.append(bytes(data))
        write(writer, data)

    monkeypatch.setattr(asyncio.StreamWriter, "write", noted)

    async def main() -> None:
        lm = lms.get("main")
        for _ in range(2):  # on a new connection, and on one that is kept
            assert await lm.acall(messages=[{"role": "user", "content": "Where?"}]) == ["Paris"]

    with OpenAIServer(Answer("Paris")) as server:
        lms = LMs(Redactor(), lambda *_: b"")
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        lms.configure({"main": lm}, None, None)
        asyncio.run(main())
    assert len(written) == 2
    for request in written:
        head, _, body = request.partition(b"\r\n\r\n")
        assert head.startswith(b"POST ")
        assert b"Where?" in body
