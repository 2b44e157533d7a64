"""The connection: its guarantees one by one, and all of them under any order of events."""

from __future__ import annotations

import math
import sys
import threading
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from dspex_protocol.codec import EncodeError, decode, encode, sendable
from dspex_protocol.connection import Answered, Connection, Event, Ignored, Refused
from dspex_protocol.errors import (
    ERRORS,
    ConnectionLostError,
    DSPexError,
    FrameTooLargeError,
    InternalError,
    NotFoundError,
    RequestCancelledError,
    RequestTimeoutError,
)
from dspex_protocol.framing import (
    DEFAULT_MAX_FRAME_BYTES,
    LARGEST_MAX_FRAME_BYTES,
    SMALLEST_MAX_FRAME_BYTES,
    FrameReader,
    frame,
)
from dspex_protocol.messages import Notification, Request
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# The same examples at every run, here and in CI: what explores with seeds of its own is a fuzzer.
FIXED = settings(derandomize=True, deadline=None, print_blob=True)

LIMIT = SMALLEST_MAX_FRAME_BYTES

# With halves of surrogate pairs, which no text on the wire has.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)


def wire(message: Any) -> bytes:
    return frame(encode(message))


def request_wire(request_id: int, **params: Any) -> bytes:
    return wire([0, request_id, "execute", params])


def opened(connection: Connection, request_id: int = 5, **params: Any) -> Request:
    (request,) = connection.receive_data(request_wire(request_id, **params))
    assert isinstance(request, Request)
    return request


def sent(connection: Connection) -> list[Any]:
    """The messages that wait, decoded."""
    reader = FrameReader()
    frames = reader.feed(connection.data_to_send())
    assert reader.at_boundary
    return [decode(payload) for payload in frames if isinstance(payload, bytes)]


def told(event: Event) -> tuple[Any, ...]:
    """All that an event tells, to be compared."""
    if isinstance(event, Request):
        return ("request", event.id, event.method, event.params)
    if isinstance(event, Notification):
        return ("notification", event.method, event.params)
    if isinstance(event, Answered):
        error = event.error and event.error.to_wire()
        return ("answered", event.id, error, event.result, event.waiter)
    if isinstance(event, Refused):
        return ("refused", event.id, event.error.to_wire())
    return ("ignored", event.reason)


# However it is chunked

IDS = st.integers(0, 3)
ANY_PAYLOAD: st.SearchStrategy[bytes] = st.one_of(
    st.builds(lambda i: encode([0, i, "ping", {}]), IDS),
    st.builds(lambda i: encode([1, i, None, {"a": 1}]), IDS),
    st.builds(lambda i: encode([1, i, NotFoundError("m").to_wire(), None]), IDS),
    st.builds(lambda i: encode([2, "chunk", {"id": i}]), IDS),
    st.builds(lambda i: b"\x94\0" + bytes([i]) + b"\xc1", IDS),
    st.builds(lambda i: b"\x94\1" + bytes([i]) + b"\xc1", IDS),
    st.builds(lambda i: b"\x92\1" + bytes([i]), IDS),
    st.builds(lambda i: b"\x94\0" + bytes([i]) + bytes(LIMIT), IDS),
    st.builds(lambda i: b"\x94\1" + bytes([i]) + bytes(LIMIT), IDS),
    st.binary(max_size=30),
)


@settings(FIXED, max_examples=100)
@given(st.lists(ANY_PAYLOAD, max_size=8), st.binary(max_size=8), st.data())
def test_a_stream_gives_the_same_events_and_answers_whole_byte_by_byte_and_in_any_chunks(
    payloads: list[bytes], trailing: bytes, data: st.DataObject
) -> None:
    stream = b"".join(map(frame, payloads)) + trailing
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    chunks = [
        stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]
    results = []
    for chunking in ([stream], chunks, [stream[at : at + 1] for at in range(len(stream))]):
        connection = Connection(LIMIT)
        for waiter in ("first", "second"):
            connection.send_request("call_tool", {}, waiter=waiter)
        connection.data_to_send()
        events = [told(event) for chunk in chunking for event in connection.receive_data(chunk)]
        results.append((events, connection.data_to_send()))
    assert results[0] == results[1] == results[2]


@settings(FIXED, max_examples=300)
@given(st.lists(st.binary(max_size=60) | ANY_PAYLOAD, max_size=5))
def test_any_frames_are_answered_within_the_smallest_limit_and_break_nothing(
    payloads: list[bytes],
) -> None:
    connection = Connection(LIMIT)
    for payload in payloads:
        connection.receive_data(frame(payload))
        assert len(connection.data_to_send()) <= 4 + SMALLEST_MAX_FRAME_BYTES
    assert isinstance(connection.receive_data(request_wire(77))[0], Request)


