"""The life of requests through a real pipe: order, many at once, cancel, deadline, shutdown."""

from __future__ import annotations

import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import FrameReader, frame

from integration.openai_server import Answer, OpenAIServer, answering
from integration.pipe import BRIDGE, Pipe

INPUTS = {"program": "qa", "inputs": {"question": "Where?"}}


def hanging(question: str = "hang") -> Any:
    """Hangs where the prompt contains the word, until it is released; answers otherwise."""
    answer = answering({"answer": "Paris"})

    def script(request: Any) -> Answer:
        asked = request.turns[-1][1]
        return Answer("late", fault="hang") if question in asked else answer(request)

    return script


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(hanging()) as server:
        yield server


@pytest.fixture
def pipe(server: OpenAIServer) -> Iterator[Pipe]:
    with Pipe() as pipe:
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        pipe.ask("configure", {"lms": {"main": lm}})
        pipe.ask("create", {"signature": "question -> answer", "program": "qa"})
        yield pipe


def hang(pipe: Pipe, server: OpenAIServer, **params: Any) -> int:
    """An execute that waits for its LM; its id."""
    before = len(server.requests)
    request = {"program": "qa", "inputs": {"question": "hang"}, **params}
    request_id = pipe.request("execute", request)
    server.expect(before + 1)
    return request_id


def test_initialize_and_ping_are_answered_before_dspy_is_there() -> None:
    with Pipe() as pipe:
        assert pipe.ask("initialize", {"protocol_version": 1})["ready"] is False
        assert pipe.ask("ping", {"payload": [1]}) == {"payload": [1]}
        assert pipe.ask("stats")["programs"] == 0
        assert pipe.notifications == [], "ready comes later"
        assert pipe.ask("list") == {"programs": []}
        (ready,) = pipe.notifications
        assert ready[1] == "ready"
        assert ready[2]["dspy"].startswith("3.4.")
        assert ready[2]["import_ms"] > 0
        assert pipe.ask("initialize", {"protocol_version": 1})["ready"] is True


def test_requests_take_effect_in_the_order_in_which_they_came() -> None:
    with Pipe() as pipe:
        configure = pipe.request("configure", {"lms": {"main": {"model": "demo/knn"}}})
        create = pipe.request("create", {"signature": "question -> answer", "program": "qa"})
        execute = pipe.request("execute", INPUTS)
        delete = pipe.request("delete", {"program": "qa"})
        late = pipe.request("execute", INPUTS)
        for request_id in (configure, create, execute, delete):
            assert pipe.response(request_id)[2] is None
        assert pipe.response(late)[2]["code"] == "not_found"


def test_answers_come_in_any_order(pipe: Pipe, server: OpenAIServer) -> None:
    slow = hang(pipe, server)
    assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "Paris"}
    assert pipe.ask("stats")["in_flight"] == 1
    pipe.send([2, "cancel", {"id": slow}])
    assert pipe.response(slow)[2]["code"] == "cancelled"


def test_hundreds_of_requests_at_once_each_get_their_own_answer(pipe: Pipe) -> None:
    count = 300
    names = [f"p{number}" for number in range(count)]
    ids = [
        pipe.request("create", {"signature": "question -> answer", "program": name})
        for name in names
    ]
    assert [pipe.response(n)[3]["program"] for n in ids] == names
    ids = [pipe.request("execute", {**INPUTS, "program": name}) for name in names]
    assert [pipe.response(n)[3]["program"] for n in ids] == names


def test_cancel_answers_at_once_and_ends_the_work(pipe: Pipe, server: OpenAIServer) -> None:
    request_id = hang(pipe, server)
    pipe.send([2, "cancel", {"id": request_id}])
    assert pipe.response(request_id)[2]["code"] == "cancelled"
    server.expect_left(1)
    pipe.send([2, "cancel", {"id": request_id}])
    assert pipe.ask("stats")["in_flight"] == 0


