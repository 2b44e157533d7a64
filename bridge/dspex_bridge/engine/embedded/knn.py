"""`demo/knn`: the embedded language model, which is none.

It has no weights, no network and no key. It reads a prompt of DSPy's Chat, JSON or XML adapter
back into fields, demonstrations and inputs, and answers in the form that the adapter asked for:

- with demonstrations by nearest neighbour over their inputs (`neighbours`): the nearest one's
  outputs; options are voted on and numbers averaged over the three nearest;
- without any by extraction from the inputs, by each output's name, description and type
  (`extract`), or else a default of the type.

It is for a first run and for tests, where it makes typed programs, demonstrations, optimizers
and errors of one's own work without a provider. What it does not know: what words mean, any
instruction (a task's objective is not read), conversation history, images, tools, and the
optimizers' own prompts, which are signatures like any other to it. It answers every type that a
prompt tells so that the adapter can read it. Two the prompts do not tell: the types inside a model
under the XML adapter (without demonstrations each is answered with "0", which text, numbers,
booleans, dates and datetimes can be read from, but no Literal, enumeration, map, tuple, time or
number that must be above 0), and, under the Chat and XML adapters, the values of an enumeration
that are not text.

The same request has the same answer in every process: there is no randomness, no clock and no
dependence on hashing. Temperature, seeds, penalties and reasoning effort therefore change
nothing; `max_tokens` and `stop` cut the answer as they do elsewhere. Usage counts words (runs of
letters, digits and underscores) and punctuation marks, one token each.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, Final, TypeAlias

from dspy.clients.engines.base import validate_request
from dspy.lm15 import (
    Message,
    Request,
    Response,
    StreamDeltaEvent,
    StreamEndEvent,
    StreamStartEvent,
    TextDelta,
    TextPart,
    UnsupportedFeatureError,
    Usage,
)

from .extract import Hint, extract
from .fields import Field
from .neighbours import Settled, settle, similarities
from .prompts import Prompt, Turn, read_prompt
from .source import Source, shortened

__all__ = ["MODEL", "AsyncKnnEngine", "KnnEngine", "count_tokens"]

MODEL: Final = "demo/knn"

StreamEvent: TypeAlias = StreamStartEvent | StreamDeltaEvent | StreamEndEvent

# Characters of a prompt up to which the async engine answers on the event loop (measured: 10 ms
# at most); longer ones go to a thread.
INLINE_LIMIT: Final = 15_000
# Words in one delta of a stream.
DELTA_WORDS: Final = 4
QUOTE_LIMIT: Final = 60

UNREADABLE: Final = (
    "demo/knn is no language model. It answers prompts of DSPy's Chat, JSON and XML adapters by "
    "nearest neighbour over their demonstrations or by extraction from their inputs, and it "
    "could not read this one as such. Configure a real LM for anything else."
)

_TOKEN: Final = re.compile(r"\w+|[^\w\s]")
_DELTA: Final = re.compile(rf"(?:\s*\S+){{1,{DELTA_WORDS}}}\s*|\s+")


class KnnEngine:
    """The engine of `demo/knn`: `dspy.LM("demo/knn", engine=KnnEngine())`."""

    supported_params = frozenset({"max_tokens", "stop", "response_format"})
    supports_response_schema = True
    supports_function_calling = False
    supports_reasoning = False

    def complete(self, request: Request) -> Response:
        """The answer. UnsupportedFeatureError where tools or log probabilities are asked for."""
        validate_request(request)
        _refuse(request)
        system = _system(request)
        turns = [Turn(message.role, _text(message.parts)) for message in request.messages]
        prompt = read_prompt(system, turns, request.config.response_format)
        text = UNREADABLE if prompt is None else _answer(prompt)
        text, is_cut = _cut(text, request.config.max_tokens, request.config.stop)
        return Response(
            id=None,
            model=MODEL,
            message=Message.assistant(text),
            finish_reason="length" if is_cut else "stop",
            usage=Usage(
                input_tokens=sum(count_tokens(part) for part in (system, *(t.text for t in turns))),
                output_tokens=count_tokens(text),
            ),
        )

    def stream(self, request: Request) -> Iterator[StreamEvent]:
        """The same answer in deltas of a few words."""
        yield from _events(self.complete(request))

    def close(self) -> None:
        """Nothing is held open."""


class AsyncKnnEngine:
    """The same for DSPy's async calls."""

    def __init__(self) -> None:
        self._engine = KnnEngine()

    async def complete(self, request: Request) -> Response:
        """As `KnnEngine.complete`."""
        size = len(_system(request)) + sum(len(_text(turn.parts)) for turn in request.messages)
        if size > INLINE_LIMIT:
            return await asyncio.to_thread(self._engine.complete, request)
        return self._engine.complete(request)

    async def stream(self, request: Request) -> AsyncIterator[StreamEvent]:
        """As `KnnEngine.stream`."""
        for event in _events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """Nothing is held open."""


