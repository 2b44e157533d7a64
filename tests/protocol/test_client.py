"""The asyncio client, against a scripted peer at the other end of a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import os
import socket
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

import pytest
from dspex_protocol import peer as peer_module
from dspex_protocol.client import Client
from dspex_protocol.codec import EncodeError, encode
from dspex_protocol.connection import Answered, Connection, Event, Ignored
from dspex_protocol.errors import (
    ERRORS,
    ConnectionLostError,
    DSPexError,
    FrameTooLargeError,
    InternalError,
    NotFoundError,
    ParseError,
    RequestCancelledError,
    UnsupportedVersionError,
)
from dspex_protocol.framing import SMALLEST_MAX_FRAME_BYTES, frame
from dspex_protocol.messages import Notification, Request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

# Whatever waits here waits for an event that has happened or will at once.
BOUND_S = 10.0

P = ParamSpec("P")
T = TypeVar("T")

LIMIT = SMALLEST_MAX_FRAME_BYTES


def bounded(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs an asynchronous test, which must leave no task and no unheard failure behind."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(asyncio.wait_for(whole(*args, **kwargs), BOUND_S))

    async def whole(*args: P.args, **kwargs: P.kwargs) -> None:
        unheard: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        assert asyncio.all_tasks() == before, "tasks were left behind"
        gc.collect()
        assert unheard == []

    return run


class Peer:
    """A bridge by script: it sees what the client sent, and sends what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.connection = Connection()
        self.initialize: dict[str, Any] = {}
        self._events: list[Event] = []

    async def next(self) -> Event:
        """What the client sent next."""
        while not self._events:
            data = await self.reader.read(65536)
            assert data, "the client closed the connection"
            self._events += self.connection.receive_data(data)
        return self._events.pop(0)

    async def request(self, method: str | None = None) -> Request:
        event = await self.next()
        assert isinstance(event, Request), event
        assert method in (None, event.method)
        return event

    async def notification(self, method: str) -> dict[str, Any]:
        event = await self.next()
        assert isinstance(event, Notification), event
        assert event.method == method
        return event.params

    async def answered(self) -> Answered:
        event = await self.next()
        assert isinstance(event, Answered), event
        return event

    def result(self, request: Request, result: Any) -> None:
        self.connection.send_result(request, result)
        self.flush()

    def error(self, request: Request, error: DSPexError) -> None:
        self.connection.send_error(request, error)
        self.flush()

    def ask(self, method: str, **params: Any) -> int:
        request_id = self.connection.send_request(method, params)
        self.flush()
        return request_id

    def tell(self, method: str, **params: Any) -> None:
        self.connection.send_notification(method, params)
        self.flush()

    def raw(self, payload: bytes) -> None:
        self.writer.write(frame(payload))

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    async def greet(self, max_frame_bytes: int = 16 * 1024 * 1024) -> None:
        request = await self.request("initialize")
        self.initialize = request.params
        self.result(request, {"limits": {"max_frame_bytes": max_frame_bytes, "more": 1}, "new": 2})

    async def is_left(self) -> bool:
        """Whether the client has closed its side, and sent nothing more."""
        return await self.reader.read() == b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@asynccontextmanager
async def sockets() -> AsyncIterator[tuple[Peer, asyncio.StreamReader, asyncio.StreamWriter]]:
    ours, theirs = socket.socketpair()
    peer = Peer(*await asyncio.open_connection(sock=theirs))
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        yield peer, reader, writer
    finally:
        await peer.close()
        writer.close()


@asynccontextmanager
async def connected(
    *, peer_limit: int = 16 * 1024 * 1024, **options: Any
) -> AsyncIterator[tuple[Client, Peer]]:
    async with sockets() as (peer, reader, writer):
        client, _ = await asyncio.gather(
            Client.attach(reader, writer, **options), peer.greet(peer_limit)
        )
        async with client:
            yield client, peer