def test_a_deadline_answers_timeout_and_ends_the_work(pipe: Pipe, server: OpenAIServer) -> None:
    request_id = hang(pipe, server, timeout_ms=300)
    error = pipe.response(request_id)[2]
    assert (error["code"], error["retryable"]) == ("timeout", False)
    assert "300 ms" in error["message"]
    server.expect_left(1)


def test_a_deadline_counts_from_arrival_also_while_dspy_is_imported() -> None:
    with Pipe() as pipe:
        request_id = pipe.request("list", {"timeout_ms": 1})
        assert pipe.response(request_id)[2]["code"] == "timeout"
        assert pipe.ask("list") == {"programs": []}


def test_an_id_is_free_again_after_its_answer(pipe: Pipe, server: OpenAIServer) -> None:
    hanging_id = hang(pipe, server)
    pipe.send([2, "cancel", {"id": hanging_id}])
    assert pipe.response(hanging_id)[2]["code"] == "cancelled"
    pipe.request("execute", INPUTS, request_id=hanging_id)
    assert pipe.response(hanging_id)[3]["outputs"] == {"answer": "Paris"}


def test_shutdown_lets_work_in_flight_finish(pipe: Pipe, server: OpenAIServer) -> None:
    slow = hang(pipe, server)
    shutdown = pipe.request("shutdown", {"drain_ms": 60_000})
    refused = pipe.refusal("execute", INPUTS)
    assert (refused["code"], refused["retryable"]) == ("shutting_down", True)
    server.release()
    error = pipe.response(slow)[2]
    assert error is None or error["code"] != "shutting_down"
    assert pipe.response(shutdown)[2:] == [None, {"completed": 1, "cancelled": 0}]
    assert pipe.wait() == 0


def test_shutdown_cuts_off_what_is_not_done_in_time(pipe: Pipe, server: OpenAIServer) -> None:
    slow = hang(pipe, server)
    shutdown = pipe.request("shutdown", {"drain_ms": 100})
    error = pipe.response(slow)[2]
    assert (error["code"], error["retryable"]) == ("shutting_down", True)
    assert pipe.response(shutdown)[3] == {"completed": 0, "cancelled": 1}
    assert pipe.wait() == 0


def test_requests_behind_a_shutdown_in_the_same_write_are_answered(pipe: Pipe) -> None:
    requests = ([0, 71, "shutdown", {}], [0, 72, "ping", {}], [0, 73, "list", {}])
    pipe.send_bytes(b"".join(frame(encode(request)) for request in requests))
    assert pipe.response(71)[2:] == [None, {"completed": 0, "cancelled": 0}]
    assert pipe.response(72)[2]["code"] == "shutting_down"
    assert pipe.response(73)[2]["code"] == "shutting_down"
    assert pipe.wait() == 0


def test_stdin_and_stdout_may_be_one_socket() -> None:
    ours, its = socket.socketpair()
    process = subprocess.Popen(
        BRIDGE, stdin=its.fileno(), stdout=its.fileno(), start_new_session=True
    )
    its.close()
    with ours:
        ours.settimeout(60)
        for number in range(3):
            ours.sendall(frame(encode([0, number, "ping", {"payload": number}])))
            reader = FrameReader()
            frames: list[bytes] = []
            while not frames:
                frames = [item for item in reader.feed(ours.recv(65536)) if isinstance(item, bytes)]
            answers = [decode(item) for item in frames]
            assert [1, number, None, {"payload": number}] in answers
        ours.sendall(frame(encode([0, 3, "shutdown", {}])))
        while ours.recv(65536):
            pass
        # By which a client that has read less would lose the rest.
        ours.sendall(frame(encode([0, 4, "ping", {}])))
    assert process.wait(60) == 0


