"""The MCP SDK's server on stdin and stdout, whose own `ping` is asked for."""

from __future__ import annotations

import asyncio

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

__all__ = ["main"]


async def main() -> None:
    server = Server("bench")
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


if __name__ == "__main__":
    asyncio.run(main())
