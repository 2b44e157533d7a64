"""`replay/FILE`: an LM whose answers were recorded, in place of the one that gave them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import dspy
from dspy.clients.capabilities import capabilities
from dspy.lm15 import (
    Request,
    Response,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamStartEvent,
    TextDelta,
    ThinkingDelta,
    ToolCallDelta,
)
from dspy.utils.exceptions import LMConfigurationError

from .embedded import MODEL as EMBEDDED_MODEL
from .embedded import KnnEngine
from .metering import CallRecord

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .exchanges import Exchanges

__all__ = ["PREFIX", "AsyncReplayEngine", "ReplayEngine"]

PREFIX = "replay/"

# What a provider streams at once is about a word.
_PIECE = re.compile(r"\s*\S+\s*|\s+")


class ReplayEngine:
    """Gives the answers of `exchanges`. It can what the recorded LM can, so that it is asked in the
    same way."""

    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges
        model = exchanges.model
        if model is None:
            return
        engine = {"engine": KnnEngine()} if model == EMBEDDED_MODEL else {}
        able = capabilities(dspy.LM(model, **engine))
        self.supports_function_calling = able.function_calling
        self.supports_reasoning = able.reasoning
        self.supports_response_schema = able.response_schema
        self.supported_params = able.params

    def complete(self, request: Request) -> Response:
        """The recorded answer. Raises LMConfigurationError where there is none."""
        exchange = self._exchanges.next(request)
        if exchange is None:
            raise LMConfigurationError(self._exchanges.missing(request), model=request.model)
        record = CallRecord.current()
        if record is not None:
            record.add_cost(exchange.cost_usd)
        return exchange.response

    def stream(self, request: Request) -> Iterator[Any]:
        """The same answer, a word at a time."""
        yield from _events(self.complete(request))


class AsyncReplayEngine:
    """The same for DSPy's async calls."""

    def __init__(self, engine: ReplayEngine) -> None:
        self._engine = engine

    async def complete(self, request: Request) -> Response:
        """As `ReplayEngine.complete`."""
        return self._engine.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """As `ReplayEngine.stream`."""
        for event in self._engine.stream(request):
            yield event

    async def aclose(self) -> None:
        """Nothing is held open."""


def _events(response: Response) -> Iterator[Any]:
    yield StreamStartEvent(id=response.id, model=response.model)
    for index, part in enumerate(response.message.parts):
        if part.type == "text":
            for piece in _PIECE.findall(part.text):
                yield StreamDeltaEvent(delta=TextDelta(text=piece, part_index=index))
        elif part.type == "thinking":
            yield StreamDeltaEvent(delta=ThinkingDelta(text=part.text, part_index=index))
        elif part.type == "tool_call":
            told = ToolCallDelta(
                input=json.dumps(part.input), part_index=index, id=part.id, name=part.name
            )
            yield StreamDeltaEvent(delta=told)
    yield StreamEndEvent(finish_reason=response.finish_reason, usage=response.usage)