# Every request that came in is answered exactly once


def test_the_first_answer_is_sent_and_later_ones_are_not() -> None:
    connection = Connection()
    request = opened(connection)
    assert connection.is_open(request)
    assert connection.send_error(request, RequestCancelledError("stop"))
    assert not connection.is_open(request)
    assert not connection.send_result(request, {"late": True})
    assert not connection.send_error(request, InternalError("later"))
    assert not connection.send_result(request, object())
    assert sent(connection) == [[1, 5, RequestCancelledError("stop").to_wire(), None]]


ANSWERS: dict[str, Callable[[Connection, Request], bool]] = {
    "a result": lambda connection, request: connection.send_result(request, {"a": 1}),
    "an error": lambda connection, request: connection.send_error(request, InternalError("m")),
}


class OvertakenLock:
    """The connection's lock, but whoever takes it next is overtaken by another thread first."""

    def __init__(self, connection: Connection, overtake: Callable[[], object]) -> None:
        self._lock = connection._lock
        self._overtake: Callable[[], object] | None = overtake
        connection._lock = self  # type: ignore[assignment]

    def acquire(self) -> None:
        overtake, self._overtake = self._overtake, None
        if overtake is not None:
            run_at_once([overtake])
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()


@pytest.mark.parametrize("other", ANSWERS.values(), ids=ANSWERS.keys())
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_an_answer_that_is_overtaken_by_another_threads_is_not_sent(
    answer: Callable[[Connection, Request], bool], other: Callable[[Connection, Request], bool]
) -> None:
    connection = Connection()
    request = opened(connection)
    OvertakenLock(connection, lambda: other(connection, request))
    assert not answer(connection, request)
    assert len(sent(connection)) == 1


def test_a_notification_that_is_overtaken_by_the_answer_is_not_sent() -> None:
    connection = Connection()
    request = opened(connection)
    OvertakenLock(connection, lambda: connection.send_result(request, {}))
    assert not connection.send_notification("chunk", {"id": 5}, about=request)
    assert [message[0] for message in sent(connection)] == [1]


def test_a_request_that_is_overtaken_by_another_threads_has_an_id_of_its_own() -> None:
    connection = Connection()
    OvertakenLock(connection, lambda: connection.send_request("first", {}))
    second = connection.send_request("second", {})
    assert [message[1:3] for message in sent(connection)] == [[0, "first"], [second, "second"]]
    assert second == 1


@pytest.mark.parametrize("enough", [1, 100, 1000, 10**6])
def test_no_more_of_the_queue_is_copied_than_is_enough(enough: int) -> None:
    connection = Connection()
    for number in range(50):
        connection.send_notification("a", {"text": "x" * (number * 7 % 90)})
    whole, taken = connection.queued_bytes, b""
    while data := connection.data_to_send(enough):
        taken += data
        assert connection.queued_bytes == whole - len(taken)
        # A single message may be longer; one that does not fit any more waits.
        assert len(data) <= max(enough, 110)
        assert len(data) > enough - 110 or connection.queued_bytes == 0
    sent = [decode(frame) for frame in FrameReader().feed(taken) if isinstance(frame, bytes)]
    assert [len(text["text"]) for _, _, text in sent] == [n * 7 % 90 for n in range(50)]


def test_a_large_message_is_taken_from_the_queue_without_a_copy() -> None:
    connection, size = Connection(), 4_000_000
    connection.send_notification("a", {"data": bytes(10)})
    tracemalloc.start()
    try:
        connection.send_notification("b", {"data": bytes(size)})
        waiting = tracemalloc.get_traced_memory()[0]
        assert size < waiting < 1.1 * size
        tracemalloc.reset_peak()
        taken = []
        while data := connection.data_to_send(256 * 1024):
            taken.append(data)
        assert tracemalloc.get_traced_memory()[1] < 1.1 * size
    finally:
        tracemalloc.stop()
    # Not even its length is in front of it, which would have been a copy when it was queued.
    assert taken[-1] == encode([2, "b", {"data": bytes(size)}])
    frames = FrameReader().feed(b"".join(taken))
    assert [decode(frame)[1:] for frame in frames if isinstance(frame, bytes)] == [
        ["a", {"data": bytes(10)}],
        ["b", {"data": bytes(size)}],
    ]


@pytest.mark.usefixtures("quick_switches")
def test_a_notification_about_a_request_never_follows_its_answer_from_any_thread() -> None:
    for _ in range(50):
        connection = Connection()
        request = opened(connection)

        def notify() -> None:
            for _ in range(100):
                connection.send_notification("chunk", {"id": 5}, about=request)  # noqa: B023

        run_at_once([notify, notify, lambda: connection.send_result(request, {})])  # noqa: B023
        kinds = [message[0] for message in sent(connection)]
        assert kinds.count(1) == 1
        assert kinds[-1] == 1, "a chunk after the response"