def started(waiting: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.create_task(waiting)


# Introduction


@bounded
async def test_a_client_introduces_itself_and_says_its_limit() -> None:
    async with connected(max_frame_bytes=50_000, log_level="info") as (_, peer):
        assert peer.initialize.pop("client").keys() == {"name", "version"}
        assert peer.initialize == {
            "protocol_version": 1,
            "max_frame_bytes": 50_000,
            "log_level": "info",
        }


@bounded
async def test_a_request_over_the_limit_that_the_bridge_told_is_not_sent() -> None:
    async with connected(peer_limit=LIMIT) as (client, peer):
        with pytest.raises(FrameTooLargeError, match="over the peer's limit of 4096"):
            await client.ping("x" * LIMIT)
        answer = started(client.ping("small"))
        request = await peer.request("ping")
        assert request.params == {"payload": "small"}
        peer.result(request, {"payload": "small"})
        assert await answer == "small"


@bounded
async def test_a_bridge_of_another_version_is_told_apart_and_left() -> None:
    async with sockets() as (peer, reader, writer):
        attaching = started(Client.attach(reader, writer))
        refusal = UnsupportedVersionError("not spoken here", data={"supported": [2]})
        peer.error(await peer.request("initialize"), refusal)
        with pytest.raises(UnsupportedVersionError) as raised:
            await attaching
        assert raised.value.data == {"supported": [2]}
        assert await peer.is_left()


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"limits": None},
        {"limits": {}},
        {"limits": {"max_frame_bytes": "many"}},
        {"limits": {"max_frame_bytes": LIMIT - 1}},
    ],
    ids=repr,
)
@bounded
async def test_what_does_not_answer_like_a_bridge_is_said_to_be_none_and_left(answer: Any) -> None:
    async with sockets() as (peer, reader, writer):
        attaching = started(Client.attach(reader, writer))
        peer.result(await peer.request("initialize"), answer)
        with pytest.raises(InternalError, match="is this a DSPex bridge") as raised:
            await attaching
        assert "limits.max_frame_bytes" in str(raised.value)
        assert await peer.is_left()


@bounded
async def test_an_introduction_that_is_cancelled_leaves_the_bridge() -> None:
    async with sockets() as (peer, reader, writer):
        attaching = started(Client.attach(reader, writer))
        await peer.request("initialize")
        attaching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attaching
        assert await peer.notification("cancel") == {"id": 0}
        assert await peer.is_left()


# Requests and answers

CALLS: dict[str, tuple[Callable[[Client], Awaitable[Any]], str, dict[str, Any], Any, Any]] = {
    "ping": (lambda c: c.ping([1]), "ping", {"payload": [1]}, {"payload": [1]}, [1]),
    "ping of nothing": (lambda c: c.ping(), "ping", {}, {"payload": None}, None),
    "configure": (
        lambda c: c.configure(lms={"main": {"model": "demo/knn"}}, default_lm=None),
        "configure",
        {"lms": {"main": {"model": "demo/knn"}}},
        {"lms": {}},
        {"lms": {}},
    ),
    "create": (
        lambda c: c.create("a -> b", program="p", module="predict", timeout_ms=5),
        "create",
        {"signature": "a -> b", "program": "p", "module": "predict", "timeout_ms": 5},
        {"program": "p"},
        {"program": "p"},
    ),
    "execute": (
        lambda c: c.execute("p", {"a": 1}, lm="main", timeout_ms=9),
        "execute",
        {"program": "p", "inputs": {"a": 1}, "lm": "main", "timeout_ms": 9},
        {"outputs": {}},
        {"outputs": {}},
    ),
    "describe": (lambda c: c.describe("p"), "describe", {"program": "p"}, {}, {}),
    "list": (lambda c: c.list(), "list", {}, {"programs": [{"program": "p"}]}, [{"program": "p"}]),
    "list of a prefix": (lambda c: c.list("x"), "list", {"prefix": "x"}, {"programs": []}, []),
    "delete": (lambda c: c.delete("p"), "delete", {"program": "p"}, {"deleted": True}, None),
    "dump": (lambda c: c.dump("p"), "dump", {"program": "p"}, {"state": {"a": 1}}, {"a": 1}),
    "load": (
        lambda c: c.load({"a": 1}, replace=True),
        "load",
        {"state": {"a": 1}, "replace": True},
        {"program": "p"},
        {"program": "p"},
    ),
    "load from a file": (
        lambda c: c.load(path="a/p.json", program="p"),
        "load",
        {"path": "a/p.json", "program": "p", "replace": False},
        {"program": "p"},
        {"program": "p"},
    ),
    "save": (
        lambda c: c.save("p", "a/p.json"),
        "save",
        {"program": "p", "path": "a/p.json"},
        {"path": "a/p.json", "bytes": 7},
        {"path": "a/p.json", "bytes": 7},
    ),
    "batch": (
        lambda c: c.batch("p", [{"q": 1}], timeout_ms=5, on_error="halt", lm=None),
        "batch",
        {"program": "p", "inputs": [{"q": 1}], "on_error": "halt", "timeout_ms": 5},
        {"results": []},
        {"results": []},
    ),
    "evaluate": (
        lambda c: c.evaluate("p", [{"inputs": {}, "outputs": {}}], {"name": "f1"}, results=False),
        "evaluate",
        {
            "program": "p",
            "devset": [{"inputs": {}, "outputs": {}}],
            "metric": {"name": "f1"},
            "results": False,
        },
        {"score": 1.0},
        {"score": 1.0},
    ),
    "stats": (lambda c: c.stats(), "stats", {}, {"in_flight": 1}, {"in_flight": 1}),
    "shutdown": (lambda c: c.shutdown(), "shutdown", {}, {"completed": 0}, {"completed": 0}),
    "shutdown with a limit": (
        lambda c: c.shutdown(100),
        "shutdown",
        {"drain_ms": 100},
        {"completed": 0},
        {"completed": 0},
    ),
    "any other": (lambda c: c.request("tea", {"a": None}), "tea", {}, "no map", "no map"),
}


