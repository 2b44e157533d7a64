"""A plain stream is what DSPy makes of it: the same chunks, answer, errors and account."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import dspy
import pytest
from dspex_bridge.engine import plain_calls
from dspex_bridge.engine.field_parsers import ChatParser
from dspex_bridge.engine.lm import LM
from dspex_bridge.engine.streaming import (
    NATIVE_SETTING,
    PARSER_SETTING,
    STREAM_SETTING,
    FieldStream,
)
from dspex_bridge.streams import ChunkStream
from dspy import lm15
from dspy.clients.call_context import adapter_fallback_scope
from dspy.lm15 import StreamDeltaEvent as Delta
from dspy.lm15 import StreamEndEvent as End
from dspy.lm15 import StreamStartEvent as Start
from hypothesis import example, given, settings
from hypothesis import strategies as st

USAGE = lm15.Usage(input_tokens=7, output_tokens=5)
BOUND_S = 20.0

START = Start(id="1", model="m")
END = End(finish_reason="stop", usage=USAGE)
HEADER = Delta(lm15.TextDelta("[[ ## answer ## ]]\n"))


def text(piece: str, **more: Any) -> Delta:
    return Delta(lm15.TextDelta(piece, **more))


def tool(piece: str, **more: Any) -> Delta:
    return Delta(lm15.ToolCallDelta(piece, part_index=3, **more))


ANSWER = [START, HEADER, text("Par"), text("is"), END]
FAILED = lm15.StreamErrorEvent(lm15.ErrorDetail(code="rate_limit", message="slow down"))

STREAMS: dict[str, list[Any]] = {
    "an answer": ANSWER,
    "thoughts": [START, Delta(lm15.ThinkingDelta("Hm.")), *ANSWER[1:]],
    "an empty piece": [START, text(""), END],
    "no piece": [START, END],
    "two parts": [START, HEADER, text("Par"), text("is", part_index=1), END],
    "tool calls": [START, tool('{"at":', id="c1", name="look"), tool("1}"), END],
    "a tool without a name": [START, text("Par"), tool("{}", id="c1"), END],
    "a citation": [START, text("Par"), Delta(lm15.CitationDelta(title="A")), END],
    "an image": [START, Delta(lm15.ImageDelta(url="http://a/b.png")), END],
    "a cut": [*ANSWER[:-1], End(finish_reason="length", usage=USAGE)],
    "a content filter": [*ANSWER[:-1], End(finish_reason="content_filter", usage=USAGE)],
    "no usage": [*ANSWER[:-1], End(finish_reason="stop")],
    "no reason": [*ANSWER[:-1], End()],
    "nothing": [],
    "no start": ANSWER[1:],
    "two starts": [START, *ANSWER],
    "no end": ANSWER[:-1],
    "more after its end": [*ANSWER, text("!")],
    "two ends": [*ANSWER, END],
    "no event": [START, HEADER, "Paris", END],
    "an error at once": [FAILED],
    "an error in between": [*ANSWER[:-1], FAILED],
    "an error after its end": [*ANSWER, FAILED],
    "a failure of the engine": [*ANSWER[:-1], partial(RuntimeError, "a bug")],
    "a failure after its end": [*ANSWER, partial(RuntimeError, "a bug")],
    "a lost connection": [*ANSWER[:-1], partial(lm15.TransportError, "reset")],
    "the wrong API": [partial(lm15.InvalidRequestError, "ask at /v1/responses", status=400)],
    "DSPy's own error": [*ANSWER[:-1], partial(dspy.LMError, "broken")],
}


class BlockingEngine:
    """What an LM has for DSPy's blocking calls, of which there are none here."""

    supports_function_calling = supports_reasoning = supports_response_schema = True
    supported_params = frozenset({"response_format"})

    def complete(self, request: lm15.Request) -> lm15.Response:
        raise NotImplementedError("nothing here blocks")