@pytest.fixture
def quick_switches() -> Iterator[None]:
    """Threads take turns a thousand times as often, so that a race is lost at once."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def run_at_once(jobs: list[Callable[[], object]]) -> None:
    barrier = threading.Barrier(len(jobs))
    done: list[object] = []

    def run(job: Callable[[], object]) -> None:
        barrier.wait(10)
        done.append(job())

    threads = [threading.Thread(target=run, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(done) == len(jobs)


def test_a_notification_about_an_answered_request_is_dropped_and_others_are_not() -> None:
    connection = Connection()
    request = opened(connection)
    assert connection.send_notification("chunk", {"id": 5, "text": "a"}, about=request)
    connection.send_result(request, {})
    assert not connection.send_notification("chunk", {"id": 5, "text": "b"}, about=request)
    assert connection.send_notification("log", {"message": "m"})
    assert [message[:2] for message in sent(connection)] == [[2, "chunk"], [1, 5], [2, "log"]]


@FIXED
@given(ANY_TEXT, st.text(max_size=40), st.integers(0, 2**40))
def test_a_prepared_notification_is_the_one_that_is_sent_with_all_its_params(
    text: str, field: str, request_id: int
) -> None:
    connection = Connection()
    request = opened(connection, request_id)
    params = {"id": request_id, "field": field, "done": False}
    send = connection.text_notifications("chunk", params, "text", about=request)
    assert send(text)
    prepared = connection.data_to_send()
    connection.send_notification("chunk", {**params, "text": sendable(text)}, about=request)
    assert prepared == connection.data_to_send()


def test_a_prepared_notification_about_an_answered_request_is_dropped() -> None:
    connection = Connection()
    request = opened(connection)
    send = connection.text_notifications("chunk", {"id": 5}, "text", about=request)
    assert send("a")
    connection.send_result(request, {})
    assert not send("b")
    assert [message[:2] for message in sent(connection)] == [[2, "chunk"], [1, 5]]


def test_a_prepared_notification_over_the_peer_s_limit_is_refused_and_nothing_is_sent() -> None:
    connection = Connection()
    send = connection.text_notifications("n", {}, "text", about=opened(connection))
    connection.peer_max_frame_bytes = LIMIT
    with pytest.raises(FrameTooLargeError, match="over the peer's limit of 4096"):
        send("x" * LIMIT)
    assert connection.queued_bytes == 0


@pytest.mark.parametrize(
    ("result", "code", "reason"),
    [
        (object(), "internal_error", "the result cannot be sent: a value of type builtins.object"),
        ({"a": {1: 2}}, "internal_error", "the result cannot be sent: the keys of a map"),
        ("\ud800", "internal_error", "the result cannot be sent: text with a lone surrogate"),
        ("x" * LIMIT, "frame_too_large", "a frame of 4103 bytes is over the peer's limit of 4096"),
    ],
    ids=["no form", "keys", "surrogate", "too large"],
)
def test_a_result_that_cannot_be_sent_is_answered_with_the_error_that_says_so(
    result: Any, code: str, reason: str
) -> None:
    connection = Connection()
    connection.peer_max_frame_bytes = LIMIT
    request = opened(connection)
    assert connection.send_result(request, result)
    ((_, request_id, error, _),) = sent(connection)
    assert (request_id, error["code"]) == (5, code)
    assert error["message"].startswith(reason)
    if code == "frame_too_large":
        assert error["data"] == {"size": 4103, "limit": LIMIT}


@pytest.mark.parametrize(
    ("message", "data"),
    [
        ("m", {"value": object()}),
        ("m", {"text": "x" * LIMIT}),
        ("\U0001f600" * LIMIT, {}),
        ("\ud800 broken", {}),
        ("\ud800" * LIMIT, {"deep": {1: object()}}),
    ],
    ids=["unsendable data", "too much data", "too long", "a surrogate", "all of it"],
)
def test_an_error_that_cannot_be_sent_whole_is_sent_without_its_data_and_cut(
    message: str, data: dict[str, Any]
) -> None:
    connection = Connection()
    connection.peer_max_frame_bytes = SMALLEST_MAX_FRAME_BYTES
    for code, cls in ERRORS.items():
        request = opened(connection, 2**63 - 1)
        assert connection.send_error(request, cls(message, data=data, retryable=True))
        ((_, request_id, error, _),) = sent(connection)
        assert request_id == 2**63 - 1
        assert (error["code"], error["retryable"], error["data"]) == (code, True, {})
        assert error["message"] == message[:500].encode("utf-8", "replace").decode()


def test_an_error_of_a_class_with_a_constructor_of_its_own_is_cut_too() -> None:
    class Odd(NotFoundError):
        def __init__(self, name: str, kind: str) -> None:
            super().__init__(f"no {kind} {name}", data={"bad": object()})

    connection = Connection()
    request = opened(connection)
    assert connection.send_error(request, Odd("qa", "program"))
    ((_, _, error, _),) = sent(connection)
    assert (error["code"], error["message"]) == ("not_found", "no program qa")


# Every request of ours ends exactly once


def test_an_answer_brings_back_the_waiter_that_was_handed_over_and_only_once() -> None:
    connection = Connection()
    waiters = [object(), object()]
    ids = [connection.send_request("call_tool", {}, waiter=waiter) for waiter in waiters]
    assert sent(connection) == [[0, request_id, "call_tool", {}] for request_id in ids]
    (second,) = connection.receive_data(wire([1, ids[1], None, {"a": 1}]))
    (first,) = connection.receive_data(wire([1, ids[0], NotFoundError("m").to_wire(), None]))
    assert isinstance(first, Answered)
    assert isinstance(second, Answered)
    assert first.waiter is waiters[0]
    assert isinstance(first.error, NotFoundError)
    assert second.waiter is waiters[1]
    assert (second.error, second.result) == (None, {"a": 1})
    for request_id in ids:
        (again,) = connection.receive_data(wire([1, request_id, None, {}]))
        reason = f"a response to request {request_id}, which is not in flight"
        assert told(again) == ("ignored", reason)
    assert connection.data_to_send() == b""


class ImpatientLock:
    """The connection's lock; once it is free with something queued, another thread has its turn."""

    def __init__(self, connection: Connection, turn: Callable[[], object]) -> None:
        self._connection = connection
        self._lock = connection._lock
        self._turn: Callable[[], object] | None = turn
        connection._lock = self  # type: ignore[assignment]

    def acquire(self) -> None:
        self._lock.acquire()

    def release(self) -> None:
        self._lock.release()
        if self._connection.queued_bytes and self._turn is not None:
            turn, self._turn = self._turn, None
            run_at_once([turn])

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_error: object) -> None:
        self.release()


