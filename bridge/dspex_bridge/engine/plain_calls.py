"""The plain call of an engine of the bridge's: one answer, not cached, whole or as it comes.

Around an engine's answer DSPy has its cache, candidates, retries, prices and history, and looks for
each of them with every call, which is a fifth of the processor time of an execute. The text of each
event of a stream it puts into an object in the form of another library, out of which the bridge
would take it again: half of what a chunk costs. What a request, an event and an answer mean is
DSPy's own.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import dspy
from dspy._vendor.lm15.result import StreamAccumulator  # nothing re-exports it
from dspy.clients import execution
from dspy.clients.call_context import stream_emitted
from dspy.clients.call_result import usage_dict
from dspy.clients.engines.lifecycle import aclosing_stream
from dspy.clients.engines.stream_guard import achecked_stream
from dspy.clients.errors import error_boundary
from dspy.lm15 import (
    Config,
    Message,
    Request,
    Response,
    StreamAssemblyError,
    TextPart,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .metering import CallRecord
    from .streaming import FieldStream

__all__ = ["answer", "is_plain", "request_of"]

# What of a call is no option of a request's, and the options that mean the same there.
_NO_OPTIONS = frozenset({"model", "messages", "rollout_id"})
_OPTIONS = frozenset({"temperature", "max_tokens"})

# Messages of earlier turns: those of a dozen programs, in some megabytes.
_KEPT, _MAX_KEPT_CHARS = 256, 8192


def is_plain(lm: dspy.LM, call: Any) -> bool:
    """Whether a call that DSPy has prepared is one."""
    return not (isinstance(lm.engine, str) or call.request is not None or call.cache or call.n > 1)


async def answer(lm: dspy.LM, call: Any, record: CallRecord) -> Any:
    """DSPy's answer to a plain call, and its errors."""

    def accept(response: Response) -> tuple[Response, Any]:
        # Before anything else is done with it: it was billed.
        record.add_usage(lm.model, usage_dict(response))
        return response, execution._result(lm, response, call, None, estimate=False)

    try:
        with error_boundary(lm.model):
            request = request_of(call)
        with error_boundary(lm.model, unexpected=True):
            stream: FieldStream | None = dspy.settings.send_stream
            if stream is None:
                response, result = accept(await lm._async_engine_spec.complete(request))
            else:
                response, result = await _streamed(lm, request, stream, record, accept)
    except Exception as error:
        execution._hint_responses_api(lm, error)
        raise
    told = {"prompt": call.prompt, "messages": call.messages, "kwargs": call.kwargs}
    lm.update_history({**told, "response": response, "outputs": result.outputs, "model": lm.model})
    return result.outputs


async def _streamed(
    lm: dspy.LM,
    request: Request,
    stream: FieldStream,
    record: CallRecord,
    accept: Callable[[Response], tuple[Response, Any]],
) -> tuple[Response, Any]:
    """What `accept` makes of the whole answer, whose text goes into `stream` as it comes."""
    accumulator, is_emitted, accepted = StreamAccumulator(request), False, None
    events = achecked_stream(lm._async_engine_spec.stream(request))
    try:
        async with aclosing_stream(events):
            async for event in events:
                accumulator.push(event)
                if event.type == "end":
                    accepted = accept(_whole(lm, accumulator, record))
                    stream_emitted()
                elif event.type == "delta":
                    delta = event.delta
                    if not is_emitted and delta.type != "continuation":
                        # From here on no other adapter is asked in this one's place.
                        is_emitted = True
                        stream_emitted()
                    if delta.type == "text":
                        stream.put_text(delta.text)
                    elif delta.type == "thinking":
                        stream.put_thought(delta.text)
    except StreamAssemblyError as error:
        if error.partial is None:
            error.partial = execution._partial(accumulator)
        raise
    assert accepted is not None  # noqa: S101 - a stream without an end raises
    return accepted


def _whole(lm: dspy.LM, accumulator: StreamAccumulator, record: CallRecord) -> Response:
    try:
        return accumulator.response()
    except StreamAssemblyError as error:
        record.add_usage(lm.model, usage_dict(error.partial))  # it was billed, too
        raise


def request_of(call: Any) -> Request:
    """The request that DSPy makes of a call: without looking for what else OpenAI's API has, where
    there are only texts."""
    asked = call.legacy
    options = {
        key: value for key, value in asked.items() if value is not None and key not in _NO_OPTIONS
    }
    system, turns = None, asked["messages"]
    if _is_text(turns[0], ("system",)):
        system, turns = turns[0]["content"], turns[1:]
    if not turns or not options.keys() <= _OPTIONS or not all(map(_is_text, turns)):
        return execution._canonical(call)
    *before, last = ((turn["role"], turn["content"]) for turn in turns)
    messages = (*(_earlier(*turn) for turn in before), _message(*last))
    return Request(asked["model"], messages, system=system, config=Config(**options))


def _message(role: Any, text: str) -> Message:
    return Message(role, (TextPart(text=text),))


_kept_message = lru_cache(_KEPT)(_message)


def _earlier(role: str, text: str) -> Message:
    """A demonstration, or what was said before: it comes with many calls."""
    make = _kept_message if len(text) <= _MAX_KEPT_CHARS else _message
    return make(role, text)


def _is_text(message: Any, roles: Sequence[str] = ("user", "assistant")) -> bool:
    return (
        isinstance(message, dict)
        and message.keys() == {"role", "content"}
        and message["role"] in roles
        and isinstance(message["content"], str)
    )
