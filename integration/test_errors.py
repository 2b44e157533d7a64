"""Every error that the methods can give, through a real pipe; and the next request works."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.codec import encode
from dspex_protocol.framing import frame

from integration.openai_server import Answer, OpenAIServer
from integration.pipe import Pipe

MAX_FRAME_BYTES = 65536


@pytest.fixture(scope="module")
def shared() -> Iterator[Pipe]:
    with Pipe("--max-frame-bytes", str(MAX_FRAME_BYTES), "--max-in-flight", "16") as pipe:
        pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}})
        pipe.ask("create", {"signature": "question -> answer", "program": "qa"})
        yield pipe


@pytest.fixture
def bridge(shared: Pipe) -> Iterator[Pipe]:
    """The shared bridge; whatever the test did to it, it still works."""
    yield shared
    assert shared.ask("ping", {"payload": 7}) == {"payload": 7}
    result = shared.ask("execute", {"program": "qa", "inputs": {"question": "Still there?"}})
    assert isinstance(result["outputs"]["answer"], str)


def test_parse_error_for_what_is_no_messagepack(bridge: Pipe) -> None:
    bridge.send_bytes(frame(b"\xc1"))
    _, request_id, error, result = bridge.response(None)
    assert (request_id, result) == (None, None)
    assert error["code"] == "parse_error"
    assert "0xC1" in error["message"]


def test_parse_error_carries_the_id_of_its_request(bridge: Pipe) -> None:
    whole = encode([0, 4711, "ping", {"payload": "cut"}])
    bridge.send_bytes(frame(whole[:-2]))
    assert bridge.response(4711)[2]["code"] == "parse_error"


@pytest.mark.parametrize(
    ("message", "answered"),
    [
        ({"method": "ping"}, None),
        ([], None),
        ([3, 1, "ping", {}], None),
        ([0, 77, "ping"], 77),
        ([0, 78, 5, {}], 78),
        ([0, 79, "ping", []], 79),
        ([0, -1, "ping", {}], None),
        ([0, 2**63, "ping", {}], None),
        ([0, "1", "ping", {}], None),
    ],
)
def test_invalid_request_for_a_value_that_is_no_message(
    bridge: Pipe, message: Any, answered: int | None
) -> None:
    bridge.send(message)
    assert bridge.response(answered)[2]["code"] == "invalid_request"


def test_invalid_request_for_an_id_in_flight(bridge: Pipe) -> None:
    params = {"program": "qa", "inputs": {"question": "?"}}
    burst = b"".join(frame(encode([0, 500, "execute", params])) for _ in range(2))
    bridge.send_bytes(burst)
    refused = bridge.response(None)
    assert refused[2]["code"] == "invalid_request"
    assert refused[2]["data"] == {"id": 500}
    assert bridge.response(500)[2] is None


def test_frame_too_large_carries_the_id_of_its_request(bridge: Pipe) -> None:
    params = {"payload": "x" * MAX_FRAME_BYTES}
    bridge.send([0, 600, "ping", params])
    error = bridge.response(600)[2]
    assert error["code"] == "frame_too_large"
    assert error["data"]["limit"] == MAX_FRAME_BYTES
    assert error["data"]["size"] > MAX_FRAME_BYTES


def test_frame_too_large_for_an_answer_over_the_clients_limit() -> None:
    with Pipe() as pipe:
        pipe.ask("initialize", {"protocol_version": 1, "max_frame_bytes": 4096})
        error = pipe.refusal("ping", {"payload": "x" * 5000})
        assert error["code"] == "frame_too_large"
        assert error["data"]["limit"] == 4096
        assert pipe.ask("ping", {"payload": "x" * 3000}) == {"payload": "x" * 3000}


def test_method_not_found_says_what_was_probably_meant(bridge: Pipe) -> None:
    error = bridge.refusal("exeute", {})
    assert error["code"] == "method_not_found"
    assert "Did you mean 'execute'?" in error["message"]


@pytest.mark.parametrize(
    ("method", "params", "named"),
    [
        ("ping", {"paylaod": 1}, "Did you mean 'payload'?"),
        ("execute", {"program": "qa"}, "'inputs' is missing"),
        ("execute", {"program": "qa", "inputs": []}, "inputs must be a map"),
        ("execute", {"program": 5, "inputs": {}}, "program must be the id of a program or a map"),
        ("execute", {"program": "qa", "inputs": {}, "timeout_ms": 0}, "timeout_ms"),
        ("execute", {"program": "qa", "inputs": {}, "meta": []}, "meta must be a map"),
        ("execute", {"program": "qa", "inputs": {}, "adapter": "cha"}, "Did you mean 'chat'?"),
        ("execute", {"program": "qa", "inputs": {}, "config": {"temprature": 1}}, "temperature"),
        ("create", {"signature": "q -> a", "module": "predikt"}, "Did you mean 'predict'?"),
        (
            "create",
            {"signature": "q -> a", "options": {"n": 3}},
            "options of predict: unknown parameter 'n'",
        ),
        ("create", {"signature": 5}, "signature must be a string or a map"),
        ("configure", {"lms": {"a": {}}}, "lms.a: the parameter 'model' is missing"),
        ("configure", {"lms": {"a": {"model": "x/y", "api_key_env": "NO_SUCH"}}}, "NO_SUCH"),
        ("configure", {"lms": {"a": {"model": "openai/m", "extra": {"engine": 1}}}}, "extra"),
        ("load", {"state": {}}, "format_version"),
        ("load", {"state": {"format_version": 99}}, "newer"),
        ("create", {"signature": "q -> a", "module": "best_of_n"}, "options of best_of_n"),
        ("configure", {"lms": {"a": {"model": "demo/knnn"}}}, "Did you mean 'demo/knn'?"),
        ("shutdown", {"drain_ms": -1}, "drain_ms"),
        ("initialize", {}, "protocol_version"),
    ],
)
def test_invalid_params_names_the_parameter(
    bridge: Pipe, method: str, params: dict[str, Any], named: str
) -> None:
    error = bridge.refusal(method, params)
    assert error["code"] == "invalid_params"
    assert named in error["message"]


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"api_base": "http://127.0.0.1:1/v1"}},
        {"config": {"api_key": "sk"}},
        {"config": {"model": "other"}},
        {"adapter": "nope"},
        {"module": "nope"},
        {"demos": [{"inputs": {}, "outputs": {}, "flags": {"answer": "x"}}]},
    ],
)
def test_a_state_brings_no_address_no_key_and_nothing_unknown(
    bridge: Pipe, change: dict[str, Any]
) -> None:
    state = bridge.ask("dump", {"program": "qa"})["state"]
    error = bridge.refusal("load", {"state": {**state, **change}})
    assert error["code"] == "invalid_params"
    assert next(iter(change)) in error["message"]


def test_unsupported_version_says_which_are_supported(bridge: Pipe) -> None:
    error = bridge.refusal("initialize", {"protocol_version": 2})
    assert error["code"] == "unsupported_version"
    assert error["data"]["supported"] == [1]


@pytest.mark.parametrize(
    ("method", "params", "kind"),
    [
        ("execute", {"program": "qu", "inputs": {}}, "program"),
        ("describe", {"program": "none"}, "program"),
        ("delete", {"program": "none"}, "program"),
        ("dump", {"program": "none"}, "program"),
        ("execute", {"program": "qa", "inputs": {"question": "?"}, "lm": "none"}, "lm"),
        ("create", {"signature": "q -> a", "lm": "none"}, "lm"),
        ("configure", {"default_lm": "none"}, "lm"),
    ],
)
def test_not_found_says_what_kind_of_thing(
    bridge: Pipe, method: str, params: dict[str, Any], kind: str
) -> None:
    error = bridge.refusal(method, params)
    assert error["code"] == "not_found"
    assert error["data"]["kind"] == kind


def test_not_found_where_no_lm_is_configured() -> None:
    with Pipe() as pipe:
        pipe.ask("create", {"signature": "question -> answer", "program": "qa"})
        error = pipe.refusal("execute", {"program": "qa", "inputs": {"question": "?"}})
        assert (error["code"], error["data"]["kind"]) == ("not_found", "lm")
        assert "configure" in error["message"]


def test_already_exists_unless_replace(bridge: Pipe) -> None:
    error = bridge.refusal("create", {"signature": "q -> a", "program": "qa"})
    assert error["code"] == "already_exists"
    params = {"signature": "question -> answer", "program": "qa", "replace": True}
    assert bridge.ask("create", params)["revision"] > 1


@pytest.mark.parametrize(
    ("signature", "position"),
    [
        ("question", 8),
        ("question -> answer: strr", 20),
        ("question -> answer: list[", 25),
        ("question, question -> answer", 10),
    ],
)
def test_signature_error_says_where(bridge: Pipe, signature: str, position: int) -> None:
    error = bridge.refusal("create", {"signature": signature})
    assert error["code"] == "signature_error"
    assert error["data"]["position"] == position


def test_signature_error_for_an_output_that_the_module_makes_itself(bridge: Pipe) -> None:
    params = {"signature": "question -> reasoning, answer", "module": "chain_of_thought"}
    error = bridge.refusal("create", params)
    assert error["code"] == "signature_error"
    assert "reasoning" in error["message"]


def test_input_validation_tells_every_error_with_its_path(bridge: Pipe) -> None:
    signature = "name: str, count: int, tags: list[str] -> answer"
    bridge.ask("create", {"signature": signature, "program": "typed", "replace": True})
    inputs = {"count": "many", "tags": ["a", 5], "extra": True}
    error = bridge.refusal("execute", {"program": "typed", "inputs": inputs})
    assert error["code"] == "input_validation"
    errors = {tuple(item["path"]): item for item in error["data"]["errors"]}
    assert set(errors) == {("name",), ("count",), ("tags", 1), ("extra",)}
    assert all(
        set(item) == {"path", "type", "message", "expected", "got"} for item in errors.values()
    )


def test_input_validation_of_a_demonstration_says_which(bridge: Pipe) -> None:
    demos = [{"inputs": {"count": 1}, "outputs": {}}, {"inputs": {"count": "x"}, "outputs": {}}]
    error = bridge.refusal("create", {"signature": "count: int -> answer", "demos": demos})
    assert error["code"] == "input_validation"
    assert error["data"]["errors"][0]["path"] == ["demos", 1, "inputs", "count"]


def test_overloaded_beyond_the_limit_of_requests_in_flight(bridge: Pipe) -> None:
    params = {"program": "qa", "inputs": {"question": "?"}}
    ids = range(7000, 7200)
    bridge.send_bytes(b"".join(frame(encode([0, n, "execute", params])) for n in ids))
    errors = [bridge.response(n)[2] for n in ids]
    refused = [error for error in errors if error is not None]
    assert refused, "200 at once and room for 16"
    assert len(refused) < len(ids)
    assert {(error["code"], error["retryable"]) for error in refused} == {("overloaded", True)}


def test_a_notification_that_nobody_knows_is_not_answered(bridge: Pipe) -> None:
    bridge.send([2, "hello", {}])
    bridge.send([2, "cancel", {"id": 123456}])
    bridge.send([2, "cancel", {"id": "text"}])
    bridge.send([2, "grant", {"id": 1, "n": 5}])
    bridge.send([2, 5, {}])
    bridge.send([1, 99, None, "an answer to nothing"])
    bridge.send([1, 99, "no map", None])
    marker = bridge.request("ping", {"payload": "next"})
    assert bridge.receive() == [1, marker, None, {"payload": "next"}]


def test_unavailable_where_dspy_cannot_be_imported(tmp_path: Path) -> None:
    # With half a character in it, as a path under another locale may have.
    (tmp_path / "dspy.py").write_text("raise ImportError('no such thing here \\udcff')")
    with Pipe(env={"PYTHONPATH": str(tmp_path)}) as pipe:
        assert pipe.ask("ping", {"payload": 1}) == {"payload": 1}
        error = pipe.refusal("create", {"signature": "question -> answer"})
        assert error["code"] == "unavailable"
        assert "no such thing here" in error["message"]
        assert "pip install" in error["message"]
        (ready,) = pipe.notifications
        assert ready[:2] == [2, "ready"]
        assert ready[2]["error"]["code"] == "unavailable"
        assert pipe.ask("stats")["programs"] == 0


def test_unavailable_whatever_the_import_raises(tmp_path: Path) -> None:
    (tmp_path / "dspy.py").write_text("raise SystemExit(3)")
    with Pipe(env={"PYTHONPATH": str(tmp_path)}) as pipe:
        assert pipe.refusal("create", {"signature": "question -> answer"})["code"] == "unavailable"


def test_a_name_is_looked_for_among_few_programs_only() -> None:
    with Pipe() as pipe:
        for number in range(201):
            pipe.request("create", {"signature": "q -> a", "program": f"program{number}"})
        assert "Did you mean" not in pipe.refusal("describe", {"program": "program"})["message"]
        pipe.ask("delete", {"program": "program7"})
        assert "Did you mean" in pipe.refusal("describe", {"program": "program7x"})["message"]


@pytest.mark.parametrize("adapter", ["chat", "json", "xml", "baml", "two_step"])
def test_an_answer_that_cannot_be_read_is_told_of_the_adapter_that_was_asked_for(
    bridge: Pipe, adapter: str
) -> None:
    with OpenAIServer(lambda _request: Answer("no fields in here")) as server:
        lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "api_key": server.api_key}
        program = {"signature": "question -> answer: int"}
        inputs = {"program": program, "inputs": {"question": "?"}, "lm": lm, "adapter": adapter}
        error = bridge.refusal("execute", inputs)
    assert error["code"] == "output_validation"
    assert f"could not be read by the adapter {adapter} (" in error["message"]


def test_a_list_that_is_too_long_is_refused_with_its_length(bridge: Pipe) -> None:
    steps = [{"name": f"s{index}", "signature": "q -> a"} for index in range(101)]
    error = bridge.refusal("create", {"inputs": [], "steps": steps, "outputs": ["s0.a"]})
    assert "steps must be a list of at most 100, got one of 101." in error["message"]


def test_a_variable_that_is_set_and_empty_is_one_that_is_not_set() -> None:
    with Pipe(env={"DSPEX_RECORD": ""}) as pipe:
        assert pipe.ask("ping") == {"payload": None}