def test_an_answer_that_another_thread_receives_at_once_finds_its_waiter() -> None:
    """What is sent may be answered before `send_request` has returned to its caller."""
    connection = Connection()
    got: list[Event] = []

    def peer() -> None:
        ((_, request_id, _, _),) = sent(connection)
        got.extend(connection.receive_data(wire([1, request_id, None, {}])))

    ImpatientLock(connection, peer)
    connection.send_request("call_tool", {}, waiter="who waits")
    (event,) = got
    assert isinstance(event, Answered)
    assert event.waiter == "who waits"


UNREADABLE = {
    "not one value": (b"\x94\1\0\xc0\xc1", "parse_error", "not one whole MessagePack value"),
    "cut off": (b"\x94\1\0", "parse_error", "not one whole MessagePack value"),
    "over the limit": (b"\x94\1\0\xc0" + bytes(LIMIT), "frame_too_large", "a frame of 4100 bytes"),
    "of two elements": (b"\x92\1\0", "internal_error", "a response of 2 elements"),
    "a bad error": (encode([1, 0, "e", None]), "internal_error", "a response whose error is not"),
}


@pytest.mark.parametrize(("data", "code", "message"), UNREADABLE.values(), ids=UNREADABLE.keys())
def test_an_answer_that_cannot_be_read_ends_its_request_with_an_error(
    data: bytes, code: str, message: str
) -> None:
    connection = Connection(LIMIT)
    connection.send_request("execute", {}, waiter="who waits")
    connection.data_to_send()
    (event,) = connection.receive_data(frame(data))
    assert isinstance(event, Answered)
    assert (event.id, event.waiter) == (0, "who waits")
    assert event.error is not None
    assert event.error.code == code
    assert event.error.message.startswith(message)
    # A malformed response is never answered; a bad frame is, as any other.
    answers = [] if code == "internal_error" else [None]
    assert [answer[1] for answer in sent(connection)] == answers
    (late,) = connection.receive_data(wire([1, 0, None, {}]))
    assert isinstance(late, Ignored)


def test_an_unreadable_answer_to_nobody_is_a_bad_frame_like_any_other() -> None:
    connection = Connection()
    (refused,) = connection.receive_data(frame(b"\x94\1\0\xc0\xc1"))
    assert isinstance(refused, Refused)
    (ignored,) = connection.receive_data(frame(b"\x92\1\0"))
    assert isinstance(ignored, Ignored)


def test_the_answer_to_a_request_that_was_given_up_is_dropped_in_silence() -> None:
    connection = Connection()
    request_id = connection.send_request("execute", {}, waiter="who waits")
    assert connection.give_up(request_id)
    assert not connection.give_up(request_id)
    assert connection.receive_data(wire([1, request_id, None, {}])) == []
    (second,) = connection.receive_data(wire([1, request_id, None, {}]))
    assert isinstance(second, Ignored)
    assert connection.receive_eof() == []