class Engine:
    """Streams the events of a script. A `partial` in it makes an error that is raised, new each
    time: DSPy writes into errors."""

    def __init__(self, script: list[Any], can_be_closed: bool = True) -> None:
        self._script = script
        self._can_be_closed = can_be_closed
        self.asked: list[lm15.Request] = []
        self.closed = 0
        self.is_waiting = asyncio.Event()

    async def complete(self, request: lm15.Request) -> lm15.Response:
        raise NotImplementedError("it is asked for streams alone")

    def stream(self, request: lm15.Request) -> AsyncIterator[Any]:
        self.asked.append(request)
        self._events = iter(self._script)
        return self

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        for event in self._events:
            if isinstance(event, partial):
                raise event()
            if event is Engine:  # it hangs here
                self.is_waiting.set()
                await asyncio.Event().wait()
            return event
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1
        if not self._can_be_closed:
            raise RuntimeError("it does not close")


class Client:
    """Takes chunks, and breaks at one of them."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self.chunks: list[tuple[Any, ...]] = []
        self._breaks_at = breaks_at
        self.stream = FieldStream(ChunkStream(self._prepare, 1000), ["answer", "reasoning"])

    def _prepare(self, chunk: dict[str, Any]) -> Callable[[str], bool]:
        def take(text: str) -> bool:
            if len(self.chunks) == self._breaks_at:
                raise RuntimeError("it is full")
            self.chunks.append((*chunk.values(), text))
            return True

        return take


def outcome(
    script: list[Any],
    *,
    can_be_closed: bool = True,
    breaks_at: int | None = None,
    is_cancelled: bool = False,
    **asked: Any,
) -> dict[str, Any]:
    """All that can be seen of one call."""
    engine, client, told = Engine(script, can_be_closed), Client(breaks_at), []

    class Recorder:
        def add_call(self, entry: dict[str, Any]) -> None:
            told.append({key: entry[key] for key in ("prompt", "messages", "outputs", "response")})

    lm = LM("main", "demo/x", retries=0, cache=False, engine=BlockingEngine(), async_engine=engine)

    async def call() -> Any:
        running = asyncio.ensure_future(
            lm.acall(messages=[{"role": "user", "content": "Where?"}], **asked)
        )
        if is_cancelled:
            await asyncio.wait_for(engine.is_waiting.wait(), BOUND_S)
            running.cancel()
        return await running

    found: dict[str, Any] = {}
    with (
        dspy.context(
            send_stream=client.stream,
            dspex_recorder=Recorder(),
            disable_history=True,
            **{
                STREAM_SETTING: client.stream,
                PARSER_SETTING: lambda: ChatParser({"answer"}),
                NATIVE_SETTING: "reasoning",
            },
        ),
        adapter_fallback_scope() as progress,
    ):
        try:
            found["outputs"] = asyncio.run(call())
            client.stream.finish({"answer": "Paris"})
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - whatever it is
            found["error"] = (type(error), str(error), described(error), described(error.__cause__))
    total = {name: getattr(lm.total, name) for name in lm.total.__slots__}
    return {
        **found,
        "asked": engine.asked,
        "closed": engine.closed,
        "chunks": client.chunks,
        "told": told,
        "total": total,
        "is_emitted": progress.emitted,
    }


def described(error: BaseException | None) -> Any:
    """An error with all that was put into it, other errors by what they say."""
    if error is None:
        return None
    notes = {key: repr(value) for key, value in vars(error).items()}
    return (type(error), str(error), notes)


@pytest.fixture
def by_dspy(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """What comes of a call that is made by DSPy from its beginning to its end."""

    def run(*args: Any, **kwargs: Any) -> dict[str, Any]:
        with monkeypatch.context() as patch:
            patch.setattr(plain_calls, "is_plain", lambda *_: False)
            return outcome(*args, **kwargs)

    return run


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_what_dspy_makes_of_it(
    name: str, by_dspy: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected = by_dspy(STREAMS[name])
    logged = [record.getMessage() for record in caplog.records]
    caplog.clear()
    assert outcome(STREAMS[name]) == expected
    assert [record.getMessage() for record in caplog.records] == logged
    assert (len(expected["asked"]), expected["closed"]) == (1, 1)


@pytest.mark.parametrize("name", STREAMS)
def test_where_the_engine_cannot_be_closed_it_is_what_dspy_makes_of_it(
    name: str, by_dspy: Any
) -> None:
    expected = by_dspy(STREAMS[name], can_be_closed=False)
    assert outcome(STREAMS[name], can_be_closed=False) == expected
    assert "error" in expected


@pytest.mark.parametrize("breaks_at", [0, 1])
def test_where_a_chunk_cannot_be_sent_it_is_what_dspy_makes_of_it(
    breaks_at: int, by_dspy: Any
) -> None:
    expected = by_dspy(ANSWER, breaks_at=breaks_at)
    assert outcome(ANSWER, breaks_at=breaks_at) == expected
    assert "error" in expected
    assert len(expected["chunks"]) == breaks_at


@pytest.mark.parametrize("events", [1, 3, 5])
def test_where_it_is_cancelled_it_is_what_dspy_makes_of_it(events: int, by_dspy: Any) -> None:
    script = [*ANSWER[:events], Engine]
    expected = by_dspy(script, is_cancelled=True)
    assert outcome(script, is_cancelled=True) == expected
    assert expected["error"][0] is asyncio.CancelledError
    assert expected["closed"] == 1


@pytest.mark.parametrize(
    "asked", [{"temperature": 0.5, "max_tokens": 9}, {"top_p": 0.2}, {"n": 2}, {"colour": "blue"}]
)
def test_a_stream_asks_for_what_dspy_asks_for(asked: dict[str, Any], by_dspy: Any) -> None:
    assert outcome(ANSWER, **asked) == by_dspy(ANSWER, **asked)


def test_most_streams_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the others here compare DSPy with itself."""
    made = []
    streamed = plain_calls._streamed

    async def noted(*args: Any) -> Any:
        made.append(args)
        return await streamed(*args)

    monkeypatch.setattr(plain_calls, "_streamed", noted)
    found = outcome(ANSWER)
    assert len(made) == 1
    assert found["outputs"] == ["[[ ## answer ## ]]\nParis"]
    assert found["chunks"] == [
        ("answer", 1, False, "Par"),
        ("answer", 1, False, "is"),
        ("answer", 1, True, ""),
    ]
    assert found["total"]["total_tokens"] == 12
    outcome(ANSWER, n=2)
    assert len(made) == 1