def test_cancel_still_works_while_shutting_down(pipe: Pipe, server: OpenAIServer) -> None:
    slow = hang(pipe, server)
    shutdown = pipe.request("shutdown", {"drain_ms": 60_000})
    pipe.send([2, "cancel", {"id": slow}])
    assert pipe.response(slow)[2]["code"] == "cancelled"
    assert pipe.response(shutdown)[3] == {"completed": 0, "cancelled": 1}
    assert pipe.wait() == 0


def test_the_process_is_gone_within_a_second_of_the_answer_to_shutdown(pipe: Pipe) -> None:
    pipe.ask("shutdown")
    answered = time.monotonic()
    assert pipe.wait() == 0
    assert time.monotonic() - answered < 1.0


def test_sigterm_lets_work_finish_and_exits_with_status_0(pipe: Pipe, server: OpenAIServer) -> None:
    slow = hang(pipe, server)
    pipe.process.send_signal(signal.SIGTERM)
    while pipe.response(pipe.request("ping"))[2] is None:
        pass  # until the signal has been handled
    pipe.send([2, "cancel", {"id": slow}])
    assert pipe.response(slow)[2]["code"] == "cancelled"
    assert pipe.wait() == 0


def test_the_end_of_stdin_ends_the_process_at_once(pipe: Pipe, server: OpenAIServer) -> None:
    hang(pipe, server)
    pipe.close_stdin()
    assert pipe.wait() == 0
    server.expect_left(1)


def test_a_bridge_in_a_terminal_explains_itself() -> None:
    import os
    import pty
    import sys

    parent, child = pty.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dspex_bridge"],
            stdin=child,
            capture_output=True,
            timeout=60,
            check=False,
            text=True,
        )
    finally:
        os.close(parent)
        os.close(child)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "dspex run --signature" in done.stderr


def test_a_limit_that_is_lowered_while_a_stream_is_open_holds_for_its_chunks() -> None:
    """The text that gathered under the old limit goes in chunks of the new one, and the reader,
    whom a `grant` makes send them, goes on."""
    # A word is one piece of the LM's stream: many chunks, of which one goes without credit.
    answer = "x" * 40_000 + " and so on" * 10
    with OpenAIServer(answering({"answer": answer}, fault="stall")) as server, Pipe() as pipe:
        pipe.ask("initialize", {"protocol_version": 1, "max_frame_bytes": 16_384})
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        pipe.ask("configure", {"lms": {"main": lm}})
        pipe.ask("create", {"signature": "question -> answer", "program": "qa"})
        request = pipe.request(
            "execute", {"program": "qa", "inputs": {"question": "?"}, "stream": {"window": 1}}
        )
        text = ""
        while not text:
            message = pipe.receive()
            text = message[2]["text"] if message[1] == "chunk" else ""
        pipe.ask("initialize", {"protocol_version": 1, "max_frame_bytes": 4096})
        pipe.send([2, "grant", {"id": request, "n": 100_000}])
        server.release()
        while (message := pipe.receive())[:2] != [1, request]:
            assert message[1] == "chunk"
            assert len(message[2]["text"]) <= 4096 // 8
            text += message[2]["text"]
        # The whole answer is over the new limit; its chunks were not.
        assert message[2]["code"] == "frame_too_large"
        assert text == answer


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are read from /proc")
def test_large_requests_use_the_memory_of_those_before_them(pipe: Pipe) -> None:
    """Each page that is asked of the system anew costs more than to decode what is in it."""
    payload, number = bytes(1_000_000), 20
    pages = len(payload) // resource.getpagesize()

    def page_faults() -> int:
        stat = Path(f"/proc/{pipe.process.pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[7])  # minflt, the tenth of them all

    pipe.ask("list")  # DSPy is there
    for _ in range(5):
        pipe.ask("ping", {"payload": payload})
    before = page_faults()
    for _ in range(number):
        assert pipe.ask("ping", {"payload": payload}) == {"payload": payload}
    assert page_faults() - before < number * pages / 2, "not even the payloads' own"