def test_a_request_that_has_ended_or_was_never_sent_cannot_be_given_up() -> None:
    connection = Connection()
    request_id = connection.send_request("execute", {})
    connection.receive_data(wire([1, request_id, None, {}]))
    assert not connection.give_up(request_id)
    assert not connection.give_up(99)


def test_the_end_of_the_connection_ends_every_request_with_an_error_of_its_own() -> None:
    connection = Connection()
    ids = [connection.send_request("execute", {}, waiter=number) for number in range(3)]
    connection.give_up(ids[1])
    events = [event for event in connection.receive_eof() if isinstance(event, Answered)]
    assert [(event.id, event.waiter) for event in events] == [(ids[0], 0), (ids[2], 2)]
    errors = [event.error for event in events]
    assert all(isinstance(error, ConnectionLostError) for error in errors)
    assert errors[0] is not errors[1], "two tasks would raise one exception"
    assert str(errors[0]) == "the connection ended before the answer came"
    assert connection.receive_eof() == []


def test_after_the_end_nothing_is_sent_or_waits() -> None:
    connection = Connection()
    request = opened(connection)
    connection.send_notification("log", {})
    connection.receive_eof()
    assert connection.queued_bytes == 0
    assert not connection.is_open(request)
    assert not connection.send_result(request, {})
    assert not connection.send_error(request, InternalError("m"))
    assert not connection.send_notification("log", {})
    with pytest.raises(ConnectionLostError, match=r"^the connection has ended: make a new one$"):
        connection.send_request("ping", {})
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("rest", [b"\0", b"\0\0\0\5", b"\0\0\0\5\x94", frame(bytes(9000))[:-1]])
def test_an_end_in_the_middle_of_a_frame_is_said_to_the_log(rest: bytes) -> None:
    connection = Connection(LIMIT)
    connection.receive_data(rest)
    assert [told(event) for event in connection.receive_eof()] == [
        ("ignored", "the connection ended in the middle of a frame")
    ]


# A bad frame is answered once and nothing else is disturbed


def test_a_bad_frame_between_two_requests_is_answered_alone() -> None:
    connection = Connection(LIMIT)
    stream = request_wire(1) + frame(b"\x94\0\7\xc1") + frame(bytes(9000)) + request_wire(2)
    first, bad, too_large, second = connection.receive_data(stream)
    assert isinstance(first, Request)
    assert isinstance(second, Request)
    assert isinstance(bad, Refused)
    assert isinstance(too_large, Refused)
    assert (bad.id, bad.error.code) == (7, "parse_error")
    assert (too_large.id, too_large.error.code) == (None, "frame_too_large")
    assert [answer[1] for answer in sent(connection)] == [7, None]
    assert connection.is_open(first)
    assert connection.is_open(second)


def test_a_bad_frame_with_an_id_in_flight_does_not_take_the_answer_of_its_request() -> None:
    connection = Connection()
    request = opened(connection, 5)
    for bad in (b"\x94\0\5\xc1", b"\x93\0\5\xa1x", encode([0, 5, "other", {}])):
        (refused,) = connection.receive_data(frame(bad))
        assert isinstance(refused, Refused)
        assert refused.id is None
        assert refused.error.data["id"] == 5
    assert connection.send_result(request, {"mine": True})
    *refusals, answer = sent(connection)
    assert [refusal[1] for refusal in refusals] == [None] * 3
    assert answer == [1, 5, None, {"mine": True}]


def test_what_was_refused_never_became_a_request() -> None:
    connection = Connection()
    connection.receive_data(frame(b"\x93\0\5\xa1x"))
    assert isinstance(connection.receive_data(request_wire(5))[0], Request)


def test_a_refusal_by_the_peer_is_said_to_the_log_in_few_words() -> None:
    connection = Connection()
    (event,) = connection.receive_data(wire([1, None, InternalError("x" * 9000).to_wire(), None]))
    assert isinstance(event, Ignored)
    assert event.reason == "the peer refused a frame: " + "x" * 500


# A late answer never reaches a newer request of the same id


def test_a_late_answer_does_not_reach_a_newer_request_of_the_same_id() -> None:
    connection = Connection()
    old = opened(connection, 5, number=1)
    connection.send_error(old, RequestTimeoutError("no result within 1 ms"))
    new = opened(connection, 5, number=2)
    assert not connection.send_result(old, {"number": 1})
    assert not connection.send_notification("chunk", {"id": 5, "number": 1}, about=old)
    assert not connection.is_open(old)
    assert connection.is_open(new)
    assert connection.send_notification("chunk", {"id": 5, "number": 2}, about=new)
    assert connection.send_result(new, {"number": 2})
    assert sent(connection)[1:] == [
        [2, "chunk", {"id": 5, "number": 2}],
        [1, 5, None, {"number": 2}],
    ]