pieces = st.text(max_size=6)
deltas = st.one_of(
    pieces.map(text),
    st.sampled_from(["[[ ## answer ## ]]\n", "\n[[ ## completed ## ]]", "\n", " "]).map(text),
    st.builds(lambda piece, index: text(piece, part_index=index), pieces, st.integers(0, 2)),
    pieces.map(lambda piece: Delta(lm15.ThinkingDelta(piece))),
    st.builds(tool, pieces, name=st.none() | st.just("look"), id=st.none() | st.just("c1")),
    st.just(Delta(lm15.CitationDelta(text="so", url="http://a"))),
    st.just(Delta(lm15.ContinuationDelta("openai", "opaque", {"a": 1}))),
    st.just(Delta(lm15.AudioDelta(data="AAAA", media_type="audio/wav"))),
)
ends = st.sampled_from([END, End(), End(finish_reason="length"), End(finish_reason="tool_call")])
odd = st.sampled_from(
    [START, END, FAILED, None, partial(RuntimeError, "a bug"), partial(lm15.ServerError, "down")]
)


@settings(max_examples=100, deadline=None)
@given(st.lists(deltas, max_size=8), ends, st.lists(odd, max_size=1), st.integers(0, 9))
@example([HEADER, text("Paris")], END, [], 0)
def test_any_stream_is_what_dspy_makes_of_it(
    middle: list[Any], end: Any, disturbances: list[Any], place: int
) -> None:
    script = [START, *middle, end]
    script[place:place] = disturbances
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_calls, "is_plain", lambda *_: False)
        expected = outcome(script)
    assert outcome(script) == expected
