"""The methods of the port protocol over HTTP, answered with server-sent events."""

from __future__ import annotations

import json
import select
import socket
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from dspex_bridge.programs.json_forms import from_json
from dspex_bridge.testing.scripted_lm import ScriptedLM

from integration.server_process import ServerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dspex_bridge.testing.scripted_lm import Prompt

WAIT_S = 30
# Pieces of a stream, and what a server may keep of them for one client that does not read.
MANY = 100_000
UNREAD_MB = 40
STREAM_S = 150
COMPACT: Any = {"separators": (",", ":")}
DEMOS = [
    {"inputs": {"question": "1 + 1?"}, "outputs": {"answer": "2"}},
    {"inputs": {"question": "2 + 2?"}, "outputs": {"answer": "4"}},
]


@pytest.fixture
def lm(module_lm: ScriptedLM) -> ScriptedLM:
    module_lm.always({"answer": "4"})
    return module_lm


@pytest.fixture
def server(module_server: ServerProcess, lm: ScriptedLM) -> ServerProcess:
    """One for all tests; each has programs of its own."""
    return module_server


def events(response: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in response.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def call(server: ServerProcess, method: str, **params: Any) -> list[tuple[str, Any]]:
    with server.http.stream("POST", f"/v1/calls/{method}", json=params) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return [(name, from_json(data)) for name, data in events(response)]


def result(server: ServerProcess, method: str, **params: Any) -> Any:
    told = call(server, method, **params)
    assert told[-1][0] == "result", told
    return told[-1][1]


def error(server: ServerProcess, method: str, **params: Any) -> Any:
    told = call(server, method, **params)
    assert told[-1][0] == "error", told
    return told[-1][1]


def test_a_program_is_made_described_run_dumped_and_deleted(server: ServerProcess) -> None:
    made = result(server, "create", program="sums", signature="question -> answer", demos=DEMOS)
    assert (made["program"], made["revision"], made["module"]) == ("sums", 1, "predict")
    assert made["input_schema"]["required"] == ["question"]
    done = result(server, "execute", program="sums", inputs={"question": "2 + 2?"})
    assert done["outputs"] == {"answer": "4"}
    assert done["usage"]["total_tokens"] > 0
    about = result(server, "describe", program="sums")
    assert (about["program"], len(about["demos"])) == ("sums", 2)
    assert about["counters"] == {"executions": 1, "errors": 0}
    assert result(server, "list", prefix="sum")["programs"][0]["signature"].startswith("question")
    state = result(server, "dump", program="sums")["state"]
    assert result(server, "load", program="copy", state=state)["program"] == "copy"
    assert result(server, "delete", program="sums") == {"deleted": True}
    assert error(server, "describe", program="sums")["code"] == "not_found"


def test_an_execution_over_a_call_is_a_row_like_any_other(server: ServerProcess) -> None:
    result(server, "create", program="rows", signature="question -> answer")
    result(server, "execute", program="rows", inputs={"question": "?"})
    assert error(server, "execute", program="rows", inputs={"question": 1})["code"] == (
        "input_validation"
    )
    query = "query ($id: ID!) { program(id: $id) { id } }"
    program = server.graphql(query, id="rows")["program"]["id"]
    found = server.graphql(
        "query ($id: ID!) { executions(filter: {programId: $id}) { nodes { state } } }", id=program
    )
    assert [row["state"] for row in found["executions"]["nodes"]] == ["FAILED", "COMPLETED"]


def test_a_replaced_program_has_a_new_revision_but_where_nothing_is_new(
    server: ServerProcess,
) -> None:
    def put(**more: Any) -> int:
        made = result(server, "create", program="again", signature="q -> a", replace=True, **more)
        return int(made["revision"])

    assert [put(), put(), put(instructions="Answer."), put()] == [1, 1, 2, 3]
    assert error(server, "create", program="again", signature="q -> a")["code"] == "already_exists"


def test_the_chunks_of_a_stream_are_the_text(server: ServerProcess, lm: ScriptedLM) -> None:
    lm.always({"answer": "one two three four"})
    result(server, "create", program="spoken", signature="question -> answer")
    told = call(server, "execute", program="spoken", inputs={"question": "?"}, stream={"window": 1})
    chunks = [data for name, data in told if name == "chunk"]
    assert "".join(chunk["text"] for chunk in chunks) == "one two three four"
    assert set(chunks[0]) == {"field", "attempt", "text", "done"}
    assert told[-1][1]["outputs"]["answer"] == "one two three four"


def _unread(server: ServerProcess, method: str, params: dict[str, Any]) -> socket.socket:
    """A call whose answer nobody reads."""
    body = json.dumps(params).encode()
    head = f"POST /v1/calls/{method} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json"
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((server.http.base_url.host, server.http.base_url.port))
    connection.sendall(f"{head}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
    return connection


def _resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


@pytest.mark.timeout(300)
def test_who_never_reads_a_stream_holds_up_nothing_and_takes_no_memory(
    server: ServerProcess, lm: ScriptedLM
) -> None:
    text = "w " * MANY
    lm.always({"answer": text.strip()})
    result(server, "create", program="unread", signature="question -> answer")
    params: dict[str, Any] = {"program": "unread", "inputs": {"question": "?"}}
    result(server, "execute", **params)
    before_mb = _resident_mb(server.process.pid)
    params["stream"] = {"window": 1_000_000}
    with _unread(server, "execute", params):
        # It ends though nobody hears of it.
        query = '{ program(id: "unread") { executions failures } }'
        found = server.wait_until(query, lambda found: found["executions"] == 2, STREAM_S)
        assert found["failures"] == 0
        assert _resident_mb(server.process.pid) - before_mb < UNREAD_MB


def test_a_batch_tells_of_each_item_and_each_is_a_row(server: ServerProcess) -> None:
    result(server, "create", program="many", signature="question -> answer")
    inputs = [{"question": "a"}, {"question": 1}, {"question": "c"}]
    told = call(server, "batch", program="many", inputs=inputs)
    items = {data["index"]: data for name, data in told if name == "item"}
    assert {index: next(iter(set(item) - {"index"})) for index, item in items.items()} == {
        0: "ok",
        1: "error",
        2: "ok",
    }
    assert [data["step"] for name, data in told if name == "progress"] == [1, 2, 3]
    answer = told[-1][1]
    assert [next(iter(item)) for item in answer["results"]] == ["ok", "error", "ok"]
    assert answer["usage"]["total_tokens"] == sum(
        item["ok"]["usage"]["total_tokens"] for item in answer["results"] if "ok" in item
    )
    assert result(server, "list", prefix="many")["programs"][0]["executions"] == 3
    halted = result(
        server, "batch", program="many", inputs=inputs[1:], on_error="halt", max_concurrency=1
    )
    assert halted["results"][1]["error"]["code"] == "cancelled"
    assert error(server, "batch", program="nobody", inputs=inputs)["code"] == "not_found"


def test_a_program_is_scored_and_optimized(server: ServerProcess) -> None:
    result(server, "create", program="plain", signature="question -> answer")
    metric = {"name": "exact_match"}
    told = call(server, "evaluate", program="plain", devset=DEMOS, metric=metric)
    assert told[-1][1]["score"] == 0.5
    assert [data for name, data in told if name == "progress"][-1] == {"step": 2, "total": 2}
    made = result(
        server,
        "optimize",
        program="plain",
        trainset=DEMOS,
        metric=metric,
        optimizer={"name": "labeled_few_shot", "params": {"k": 2}},
        save_as="better",
    )
    assert (made["program"], made["base_program"]) == ("better", "plain")
    about = result(server, "describe", program="better")
    assert (len(about["demos"]), about["lineage"]["base_program"]) == (2, "plain")
    assert result(server, "describe", program="plain")["demos"] == []
    refused = error(server, "evaluate", program="plain", devset=DEMOS, metric={"callback": "m"})
    assert refused["code"] == "unavailable"


def test_an_lm_is_one_of_the_servers_so_that_nobody_has_its_keys_sent_elsewhere(
    server: ServerProcess,
) -> None:
    inline = {"signature": "question -> answer"}
    result(server, "create", program="own", **inline)
    asked: list[tuple[str, dict[str, Any]]] = [
        ("execute", {"program": "own", "inputs": {"question": "?"}}),
        ("execute", {"program": inline, "inputs": {"question": "?"}}),
        ("batch", {"program": "own", "inputs": [{"question": "?"}]}),
        ("evaluate", {"program": "own", "devset": DEMOS, "metric": {"name": "exact_match"}}),
    ]
    judge = {**inline, "signature": "question, answer, expected -> score: float"}
    with closing(ScriptedLM()) as other:
        seen: list[Prompt] = []

        def see(prompt: Prompt) -> dict[str, Any]:
            seen.append(prompt)
            return {"answer": "4", "score": 1.0}

        other.always(see)
        foreign = {**other.lm, "api_key_env": "PATH"}
        foreign.pop("api_key", None)
        for method, params in asked:
            refused = error(server, method, **params, lm=foreign)
            assert (refused["code"], refused["data"]["param"]) == ("invalid_params", "lm")
            assert "--lms" in refused["message"]
            assert str(foreign["api_base"]) not in refused["message"]
        rest = {"inputs": {"question": "?"}, "lm": foreign}
        answer = server.http.post("/v1/programs/own/execute", json=rest)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_params")
        optimizing = {"program": "own", "trainset": DEMOS, "metric": {"name": "exact_match"}}
        copro = {"name": "copro", "params": {"prompt_lm": foreign}}
        variable = {"kind": "lm", "applies_to": "lm", "choices": [foreign]}
        grid = {"name": "variables", "params": {"variables": {"v": variable}, "strategy": "grid"}}
        nested: list[tuple[str, dict[str, Any]]] = [
            ("create", {**inline, "lm": foreign}),
            ("create", {**inline, "variables": {"v": variable}}),
            ("execute", {"program": {**inline, "lm": foreign}, "inputs": {"question": "?"}}),
            ("evaluate", {**asked[3][1], "metric": {"judge": {**judge, "lm": foreign}}}),
            ("optimize", {**optimizing, "lm": foreign, "optimizer": {"name": "copro"}}),
            ("optimize", {**optimizing, "optimizer": copro}),
            ("optimize", {**optimizing, "optimizer": grid}),
        ]
        for method, params in nested:
            assert error(server, method, **params)["code"] == "invalid_params", (method, params)
        assert seen == []
    for method, params in asked:
        assert result(server, method, **params, lm="main")
    unknown = error(server, "execute", **asked[0][1], lm="another")
    assert unknown["code"] == "not_found"
    schema = server.http.get("/v1/openapi.json").json()["components"]["schemas"]
    assert schema["Execute"]["properties"]["lm"]["type"] == "string"


def test_who_hangs_up_cancels_the_execution(server: ServerProcess, lm: ScriptedLM) -> None:
    asked, release = threading.Event(), threading.Event()

    def wait(_prompt: Prompt) -> dict[str, str]:
        asked.set()
        release.wait(WAIT_S)
        return {"answer": "late"}

    lm.always(wait)
    result(server, "create", program="slow", signature="question -> answer")
    try:
        with server.http.stream(
            "POST", "/v1/calls/execute", json={"program": "slow", "inputs": {"question": "?"}}
        ):
            assert asked.wait(WAIT_S)
        query = "{ executions(page: {first: 1}) { nodes { id } } }"
        (row,) = server.graphql(query)["executions"]["nodes"]
        state = "query ($id: ID!) { execution(id: $id) { state } }"
        server.wait(state, "CANCELLED", id=row["id"])
    finally:
        release.set()


def test_values_that_json_has_not_keep_their_meaning(server: ServerProcess) -> None:
    payload = {
        "b": {"$bytes": "AP8="},
        "n": {"$float": "nan"},
        "big": 2**70,
        "m": {"$map": {"$x": 1}},
    }
    http = server.http
    told = http.post("/v1/calls/ping", json={"payload": payload}).text
    assert told == f"event: result\ndata: {json.dumps({'payload': payload}, **COMPACT)}\n\n"
    assert http.post("/v1/calls/ping", json={"payload": {"$bytes": "?"}}).status_code == 400


@pytest.mark.parametrize("method", ["configure", "save", "stats"])
def test_what_needs_the_clients_own_files_or_keys_is_refused(
    server: ServerProcess, method: str
) -> None:
    refused = server.http.post(f"/v1/calls/{method}", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "unavailable")


def test_a_method_that_is_none_is_not_found(server: ServerProcess) -> None:
    assert server.http.post("/v1/calls/shutdown", json={}).status_code == 404
    made = error(server, "create", program="t", signature="q -> a", tools=[{"name": "t"}])
    assert made["code"] == "invalid_params"


def test_a_demonstration_has_values_that_json_has_not(server: ServerProcess) -> None:
    demo = {"inputs": {"photo": {"$bytes": "AP8="}}, "outputs": {"answer": "a cat"}}
    given = {"name": "photos", "signature": "photo: bytes -> answer", "demos": [demo]}
    assert server.http.post("/v1/programs", json=given).status_code == 201
    about = result(server, "describe", program="photos")
    assert about["demos"][0]["inputs"] == {"photo": b"\x00\xff"}
    refused = {**given, "name": "p", "demos": [{**demo, "inputs": {"photo": {"$bytes": "?"}}}]}
    assert server.http.post("/v1/programs", json=refused).status_code == 400


def test_who_hangs_up_at_once_leaves_nothing_open(server: ServerProcess, lm: ScriptedLM) -> None:
    release = threading.Event()

    def wait(_prompt: Prompt) -> dict[str, str]:
        release.wait(WAIT_S)
        return {"answer": "late"}

    lm.always(wait)
    result(server, "create", program="hasty", signature="question -> answer")
    body = json.dumps({"program": "hasty", "inputs": {"question": "?"}}).encode()
    head = f"POST /v1/calls/execute HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n"
    address = (server.http.base_url.host, server.http.base_url.port)
    try:
        for after_ms in range(40):
            with socket.create_connection(address) as connection:
                connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)
                # Each at another moment of what the server does meanwhile.
                select.select([], [], [], after_ms / 4000)
        # An execution that nobody waits for does not stay open.
        query = "{ executions(filter: {state: [PENDING, RUNNING]}) { totalCount } }"
        server.wait_until(query, lambda found: found["totalCount"] == 0)
    finally:
        release.set()