def test_ids_of_our_own_are_never_used_twice() -> None:
    connection = Connection()
    ids = []
    for _ in range(100):
        request_id = connection.send_request("ping", {})
        connection.receive_data(wire([1, request_id, None, {}]))
        ids.append(request_id)
    assert ids == list(range(100))


def test_a_request_that_could_not_be_sent_is_not_in_flight() -> None:
    connection = Connection()
    with pytest.raises(EncodeError):
        connection.send_request("ping", {"payload": object()})
    assert connection.data_to_send() == b""
    assert connection.receive_eof() == []


# Nothing larger than the peer's limit is sent


def test_what_is_over_the_limit_of_the_peer_is_refused_with_nothing_sent() -> None:
    connection = Connection()
    connection.peer_max_frame_bytes = LIMIT
    room = LIMIT - len(encode([0, 0, "ping", {"payload": "x" * 1000}])) + 1000
    connection.send_request("ping", {"payload": "x" * room})
    assert connection.queued_bytes == len(connection.data_to_send()) == 4 + LIMIT
    over = {"payload": "x" * (room + 1)}
    with pytest.raises(FrameTooLargeError) as raised:
        connection.send_request("ping", over)
    assert str(raised.value) == "a frame of 4097 bytes is over the peer's limit of 4096"
    assert raised.value.data == {"size": 4097, "limit": 4096}
    with pytest.raises(FrameTooLargeError):
        connection.send_notification("chunk", {"text": "x" * LIMIT})
    assert connection.data_to_send() == b""
    events = connection.receive_eof()
    assert [event.id for event in events if isinstance(event, Answered)] == [0]


def ext(code: int, data: bytes) -> bytes:
    return b"\xc8" + len(data).to_bytes(2, "big") + bytes([code]) + data


LETTERS = b"\xda\x0b\xb8" + b"x" * 3000
HOSTILE = {
    "a kind of 6000 digits": b"\x94" + ext(1, b"\x40" + bytes(2500)) + b"\5\xa1m\x80",
    "a tensor of 3000 dimensions": ext(2, b"\x93\xa2u8\xdc\x0b\xb8" + b"\xff" * 3000 + b"\xc4\0"),
    "a tensor with a long size": ext(2, b"\x93\xa2u8\x91" + LETTERS + b"\xc4\0"),
    "a dtype of 3000 letters": ext(2, b"\x93" + LETTERS + b"\x90\xc4\0"),
    "a decimal of 3000 letters": ext(3, b"x" * 3000),
    "a timestamp of 3000 bytes": ext(255, bytes(3000)),
    "a method of 3000 letters": b"\x94\0\5" + LETTERS + b"\xc0",
    "a key of 3000 bytes": b"\x81\xc5\x0b\xb8" + b"x" * 3000 + b"\1",
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE.keys())
def test_the_answer_to_a_hostile_frame_does_not_quote_it(payload: bytes) -> None:
    connection = Connection()
    (event,) = connection.receive_data(frame(payload))
    assert isinstance(event, Refused)
    assert 0 < len(connection.data_to_send()) < 400


def test_a_limit_under_which_errors_could_not_be_sent_is_no_limit() -> None:
    connection = Connection()
    assert connection.peer_max_frame_bytes == DEFAULT_MAX_FRAME_BYTES
    for limit in (-1, 0, SMALLEST_MAX_FRAME_BYTES - 1):
        with pytest.raises(ValueError, match=rf"^a limit of {limit} bytes a frame: at least 4096"):
            connection.peer_max_frame_bytes = limit
    assert connection.peer_max_frame_bytes == DEFAULT_MAX_FRAME_BYTES
    connection.peer_max_frame_bytes = SMALLEST_MAX_FRAME_BYTES
    assert connection.peer_max_frame_bytes == SMALLEST_MAX_FRAME_BYTES


def test_a_limit_beyond_what_a_length_can_say_is_the_largest_that_it_can() -> None:
    connection = Connection()
    connection.peer_max_frame_bytes = 2**40
    assert connection.peer_max_frame_bytes == LARGEST_MAX_FRAME_BYTES == 2**32 - 1


# What waits to be sent


def test_what_was_queued_comes_out_once_and_in_order() -> None:
    connection = Connection()
    assert connection.data_to_send() == b""
    request = opened(connection)
    connection.send_notification("a", {})
    connection.send_result(request, {})
    connection.send_request("b", {})
    total = connection.queued_bytes
    data = connection.data_to_send()
    assert data == wire([2, "a", {}]) + wire([1, 5, None, {}]) + wire([0, 0, "b", {}])
    assert total == len(data)
    assert connection.queued_bytes == 0
    assert connection.data_to_send() == b""


