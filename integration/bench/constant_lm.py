"""An LM that costs nothing: the same answer to everything. It needs DSPy alone.

In the environment DSPEX_BENCH_LM_MS says how long it takes to answer, in milliseconds, and
DSPEX_BENCH_LM_WORDS how many words the answer has, which a stream brings one at a time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from dspy.lm15 import (
    Message,
    Request,
    Response,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamStartEvent,
    TextDelta,
    Usage,
)

__all__ = ["SIGNATURE", "AsyncConstant", "Constant"]

#: What it answers, under DSPy's ChatAdapter.
SIGNATURE = "question -> answer"

_WAIT_S = float(os.environ.get("DSPEX_BENCH_LM_MS", "0")) / 1000
_WORDS = ["Paris"] + [" Paris"] * (int(os.environ.get("DSPEX_BENCH_LM_WORDS", "1")) - 1)
_BEFORE, _AFTER = "[[ ## answer ## ]]\n", "\n\n[[ ## completed ## ]]"
_ANSWER = _BEFORE + "".join(_WORDS) + _AFTER
_USAGE = Usage(input_tokens=1, output_tokens=1)


class Constant:
    """An engine for DSPy's blocking calls, which never wait."""

    def complete(self, request: Request) -> Response:
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(_ANSWER),
            finish_reason="stop",
            usage=_USAGE,
        )


class AsyncConstant:
    """And one for its async calls."""

    def __init__(self) -> None:
        self._engine = Constant()

    async def complete(self, request: Request) -> Response:
        if _WAIT_S:
            await asyncio.sleep(_WAIT_S)
        return self._engine.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        yield StreamStartEvent(id=None, model=request.model)
        for text in (_BEFORE, *_WORDS, _AFTER):
            yield StreamDeltaEvent(delta=TextDelta(text=text, part_index=0))
        yield StreamEndEvent(finish_reason="stop", usage=_USAGE)
