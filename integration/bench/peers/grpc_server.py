"""A unary method of gRPC's asyncio server, which is what Snakepit's workers have.

It prints its port. Messages are bytes: no protobuf is parsed, which makes it faster than anything
that is in use.
"""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

__all__ = ["METHOD", "OPTIONS", "SERVICE", "main"]

SERVICE, METHOD = "bench.Echo", "Ping"

_MAX_BYTES = 64 * 1024 * 1024
OPTIONS = [("grpc.max_receive_message_length", _MAX_BYTES), ("grpc.max_send_message_length", -1)]


async def _ping(request: bytes, _context: Any) -> bytes:
    return request


async def main() -> None:
    server = grpc.aio.server(options=OPTIONS)
    handlers = {METHOD: grpc.unary_unary_rpc_method_handler(_ping)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
