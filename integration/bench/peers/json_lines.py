"""A server as anybody would write one first: asyncio, a line of JSON a request, on stdio.

Each request is a task of its own, as it has to be where one may take long. It validates nothing and
has no limits, deadlines or cancelling.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

__all__ = ["main"]

# Of a line; the default of 64 KiB is less than what is measured.
_LIMIT = 64 * 1024 * 1024


async def _answer(request: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    answer = {"id": request["id"], "result": {"payload": request["params"]["payload"]}}
    writer.write(json.dumps(answer, separators=(",", ":")).encode() + b"\n")
    await writer.drain()


async def main() -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(_LIMIT)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    transport, protocol = await loop.connect_write_pipe(
        asyncio.streams.FlowControlMixin, sys.stdout
    )
    writer = asyncio.StreamWriter(transport, protocol, None, loop)
    tasks: set[asyncio.Task[None]] = set()
    while line := await reader.readline():
        task = asyncio.create_task(_answer(json.loads(line), writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main())
