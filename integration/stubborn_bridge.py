"""A bridge whose programs cannot be cancelled."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import dspy
from dspex_bridge.cli import bridge


async def aforward(_self: Any, **_inputs: Any) -> Any:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


dspy.Predict.aforward = aforward

if __name__ == "__main__":
    bridge(sys.argv[1:])
