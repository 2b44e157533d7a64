"""Messages: the vectors, byte by byte, and what is said about those that are malformed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.codec import decode, encode
from dspex_protocol.connection import Answered, Connection, Ignored, Refused
from dspex_protocol.errors import InvalidRequestError
from dspex_protocol.framing import DEFAULT_MAX_FRAME_BYTES, SMALLEST_MAX_FRAME_BYTES, frame
from dspex_protocol.messages import (
    MAX_ID,
    Message,
    Notification,
    Request,
    Response,
    UnanswerableError,
    parse_message,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

VECTORS = json.loads(
    (Path(__file__).parents[2] / "protocol" / "vectors" / "messages.json").read_text()
)


def wire_bytes(entry: dict[str, Any]) -> bytes:
    if "hex" in entry:
        return bytes.fromhex(entry["hex"])
    return b"".join(bytes.fromhex(part) * times for part, times in entry["parts"])


def value_of(notation: Any) -> Any:
    """These vectors need one notation beyond JSON: integers beyond 2^53."""
    if isinstance(notation, list):
        return [value_of(item) for item in notation]
    if isinstance(notation, dict):
        if notation.keys() == {"$int"}:
            return int(notation["$int"])
        return {key: value_of(item) for key, item in notation.items()}
    return notation


def named(section: str) -> pytest.MarkDecorator:
    entries = VECTORS[section]
    return pytest.mark.parametrize("entry", entries, ids=[entry["name"] for entry in entries])


KINDS = {"request": Request, "response": Response, "notification": Notification}


@named("messages")
def test_a_message_vector_is_parsed(entry: dict[str, Any]) -> None:
    message = parse_message(decode(wire_bytes(entry)))
    assert type(message) is KINDS[entry["kind"]]
    assert message.to_wire() == value_of(entry["message"])


@named("messages")
def test_a_message_vector_cut_at_any_byte_is_answered_with_a_parse_error(
    entry: dict[str, Any],
) -> None:
    data = wire_bytes(entry)
    for cut in range(len(data)):
        connection = Connection()
        (event,) = connection.receive_data(frame(data[:cut]))
        assert isinstance(event, Refused)
        assert event.error.code == "parse_error"


@pytest.mark.parametrize(
    "entry",
    [entry for entry in VECTORS["messages"] if not entry.get("decode_only")],
    ids=lambda entry: entry["name"],
)
def test_a_message_vector_is_written_as_its_bytes(entry: dict[str, Any]) -> None:
    message: Message = parse_message(value_of(entry["message"]))
    assert encode(message.to_wire()) == wire_bytes(entry)


@named("malformed")
def test_a_malformed_vector_gets_its_one_answer_and_disturbs_nothing(entry: dict[str, Any]) -> None:
    connection = Connection(entry.get("max_frame_bytes", DEFAULT_MAX_FRAME_BYTES))
    before = [
        event
        for data in entry.get("before", [])
        for event in connection.receive_data(frame(bytes.fromhex(data)))
    ]
    events = connection.receive_data(frame(wire_bytes(entry)))
    sent = connection.data_to_send()
    assert len(events) == 1
    if entry["answer"] == "ignored":
        assert isinstance(events[0], Ignored)
        assert sent == b""
    else:
        check_answer(sent, value_of(entry["answer"]))
        assert isinstance(events[0], Refused)
    # The connection is as good as before: requests in flight are open, and the next one is read.
    assert all(isinstance(event, Request) and connection.is_open(event) for event in before)
    (ping,) = connection.receive_data(frame(encode([0, 99, "ping", {}])))
    assert isinstance(ping, Request)
    assert connection.send_result(ping, {})
    assert connection.data_to_send() == frame(encode([1, 99, None, {}]))


def check_answer(sent: bytes, answer: list[Any]) -> None:
    """One response, and in it what the vector tells: of the data, the keys that it names."""
    (size,) = (int.from_bytes(sent[:4], "big"),)
    assert len(sent) == 4 + size
    kind, request_id, error, result = decode(sent[4:])
    assert [kind, request_id, result] == [answer[0], answer[1], answer[3]]
    assert error["code"] == answer[2]["code"]
    assert error.keys() == {"code", "message", "retryable", "data"}
    assert error["retryable"] is False
    expected = answer[2].get("data", {})
    assert {key: error["data"].get(key) for key in expected} == expected
    assert len(sent) < SMALLEST_MAX_FRAME_BYTES


def test_the_names_of_the_vectors_are_distinct() -> None:
    names = [entry["name"] for section in ("messages", "malformed") for entry in VECTORS[section]]
    assert len(names) > 150
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "a message is an array [0, id, method, params], got nil"),
        ({}, "a message is an array [0, id, method, params], got a map"),
        ([], "a message is an array [0, id, method, params], got an array"),
        (1.5, "a message is an array [0, id, method, params], got a value of type float"),
        (
            [3, 1, "ping", {}],
            "a message begins with 0 (request), 1 (response) or 2 (notification), "
            "got another integer",
        ),
        (
            ["0", 1, "ping", {}],
            "a message begins with 0 (request), 1 (response) or 2 (notification), got a string",
        ),
        ([0, 1, "ping"], "a request has 4 elements, got 3"),
        ([0, 1, "ping", {}, None], "a request has 4 elements, got 5"),
        ([0, -1, "ping", {}], "the id of a request is an integer from 0 to 9223372036854775807"),
        ([0, 1, b"ping", {}], "the method of a request is a string, got bytes"),
        ([0, 1, "ping", []], "the params of a request are a map, got an array"),
    ],
)
def test_the_sender_of_a_malformed_request_is_told_what_was_expected(
    value: Any, message: str
) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        parse_message(value)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 5], "a response of 2 elements (4 expected)"),
        ([1, "5", None, {}], "a response whose id is neither an id nor nil"),
        ([1, 5, "e", None], "a response whose error is not {code, message, retryable, data}"),
        ([2, "cancel"], "a notification is [2, method, params]"),
    ],
)
def test_what_nobody_can_be_told_is_said_to_the_log(value: Any, message: str) -> None:
    with pytest.raises(UnanswerableError) as raised:
        parse_message(value)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "error",
    [
        {"code": "timeout"},
        {"message": "m"},
        {"code": 7, "message": "m"},
        {"code": "timeout", "message": None},
        {"code": "timeout", "message": "m", "retryable": 1},
        {"code": "timeout", "message": "m", "retryable": None},
        {"code": "timeout", "message": "m", "data": []},
        {"code": "timeout", "message": "m", "data": None},
        [],
        "timeout",
        False,
        0,
    ],
    ids=repr,
)
def test_a_response_whose_error_has_another_shape_is_malformed(error: Any) -> None:
    with pytest.raises(UnanswerableError, match="whose error is not"):
        parse_message([1, 5, error, None])


def test_an_id_is_an_integer_up_to_its_maximum_and_nothing_that_equals_one() -> None:
    assert parse_message([0, MAX_ID, "m", {}]).to_wire()[1] == MAX_ID
    for bad in (MAX_ID + 1, -1, True, 1.0, None, "1"):
        with pytest.raises(InvalidRequestError):
            parse_message([0, bad, "m", {}])


def test_the_text_of_a_message_for_logs_does_not_quote_what_it_carries() -> None:
    secret = {"lms": {"main": {"api_key": "sk-secret"}}}
    texts = [
        repr(Request(1, "configure", secret)),
        repr(Response(1, None, secret)),
        repr(Notification("log", {"message": "sk-secret"})),
        repr(Answered(1, None, secret, None)),
    ]
    assert texts == [
        "Request(1, 'configure', {lms})",
        "Response(1, None, dict)",
        "Notification('log', {message})",
        "Answered(1, None, dict)",
    ]


ITEMS = st.sampled_from([0, 1, 2, 3, MAX_ID, MAX_ID + 1, -1, False, True, 0.0, None, "m", b"m"])


@settings(derandomize=True, deadline=None, print_blob=True, max_examples=500)
@given(st.lists(ITEMS | st.builds(dict) | st.builds(list), max_size=6))
@example([0, MAX_ID, "m", {}])
@example([0, 1, "m", {}, 0])
@example([False, 1, "m", {}])
def test_what_is_a_request_is_one_whatever_else_may_come(value: list[Any]) -> None:
    is_request = (
        list(map(type, value)) == [int, int, str, dict]
        and value[0] == 0
        and 0 <= value[1] <= MAX_ID
    )
    try:
        message: Message | None = parse_message(value)
    except (InvalidRequestError, UnanswerableError):
        message = None
    assert isinstance(message, Request) == is_request
    assert message is None or message.to_wire() == value