@pytest.mark.parametrize(
    ("call", "method", "params", "result", "value"), CALLS.values(), ids=CALLS.keys()
)
@bounded
async def test_a_method_sends_its_parameters_and_gives_back_its_result(
    call: Callable[[Client], Coroutine[Any, Any, Any]],
    method: str,
    params: dict[str, Any],
    result: Any,
    value: Any,
) -> None:
    async with connected() as (client, peer):
        answer = started(call(client))
        request = await peer.request(method)
        assert request.params == params
        peer.result(request, result)
        assert await answer == value


@bounded
async def test_an_error_is_raised_as_its_class() -> None:
    async with connected() as (client, peer):
        for cls in ERRORS.values():
            answer = started(client.request("execute"))
            error = cls("what happened", data={"kind": "x"}, retryable=True)
            peer.error(await peer.request(), error)
            with pytest.raises(cls) as raised:
                await answer
            assert type(raised.value) is cls
            assert raised.value.to_wire() == error.to_wire()


@bounded
async def test_an_error_of_a_code_to_come_is_an_internal_error() -> None:
    async with connected() as (client, peer):
        answer = started(client.ping())
        request = await peer.request()
        peer.raw(encode([1, request.id, {"code": "of_2030", "message": "m"}, None]))
        with pytest.raises(InternalError, match=r"^m$"):
            await answer


@bounded
async def test_many_requests_are_in_flight_at_once_and_answered_in_any_order() -> None:
    async with connected() as (client, peer):
        answers = [started(client.ping(number)) for number in range(100)]
        requests = [await peer.request("ping") for _ in answers]
        for request in reversed(requests):
            peer.result(request, request.params)
        assert await asyncio.gather(*answers) == list(range(100))


@bounded
async def test_a_value_that_cannot_be_sent_is_refused_and_the_next_request_works() -> None:
    async with connected() as (client, peer):
        with pytest.raises(EncodeError, match=r"builtins\.object has no form on the wire"):
            await client.execute("p", {"a": object()})
        answer = started(client.ping(1))
        peer.result(await peer.request("ping"), {"payload": 1})
        assert await answer == 1


UNREADABLE = {
    "not one value": (b"\x94\1\1\xc0\xc1", ParseError),
    "over the client's limit": (b"\x94\1\1\xc0" + bytes(LIMIT), FrameTooLargeError),
    "malformed": (b"\x92\1\1", InternalError),
}


