"""From a request to its one answer, where two threads have a say."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from dspex_bridge.dispatch import Call, Dispatcher
from dspex_bridge.host import Host, Options
from dspex_bridge.loop import serve_once
from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import FrameReader, frame
from dspex_protocol.messages import Request

if TYPE_CHECKING:
    from pathlib import Path


class Interrupted(Dispatcher):
    """A signal comes when a request has been found good, and is not in flight yet."""

    finished = 0

    def _admit(self, request: Request) -> Call:
        call = super()._admit(request)
        self.shut_down(60_000, self._finished)
        return call

    def _finished(self, _counts: dict[str, int]) -> None:
        self.finished += 1


def test_a_request_that_comes_with_a_signal_is_answered(tmp_path: Path) -> None:
    told = os.open(tmp_path / "told", os.O_CREAT | os.O_RDWR)
    reads, writes = os.pipe()
    host = Host(told, Options(), lambda _status: None)
    host.dispatcher = dispatcher = Interrupted(host)
    os.write(writes, frame(encode(Request(1, "list", {}).to_wire())))
    assert serve_once(host, reads)
    (payload,) = FrameReader().feed(os.pread(told, 65536, 0))
    assert isinstance(payload, bytes)
    kind, request_id, error, _result = decode(payload)
    assert (kind, request_id, error["code"]) == (1, 1, "shutting_down")
    assert (dispatcher.in_flight, dispatcher.finished) == (0, 1)
    for fd in (told, reads, writes):
        os.close(fd)
