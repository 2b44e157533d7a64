"""What programs print and log: events with the request they belong to."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from dspex_bridge.logs import MAX_EVENTS_PER_SECOND

from integration.openai_server import OpenAIServer, answering
from integration.pipe import Pipe

COMMAND = (sys.executable, str(Path(__file__).with_name("talking_bridge.py")))


def talking(log_level: str | None = None) -> Pipe:
    pipe = Pipe(command=COMMAND)
    pipe.ask("initialize", {"protocol_version": 1, "log_level": log_level})
    pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
    pipe.ask("create", {"program": "p", "signature": "word -> answer"})
    pipe.notifications.clear()
    return pipe


def events(pipe: Pipe) -> list[dict[str, Any]]:
    return [message[2] for message in pipe.notifications if message[1] == "log"]


def test_prints_and_logs_have_the_request_they_belong_to_also_side_by_side() -> None:
    with talking("info") as pipe:
        words = {
            pipe.request("execute", {"program": "p", "inputs": {"word": word}}): word
            for word in ("a", "b", "c")
        }
        for request in words:
            assert pipe.response(request)[2] is None
        for request, word in words.items():
            said = [
                (event["logger"], event["level"], event["message"])
                for event in events(pipe)
                if event.get("request") == request
            ]
            assert said == [
                ("stdout", "info", f"printed {word}"),
                ("stdout", "info", f"the beginning and the end {word}"),
                ("talker", "warning", f"logged {word}"),
                ("stdout", "info", f"printed in a thread {word}"),
                ("stdout", "info", "unfinished"),
            ]
        assert all(event.get("request") in words for event in events(pipe))


def test_what_is_said_in_the_threads_that_dspy_makes_has_its_request_too() -> None:
    with talking("info") as pipe:
        request = pipe.request("execute", {"program": "p", "inputs": {"word": "threads"}})
        assert pipe.response(request)[2] is None
        said = {event["message"]: event.get("request") for event in events(pipe)}
        assert said["logged in a thread of DSPy's"] == request


@pytest.mark.parametrize("level", [None, "warning"])
def test_prints_nobody_asked_for_go_to_stderr(level: str | None) -> None:
    with talking(level) as pipe:
        pipe.ask("execute", {"program": "p", "inputs": {"word": "a"}})
        assert [e["message"] for e in events(pipe)] == (["logged a"] if level else [])
        pipe.close_stdin()
        assert pipe.wait() == 0
        assert "printed a\nthe beginning and the end a\n" in pipe.stderr_after_exit()


def test_a_line_without_an_end_comes_in_pieces_and_a_flood_is_bounded() -> None:
    with talking("info") as pipe:
        pipe.ask("execute", {"program": "p", "inputs": {"word": "long"}})
        assert max(len(event["message"]) for event in events(pipe)) == 10_000
        pipe.notifications.clear()
        pipe.ask("execute", {"program": "p", "inputs": {"word": "flood"}})
        assert len(events(pipe)) <= 2 * MAX_EVENTS_PER_SECOND + 2


def test_texts_for_the_provider_that_may_be_secret_are_in_no_log() -> None:
    secrets = {
        "organization": "orgsecret12345",
        "user": {"nested": ["inlist-8765432"]},
        "auth_token": "short7x",
    }
    with (
        OpenAIServer(answering({"answer": "Paris"})) as server,
        Pipe("--log-level", "debug") as pipe,
    ):
        extra = {**secrets, "service_tier": "priority"}
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        pipe.ask("initialize", {"protocol_version": 1, "log_level": "debug"})
        pipe.ask("configure", {"lms": {"main": {**lm, "extra": extra, "num_retries": 0}}})
        pipe.request("execute", {"program": {"signature": "q -> answer"}, "inputs": {"q": "?"}})
        pipe.send([2, "orgsecret12345 inlist-8765432 short7x priority", {}])  # logged as unknown
        pipe.request("shutdown", {"drain_ms": 5000})
        pipe.wait()
        logged = pipe.stderr_after_exit() + str(pipe.notifications)
    for secret in ("orgsecret12345", "inlist-8765432", "short7x"):
        assert secret not in logged
    assert "*** *** *** priority" in logged