@pytest.mark.parametrize(("data", "error"), UNREADABLE.values(), ids=UNREADABLE.keys())
@bounded
async def test_an_answer_that_cannot_be_read_is_an_error_and_nobody_waits_for_ever(
    data: bytes, error: type[DSPexError]
) -> None:
    async with connected(max_frame_bytes=LIMIT) as (client, peer):
        answer = started(client.ping())
        assert (await peer.request()).id == 1
        peer.raw(data)
        with pytest.raises(error):
            await answer


@bounded
async def test_a_bad_frame_from_the_bridge_is_refused_and_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected() as (client, peer):
        answer = started(client.ping(1))
        request = await peer.request()
        peer.raw(b"\xc1")
        peer.raw(encode([1, 99, None, {}]))
        peer.raw(encode([2, "log"]))
        peer.result(request, {"payload": 1})
        assert await answer == 1
        refused = await peer.next()
        assert isinstance(refused, Ignored)
        assert "a byte that MessagePack reserves" in refused.reason
    assert [record.getMessage() for record in caplog.records] == [
        "a bad frame from the bridge was refused: not one whole MessagePack value: "
        "it has a byte that MessagePack reserves (0xC1)",
        "a response to request 99, which is not in flight",
        "a notification is [2, method, params]",
    ]


# Cancel


@bounded
async def test_a_task_that_is_cancelled_cancels_its_request_and_drops_the_late_answer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected() as (client, peer):
        answer = started(client.execute("p", {}))
        request = await peer.request("execute")
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        assert await peer.notification("cancel") == {"id": request.id}
        peer.result(request, {"too": "late"})
        follow_up = started(client.ping(1))
        second = await peer.request("ping")
        assert second.id != request.id
        peer.result(second, {"payload": 1})
        assert await follow_up == 1
    assert caplog.records == []


@bounded
async def test_a_request_that_was_answered_is_not_cancelled() -> None:
    async with connected() as (client, peer):
        answer = started(client.ping(1))
        request = await peer.request()
        peer.result(request, {"payload": 1})
        assert await answer == 1
        answer.cancel()
        follow_up = started(client.ping(2))
        second = await peer.request("ping")  # and no cancel before it
        peer.result(second, {"payload": 2})
        await follow_up


@bounded
async def test_a_deadline_of_the_callers_own_cancels_its_request() -> None:
    async with connected() as (client, peer):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.execute("p", {}), 0.01)
        request = await peer.request("execute")
        assert await peer.notification("cancel") == {"id": request.id}
        peer.error(request, RequestCancelledError("cancelled"))


@bounded
async def test_a_request_to_a_bridge_that_does_not_read_can_be_cancelled() -> None:
    async with connected() as (client, peer):
        large = started(client.ping(b"x" * 8 * 1024 * 1024))
        # Only what the pipe takes is written; the request waits for the rest to be.
        await write_buffer_fills(client)
        large.cancel()
        with pytest.raises(asyncio.CancelledError):
            await large
        # The peer reads at last, and finds the request and then its cancel.
        request = await peer.request("ping")
        assert await peer.notification("cancel") == {"id": request.id}


async def write_buffer_fills(client: Client) -> None:
    while not client._writer.transport.get_write_buffer_size():
        await asyncio.sleep(0)


# Notifications


@bounded
async def test_a_notification_about_a_request_reaches_its_listener_and_others_the_general_one() -> (
    None
):
    general: list[Notification] = []
    own: list[Notification] = []
    async with connected(listener=general.append) as (client, peer):
        heard = started(client.execute("p", {}, listener=own.append))
        request = await peer.request("execute")
        unheard = started(client.execute("q", {}))
        second = await peer.request("execute")
        for method in ("chunk", "item", "progress"):
            peer.tell(method, id=request.id, text="mine")
            peer.tell(method, id=second.id, text="no listener of its own")
        peer.tell("ready", dspy="3.4.1")
        peer.tell("log", message="m", request=request.id, id=request.id)
        peer.tell("tea")
        peer.result(request, {})
        peer.result(second, {})
        await asyncio.gather(heard, unheard)
        assert [one.method for one in own] == ["chunk", "item", "progress"]
        assert {one.params["text"] for one in own} == {"mine"}
        assert [one.method for one in general] == [
            "chunk",
            "item",
            "progress",
            "ready",
            "log",
            "tea",
        ]


