"""pynvim's MessagePack-RPC session on stdin and stdout: the same messages as the bridge's, but for
the length in front and the parameters, which are an array."""

from __future__ import annotations

from typing import Any

from pynvim.msgpack_rpc.async_session import AsyncSession
from pynvim.msgpack_rpc.event_loop import EventLoop
from pynvim.msgpack_rpc.msgpack_stream import MsgpackStream
from pynvim.msgpack_rpc.session import Session

__all__ = ["main"]


def main() -> None:
    # As pynvim.stdio_session() makes it, which also asks its client who it is.
    session = Session(AsyncSession(MsgpackStream(EventLoop("stdio"))))

    def answer(_method: str, args: list[Any]) -> Any:
        return args[0]

    session.run(answer, lambda *_: None)


if __name__ == "__main__":
    main()