def count_tokens(text: str) -> int:
    """The words and punctuation marks of a text."""
    return _TOKEN.subn("", text)[1]  # counts in C, and keeps no list of them


def _refuse(request: Request) -> None:
    for feature, is_asked in (
        ("tools", bool(request.tools)),
        ("logprobs", request.config.logprobs is not None),
        ("probabilities", request.config.probabilities == "required"),
    ):
        if is_asked:
            raise UnsupportedFeatureError(
                f"demo/knn has no {feature}; configure a real LM for them"
            )


def _system(request: Request) -> str:
    if request.system is None or isinstance(request.system, str):
        return request.system or ""
    return _text(request.system)


def _text(parts: tuple[Any, ...]) -> str:
    """The text of a message; images and other media are left out."""
    return "\n".join(part.text for part in parts if isinstance(part, TextPart))


def _cut(text: str, max_tokens: int | None, stop: tuple[str, ...]) -> tuple[str, bool]:
    """The text up to a stop sequence, and up to max_tokens with whether that cut it."""
    ends = [text.find(sequence) for sequence in stop]
    text = text[: min((end for end in ends if end >= 0), default=len(text))]
    if max_tokens is not None:
        following = next(islice(_TOKEN.finditer(text), max_tokens, None), None)
        if following is not None:
            return text[: following.start()].rstrip(), True
    return text, False


def _events(response: Response) -> Iterator[StreamEvent]:
    yield StreamStartEvent(id=response.id, model=response.model)
    for match in _DELTA.finditer(response.text or ""):
        yield StreamDeltaEvent(delta=TextDelta(text=match[0]))
    yield StreamEndEvent(finish_reason=response.finish_reason, usage=response.usage)


def _answer(prompt: Prompt) -> str:
    """The answer to a prompt, in its form."""
    explained = _reasoning_field(prompt)
    fields = [field for field in prompt.outputs if field is not explained]
    settled, reasoning = _by_neighbours(prompt, fields)
    source = Source(prompt.inputs)
    values = {
        field.name: settled[field.name].value
        if field.name in settled
        else extract(source, field.schema, Hint(field.name, field.description))
        for field in fields
    }
    if explained is not None:
        values[explained.name] = reasoning
    return prompt.form.answer(values, prompt.outputs)


def _reasoning_field(prompt: Prompt) -> Field | None:
    """The field that ChainOfThought puts before the others."""
    first, *others = prompt.outputs
    return first if others and first.name == "reasoning" and first.is_text else None


def _by_neighbours(prompt: Prompt, fields: list[Field]) -> tuple[dict[str, Settled], str]:
    """What the demonstrations settle, by field name, and one sentence that says how."""
    names = {field.name for field in fields}
    useful = [demo for demo in prompt.demonstrations if names.intersection(demo.outputs)]
    if not useful:
        return {}, (
            "There are no demonstrations to compare with; "
            "the outputs are extracted from the inputs by field name and type."
        )
    close = similarities([demo.inputs for demo in useful], prompt.inputs)
    # The sort is stable: of equally close demonstrations the earlier stays first.
    order = sorted(range(len(useful)), key=lambda index: -close[index])
    settled = {}
    for field in fields:
        ranked = [
            (close[index], useful[index].outputs[field.name])
            for index in order
            if field.name in useful[index].outputs
        ]
        if ranked:
            settled[field.name] = settle(ranked, field.schema)
    nearest = useful[order[0]]
    quote = shortened(" ".join(" / ".join(nearest.inputs.values()).split()), QUOTE_LIMIT)
    noun = "demonstration" if len(useful) == 1 else "demonstrations"
    start = f'The nearest of {len(useful)} {noun} (similarity {close[order[0]]:.2f}) is "{quote}"'
    return settled, f"{start}; {_account(fields, settled, nearest.outputs)}."


def _account(fields: list[Field], settled: dict[str, Settled], nearest: Any) -> str:
    """Which outputs came about how."""
    ways: dict[str, list[str]] = {}
    for field in fields:
        if field.name not in settled:
            way = "extracted from the inputs"
        elif settled[field.name].how == "voted":
            way = "voted on by the nearest"
        elif settled[field.name].how == "averaged":
            way = "averaged over the nearest"
        elif field.name in nearest:
            way = "repeated"
        else:
            way = "repeated from the nearest that has one"
        ways.setdefault(way, []).append(field.name)
    if list(ways) == ["repeated"]:
        return "its outputs are repeated"
    return "; ".join(f"{', '.join(names)}: {way}" for way, names in ways.items())