@pytest.mark.usefixtures("quick_switches")
def test_requests_from_many_threads_have_ids_of_their_own_and_stand_whole_in_the_stream() -> None:
    connection = Connection()
    ids: list[int] = []

    def send() -> None:
        ids.extend([connection.send_request("ping", {"payload": "x" * 50}) for _ in range(100)])

    run_at_once([send] * 4)
    assert sorted(ids) == list(range(400))
    assert sorted(message[1] for message in sent(connection)) == list(range(400))


# All of it at once, in any order


class ConnectionMachine(RuleBasedStateMachine):
    """A peer that keeps books of the wire, and a program that answers as it likes.

    Every request carries a number of its own, and so does whatever is sent about it: an answer or
    a notification under the right id but with another number has reached the wrong request.
    """

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection(LIMIT)
        self.connection.peer_max_frame_bytes = LIMIT
        self.out = FrameReader()
        self.closed = False
        self.numbers = 0
        # The peer's side: what it has asked and not been answered; refusals that it must get.
        self.asked: dict[int, int] = {}
        self.refusals: list[tuple[int | None, str, int | None]] = []
        # The program's side: every request that it ever saw, and the numbers it has answered.
        self.requests: list[Request] = []
        self.answered: set[int] = set()
        # Requests of ours: number by id, while in flight.
        self.ours: dict[int, int] = {}
        self.given_up: set[int] = set()

    # The peer sends

    def receive(self, payload: bytes, in_bytes: bool = False) -> list[Event]:
        data = frame(payload)
        chunks = [data[at : at + 1] for at in range(len(data))] if in_bytes else [data]
        return [event for chunk in chunks for event in self.connection.receive_data(chunk)]

    @precondition(lambda self: not self.closed)
    @rule(request_id=IDS, in_bytes=st.booleans())
    def peer_asks(self, request_id: int, in_bytes: bool) -> None:
        self.flush()  # the peer has read what was sent before
        self.numbers += 1
        payload = encode([0, request_id, "execute", {"number": self.numbers}])
        (event,) = self.receive(payload, in_bytes)
        if request_id in self.asked:
            assert isinstance(event, Refused)
            self.refusals.append((None, "invalid_request", request_id))
        else:
            assert isinstance(event, Request)
            assert event.params == {"number": self.numbers}
            self.asked[request_id] = self.numbers
            self.requests.append(event)

    @precondition(lambda self: not self.closed)
    @rule(
        request_id=IDS,
        kind=st.sampled_from(["parse_error", "invalid_request", "frame_too_large"]),
    )
    def peer_sends_a_bad_request(self, request_id: int, kind: str) -> None:
        self.flush()
        rest = {"parse_error": b"\xc1", "invalid_request": b"\1\1", "frame_too_large": bytes(LIMIT)}
        (event,) = self.receive(b"\x94\0" + bytes([request_id]) + rest[kind])
        assert isinstance(event, Refused)
        is_in_flight = request_id in self.asked
        self.refusals.append((None, kind, request_id) if is_in_flight else (request_id, kind, None))

    @precondition(lambda self: not self.closed)
    @rule(payload=st.sampled_from([b"", b"\xc1", b"\xc0", b"\x94\2\1\xc1", bytes(9000)]))
    def peer_sends_rubbish(self, payload: bytes) -> None:
        (event,) = self.receive(payload)
        assert isinstance(event, Refused)
        self.refusals.append((None, event.error.code, None))

    @precondition(lambda self: not self.closed)
    @rule(
        which=st.integers(0, 8),
        form=st.sampled_from(["result", "error", "malformed", "bad", "large"]),
    )
    def peer_answers(self, which: int, form: str) -> None:
        """Any id: of a request in flight, of one that has ended, or of none."""
        payload = {
            "result": encode([1, which, None, {"a": 1}]),
            "error": encode([1, which, NotFoundError("m").to_wire(), None]),
            "malformed": encode([1, which]),
            "bad": b"\x94\1" + bytes([which]) + b"\xc1",
            "large": b"\x94\1" + bytes([which]) + bytes(LIMIT),
        }[form]
        events = self.receive(payload)
        if form in ("bad", "large"):
            code = "parse_error" if form == "bad" else "frame_too_large"
            self.refusals.append((None, code, None))
        if which in self.ours:
            (event,) = events
            assert isinstance(event, Answered)
            assert event.waiter == self.ours.pop(which)
            assert (event.error is None) == (form == "result")
        elif which in self.given_up and form in ("result", "error"):
            assert events == []
            self.given_up.discard(which)
        else:
            (event,) = events
            assert isinstance(event, Refused if form in ("bad", "large") else Ignored)

    # The program sends

    @precondition(lambda self: self.requests)
    @rule(
        data=st.data(),
        answer=st.sampled_from(["result", "unsendable", "large", "cancel", "deadline", "odd"]),
    )
    def program_answers(self, data: st.DataObject, answer: str) -> None:
        """Any request that it ever saw: late results, second answers, after the end."""
        request = data.draw(st.sampled_from(self.requests))
        number = request.params["number"]
        results: dict[str, Any] = {
            "result": {"number": number},
            "unsendable": {"number": object()},
            "large": {"number": number, "text": "x" * LIMIT},
        }
        errors: dict[str, DSPexError] = {
            "cancel": RequestCancelledError("cancelled", data={"number": number}),
            "deadline": RequestTimeoutError("too late", data={"number": number}),
            "odd": InternalError("\ud800", data={"number": object()}),
        }
        if answer in results:
            was_first = self.connection.send_result(request, results[answer])
        else:
            was_first = self.connection.send_error(request, errors[answer])
        assert was_first == (number not in self.answered and not self.closed)
        self.answered.add(number)
        assert not self.connection.is_open(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def program_tells(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.requests))
        number = request.params["number"]
        params = {"id": request.id, "number": number}
        was_queued = self.connection.send_notification("chunk", params, about=request)
        assert was_queued == (number not in self.answered and not self.closed)

    @rule()
    def program_asks(self) -> None:
        self.numbers += 1
        if self.closed:
            with pytest.raises(ConnectionLostError):
                self.connection.send_request("call_tool", {}, waiter=self.numbers)
            return
        request_id = self.connection.send_request("call_tool", {}, waiter=self.numbers)
        assert request_id not in self.ours
        self.ours[request_id] = self.numbers

    @rule(request_id=st.integers(0, 8))
    def program_gives_up(self, request_id: int) -> None:
        assert self.connection.give_up(request_id) == (request_id in self.ours)
        if self.ours.pop(request_id, None) is not None:
            self.given_up.add(request_id)

    # The wire

    @rule()
    def flush(self) -> None:
        """The peer reads all that was sent, and checks it against its books."""
        for payload in self.out.feed(self.connection.data_to_send()):
            assert isinstance(payload, bytes)
            assert len(payload) <= LIMIT
            message = decode(payload)
            if message[0] == 1:
                self.check_response(*message[1:])
            elif message[0] == 2:
                assert self.asked.get(message[2]["id"]) == message[2]["number"]

    def check_response(self, request_id: int | None, error: Any, result: Any) -> None:
        if error is not None:
            refusal = (request_id, error["code"], error["data"].get("id"))
            if refusal in self.refusals:
                self.refusals.remove(refusal)
                return
        assert request_id in self.asked, "an answer to no request"
        number = self.asked.pop(request_id)
        answer = result or error["data"]
        assert answer.get("number", number) == number, "the answer to another request"

    @precondition(lambda self: not self.closed and self.numbers > 4)
    @rule(rest=st.sampled_from([b"", b"\0\0"]))
    def disconnect(self, rest: bytes) -> None:
        self.flush()
        self.connection.receive_data(rest)
        events = self.connection.receive_eof()
        lost = {event.id: event.waiter for event in events if isinstance(event, Answered)}
        assert lost == self.ours
        self.ours = {}
        self.closed = True

    @invariant()
    def nothing_is_sent_after_the_end(self) -> None:
        if self.closed:
            assert self.connection.queued_bytes == 0

    def teardown(self) -> None:
        """In the end everything that was asked has been answered, once, and no refusal is owed."""
        if self.closed:
            return
        for request in self.requests:
            self.connection.send_result(request, {"number": request.params["number"]})
        self.flush()
        assert self.asked == {}
        assert self.refusals == []


def test_any_order_of_events_keeps_every_guarantee() -> None:
    run_state_machine_as_test(
        ConnectionMachine, settings=settings(FIXED, max_examples=80, stateful_step_count=40)
    )


def test_an_event_says_what_it_is_in_a_log() -> None:
    assert repr(Answered(1, None, {"a": 1}, None)) == "Answered(1, None, dict)"
    assert repr(Refused(None, InternalError("m"))) == "Refused(None, InternalError('m'))"
    assert repr(Ignored("why")) == "Ignored('why')"


def test_a_value_that_no_json_holds_goes_through_a_connection_unharmed() -> None:
    connection = Connection()
    request = opened(connection, 5, x=math.inf, y=b"\xff", z=2**80)
    assert request.params == {"x": math.inf, "y": b"\xff", "z": 2**80}
    connection.send_result(request, request.params)
    assert sent(connection) == [[1, 5, None, request.params]]