@bounded
async def test_what_comes_about_a_request_that_has_ended_reaches_nobody() -> None:
    general: list[Notification] = []
    own: list[Notification] = []
    async with connected(listener=general.append) as (client, peer):
        answer = started(client.execute("p", {}, listener=own.append))
        request = await peer.request("execute")
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
        await peer.notification("cancel")
        peer.tell("chunk", id=request.id, text="on its way when it was cancelled")
        await round_trip(client, peer)
        assert own == general == []


@pytest.mark.parametrize("about", [None, [], {}, "1", 1.0, True, -1, 2**70], ids=repr)
@bounded
async def test_a_notification_about_no_id_at_all_disturbs_nobody(about: Any) -> None:
    own: list[Notification] = []
    async with connected() as (client, peer):
        answer = started(client.execute("p", {}, listener=own.append))
        request = await peer.request("execute")
        assert request.id == 1
        for method in ("chunk", "log", "cancel"):
            peer.tell(method, id=about)
        peer.result(request, {"ok": 1})
        assert await answer == {"ok": 1}
        assert own == []


@bounded
async def test_a_listener_that_fails_is_logged_and_disturbs_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: Notification) -> None:
        raise RuntimeError("a listener's own fault")

    async with connected() as (client, peer):
        answer = started(client.execute("p", {}, listener=fail))
        request = await peer.request("execute")
        peer.tell("chunk", id=request.id)
        peer.result(request, {"ok": 1})
        assert await answer == {"ok": 1}
    assert [record.getMessage() for record in caplog.records] == ["a listener failed at chunk"]


async def round_trip(client: Client, peer: Peer) -> None:
    """Afterwards the client has handled all that the peer sent before."""
    answer = started(client.ping(0))
    peer.result(await peer.request("ping"), {"payload": 0})
    await answer


# Callbacks


@bounded
async def test_a_request_of_the_bridge_is_answered_by_its_handler() -> None:
    async def call_tool(params: dict[str, Any]) -> Any:
        return {"sum": sum(params["args"]["numbers"])}

    async with connected(handlers={"call_tool": call_tool}) as (_, peer):
        request_id = peer.ask("call_tool", tool="add", args={"numbers": [1, 2]})
        answered = await peer.answered()
        assert (answered.id, answered.error, answered.result) == (request_id, None, {"sum": 3})


@bounded
async def test_handlers_run_at_once_and_send_requests_of_their_own() -> None:
    async with sockets() as (peer, reader, writer):
        clients: list[Client] = []

        async def call_tool(params: dict[str, Any]) -> Any:
            inner = await clients[0].execute(params["program"], {"depth": params["depth"]})
            return {"inner": inner}

        client, _ = await asyncio.gather(
            Client.attach(reader, writer, handlers={"call_tool": call_tool}), peer.greet()
        )
        clients.append(client)
        async with client:
            outer = started(client.execute("outer", {}))
            outer_request = await peer.request("execute")
            tools = [peer.ask("call_tool", program="p", depth=depth) for depth in range(3)]
            inner = [await peer.request("execute") for _ in tools]
            assert [request.params["inputs"] for request in inner] == [
                {"depth": depth} for depth in range(3)
            ]
            for request in reversed(inner):
                peer.result(request, request.params["inputs"])
            results = {}
            for _ in tools:
                answered = await peer.answered()
                results[answered.id] = answered.result
            assert results == {
                tool: {"inner": {"depth": depth}} for depth, tool in enumerate(tools)
            }
            peer.result(outer_request, {"done": True})
            assert await outer == {"done": True}


def raising(error: Exception) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    async def handler(_: dict[str, Any]) -> Any:
        raise error

    return handler


def returning(value: Any) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    async def handler(_: dict[str, Any]) -> Any:
        return value

    return handler


FAILURES: dict[str, tuple[Callable[[dict[str, Any]], Awaitable[Any]], str, str]] = {
    "a DSPex error": (raising(NotFoundError("no such city")), "not_found", "no such city"),
    "an error of another kind": (
        raising(ValueError("not a city")),
        "internal_error",
        "ValueError: not a city",
    ),
    "a local error": (raising(ConnectionLostError("gone")), "internal_error", "gone"),
    "a cancel of its own": (
        raising(asyncio.CancelledError()),  # type: ignore[arg-type]
        "cancelled",
        "the handler was cancelled",
    ),
    "a result without a form": (
        returning(object()),
        "internal_error",
        "the result cannot be sent: a value of type builtins.object has no form on the wire",
    ),
    "a result over the limit": (
        returning("x" * LIMIT),
        "frame_too_large",
        "a frame of 4103 bytes is over the peer's limit of 4096",
    ),
}


@pytest.mark.parametrize(("handler", "code", "message"), FAILURES.values(), ids=FAILURES.keys())
@bounded
async def test_a_handler_that_fails_is_answered_with_an_error_and_the_next_one_runs(
    handler: Callable[[dict[str, Any]], Awaitable[Any]], code: str, message: str
) -> None:
    handlers = {"call_tool": handler, "call_metric": returning(1)}
    async with connected(handlers=handlers, peer_limit=LIMIT) as (_, peer):
        peer.ask("call_tool")
        answered = await peer.answered()
        assert answered.error is not None
        assert (answered.error.code, answered.error.message) == (code, message)
        peer.ask("call_metric")
        assert (await peer.answered()).result == 1


@bounded
async def test_a_request_that_nobody_handles_is_no_method() -> None:
    async with connected() as (_, peer):
        peer.ask("call_tool")
        answered = await peer.answered()
        assert answered.error is not None
        assert answered.error.code == "method_not_found"
        assert answered.error.message == "this client has no 'call_tool'"


class Handler:
    """A handler that says when it has begun and how it ended, and takes its time to end."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended = asyncio.Event()
        self.cleaned_up = False
        self.calls = 0

    async def __call__(self, _: dict[str, Any]) -> Any:
        self.calls += 1
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
            try:
                await self.may_end.wait()
                self.cleaned_up = True
            finally:
                self.ended.set()


@bounded
async def test_a_callback_that_the_bridge_cancels_is_answered_at_once_and_its_handler_ended() -> (
    None
):
    handler = Handler()
    async with connected(handlers={"call_tool": handler}) as (_, peer):
        request_id = peer.ask("call_tool")
        await handler.begun.wait()
        peer.tell("cancel", id=request_id)
        answered = await peer.answered()
        assert answered.error is not None
        assert (answered.id, answered.error.code) == (request_id, "cancelled")
        await handler.cancelled.wait()
        handler.may_end.set()


@bounded
async def test_a_handler_that_was_cancelled_may_clean_up_whatever_the_bridge_cancels_again() -> (
    None
):
    handler = Handler()
    async with connected(handlers={"call_tool": handler}) as (client, peer):
        request_id = peer.ask("call_tool")
        await handler.begun.wait()
        peer.tell("cancel", id=request_id)
        await peer.answered()
        await handler.cancelled.wait()
        peer.tell("cancel", id=request_id)
        await round_trip(client, peer)
        assert not handler.ended.is_set()
        handler.may_end.set()
        await handler.ended.wait()
        assert handler.cleaned_up


@bounded
async def test_a_callback_cancelled_before_its_handler_began_is_answered_too() -> None:
    handler = Handler()
    handler.may_end.set()
    async with connected(handlers={"call_tool": handler}) as (client, peer):
        request_id = peer.connection.send_request("call_tool", {})
        peer.connection.send_notification("cancel", {"id": request_id})
        peer.flush()  # both in one read
        answered = await peer.answered()
        assert answered.error is not None
        assert (answered.id, answered.error.code) == (request_id, "cancelled")
        await round_trip(client, peer)
        assert handler.calls == 0


@bounded
async def test_a_cancelled_callback_whose_id_is_used_again_does_not_take_the_new_one_with_it() -> (
    None
):
    handler = Handler()
    async with connected(handlers={"call_tool": handler, "other": returning(2)}) as (client, peer):
        peer.raw(encode([0, 7, "call_tool", {}]))
        await handler.begun.wait()
        peer.tell("cancel", id=7)
        cancelled = await peer.next()  # an answer to an id that the peer's books do not know
        assert isinstance(cancelled, Ignored)
        await handler.cancelled.wait()
        handler.begun.clear()
        handler.cancelled.clear()
        peer.raw(encode([0, 7, "call_tool", {}]))
        await handler.begun.wait()
        handler.may_end.set()  # the first one ends, and must not be taken for the second
        await round_trip(client, peer)
        assert not handler.cancelled.is_set()
        peer.tell("cancel", id=7)
        await handler.cancelled.wait()
        assert isinstance(await peer.next(), Ignored)


@bounded
async def test_a_cancel_for_an_unknown_callback_is_ignored(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected(handlers={"call_tool": returning(1)}) as (client, peer):
        peer.tell("cancel", id=99)
        peer.tell("cancel")
        peer.ask("call_tool")
        assert (await peer.answered()).result == 1
        peer.tell("cancel", id=0)
        await round_trip(client, peer)
    assert caplog.records == []


# The end of the connection


@bounded
async def test_requests_in_flight_at_the_end_raise_connection_lost_each_its_own() -> None:
    async with connected() as (client, peer):
        answers = [started(client.ping(number)) for number in range(3)]
        for _ in answers:
            await peer.request()
        await peer.close()
        lost = await asyncio.gather(*answers, return_exceptions=True)
        assert [type(error) for error in lost] == [ConnectionLostError] * 3
        assert len({id(error) for error in lost}) == 3
        with pytest.raises(ConnectionLostError, match="the connection has ended"):
            await client.ping()


@bounded
async def test_handlers_are_cancelled_when_the_bridge_is_gone() -> None:
    handler = Handler()
    handler.may_end.set()
    async with connected(handlers={"call_tool": handler}) as (_, peer):
        peer.ask("call_tool")
        await handler.begun.wait()
        await peer.close()
        await handler.cancelled.wait()


@pytest.mark.parametrize("error", [ConnectionResetError(), OSError(5, "EIO"), TimeoutError()])
@bounded
async def test_whatever_breaks_the_connection_nobody_waits_for_ever(error: OSError) -> None:
    async with sockets() as (peer, _, writer):
        reader = asyncio.StreamReader()  # fed by hand: it breaks as no socket pair does
        client = Client(reader, writer)
        answer = started(client.ping())
        await peer.request()
        reader.set_exception(error)
        with pytest.raises(ConnectionLostError):
            await answer
        await client.close()


@bounded
async def test_an_end_in_the_middle_of_a_frame_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with connected() as (client, peer):
        answer = started(client.ping())
        await peer.request()
        peer.writer.write(b"\0\0\0\5\x94")
        await peer.close()
        with pytest.raises(ConnectionLostError):
            await answer
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["the connection ended in the middle of a frame"]


@bounded
async def test_a_client_that_is_closed_leaves_the_bridge_and_its_own_requests() -> None:
    handler = Handler()
    handler.may_end.set()
    async with connected(handlers={"call_tool": handler}) as (client, peer):
        answer = started(client.ping())
        await peer.request()
        peer.ask("call_tool")
        await handler.begun.wait()
        await client.close()
        with pytest.raises(ConnectionLostError):
            await answer
        assert handler.cancelled.is_set()
        assert await peer.is_left()
        with pytest.raises(ConnectionLostError):
            await client.ping()
        await client.close()


@bounded
async def test_a_client_is_closed_when_its_handlers_have_ended() -> None:
    handler = Handler()
    async with connected(handlers={"call_tool": handler}) as (client, peer):
        peer.ask("call_tool")
        await handler.begun.wait()
        closing = started(client.close())
        await handler.cancelled.wait()
        assert await peer.is_left()
        assert not closing.done()
        handler.may_end.set()
        await closing
        assert handler.cleaned_up


@bounded
async def test_a_handler_may_close_the_client() -> None:
    async with sockets() as (peer, reader, writer):
        clients: list[Client] = []

        async def call_tool(_: dict[str, Any]) -> Any:
            await clients[0].close()

        client, _ = await asyncio.gather(
            Client.attach(reader, writer, handlers={"call_tool": call_tool}), peer.greet()
        )
        clients.append(client)
        peer.ask("call_tool")
        assert await peer.is_left()
        await client.close()


@pytest.fixture
def short_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "_EXIT_TIMEOUT_S", 0.2)


@pytest.mark.usefixtures("short_exit")
@bounded
async def test_a_client_of_a_bridge_that_does_not_read_is_closed_in_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected() as (client, peer):
        large = started(client.ping(b"x" * 8 * 1024 * 1024))
        await write_buffer_fills(client)
        await client.close()
        with pytest.raises(ConnectionLostError):
            await large
        assert client._writer.transport.is_closing()
        del peer
    assert "cut off" in caplog.text


# A process of one's own

BRIDGE = """
import os, sys
from dspex_protocol.connection import Connection
from dspex_protocol.messages import Request
connection = Connection()
while data := os.read(0, 65536):
    for event in connection.receive_data(data):
        if isinstance(event, Request) and event.method == "initialize":
            connection.send_result(event, {"limits": {"max_frame_bytes": 1 << 24}})
        elif isinstance(event, Request) and event.method == "ping":
            params = {"env": os.environ.get("WHO"), "cwd": os.getcwd(), "group": os.getpgid(0)}
            connection.send_result(event, {"payload": params})
    os.write(1, connection.data_to_send())
"""

STUBBORN = BRIDGE + "\nimport time\nwhile True:\n    time.sleep(60)\n"

DEAF = BRIDGE.replace("while data :=", "if data :=") + "import time\ntime.sleep(600)\n"


def python(script: str) -> list[str]:
    return [sys.executable, "-c", script]


@bounded
async def test_a_bridge_is_spawned_in_a_group_of_its_own_and_ends_with_its_client() -> None:
    environment = {**os.environ, "WHO": "a bridge"}
    async with await Client.spawn(python(BRIDGE), env=environment, cwd="/") as client:
        assert client.process is not None
        told = await client.ping()
        assert told == {"env": "a bridge", "cwd": "/", "group": client.process.pid}
        assert client.process.returncode is None
    assert client.process.returncode == 0


@bounded
async def test_a_bridge_that_ends_before_it_answers_is_told_with_its_status() -> None:
    with pytest.raises(ConnectionLostError) as raised:
        await Client.spawn(python("import sys; sys.exit(3)"))
    assert str(raised.value) == (
        "the bridge ended with status 3 before it answered: what it wrote to stderr says why"
    )


@bounded
async def test_a_command_that_does_not_exist_is_the_systems_own_error() -> None:
    with pytest.raises(FileNotFoundError):
        await Client.spawn(["/nonexistent/dspex"])


@pytest.mark.usefixtures("short_exit")
@bounded
async def test_a_bridge_that_does_not_end_by_itself_is_killed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with await Client.spawn(python(STUBBORN)) as client:
        pass
    assert client.process is not None
    assert client.process.returncode == -9
    assert "cut off" in caplog.text


@pytest.mark.usefixtures("short_exit")
@bounded
async def test_a_bridge_that_stopped_reading_is_killed_and_its_callers_told() -> None:
    async with await Client.spawn(python(DEAF)) as client:
        assert client.process is not None
        large = started(client.ping(b"x" * 8 * 1024 * 1024))
        await write_buffer_fills(client)
    assert client.process.returncode == -9
    with pytest.raises(ConnectionLostError):
        await large


@pytest.mark.usefixtures("short_exit")
@bounded
async def test_a_bridge_that_never_answers_is_ended_when_its_caller_gives_up() -> None:
    spawned: list[asyncio.subprocess.Process] = []

    class Watched(Client):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            assert self.process is not None
            spawned.append(self.process)

        async def initialize(self, **options: Any) -> dict[str, Any]:
            asyncio.get_running_loop().call_soon(spawning.cancel)
            return await super().initialize(**options)

        @classmethod
        async def start(cls) -> Self:
            return await cls.spawn(python("import time; time.sleep(600)"))

    spawning = started(Watched.start())
    with pytest.raises(asyncio.CancelledError):
        await spawning
    assert spawned[0].returncode == -9


@bounded
async def test_a_bridge_that_is_killed_is_noticed_by_those_who_wait() -> None:
    async with await Client.spawn(python(BRIDGE)) as client:
        assert client.process is not None
        waiting = started(client.request("never answered"))
        await client.ping()
        client.process.kill()
        with pytest.raises(ConnectionLostError):
            await waiting
        assert await client.process.wait() == -9
