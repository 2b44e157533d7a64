"""A server that is asked to end while calls are under way: each is answered, its row true."""

from __future__ import annotations

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest

from integration.server_work import (
    BATCH,
    ROWS,
    WAIT_S,
    Gate,
    batch_under_way,
    prepare,
    solve,
)
from tests.server.background import on_a_loop

if TYPE_CHECKING:
    from dspex_bridge.testing.scripted_lm import Prompt, ScriptedLM

    from integration.server_process import ServerProcess, Start

EXECUTIONS = "{ executions(page: {first: 500}) { nodes { state error { code } } } }"
STREAM = """
subscription ($input: ExecuteInput!) { executionStream(input: $input) {
  ... on Execution { state outputs error { code message } } } }
"""
FOLLOW = "subscription ($id: ID!) { executionUpdates(programId: $id) { state } }"
# What runs below a server when it says that others may take over.
WITNESS = """
CREATE TABLE witness (children text);
CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  COPY witness FROM PROGRAM 'cat /proc/{pid}/task/*/children | tr "\\n" " "; echo';
  RETURN NEW; END $$;
CREATE TRIGGER see BEFORE UPDATE ON servers FOR EACH ROW
  WHEN (NEW.pid = {pid} AND NEW.seen_at < '2001-01-01') EXECUTE FUNCTION see();
"""
TAKE_OVER_S = 60

pytestmark = pytest.mark.timeout(240)


def _last(server: ServerProcess, method: str, params: dict[str, Any]) -> tuple[str, Any]:
    """The last event of a call."""
    answer = server.http.post(f"/v1/calls/{method}", json=params, timeout=WAIT_S)
    name, data = answer.text.strip().rpartition("\n\n")[2].split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_calls_that_outlast_a_servers_end_are_answered_as_interrupted(
    start: Start, lm: ScriptedLM
) -> None:
    gate = Gate(0)
    lm.always(gate)
    server = start()
    prepare(server)
    inputs = {"question": "1 + 1?"}
    evaluation = {"program": "qa", "devset": ROWS, "metric": {"name": "exact_match"}}
    batch = {"program": "qa", "inputs": [inputs] * 6, "max_concurrency": 2}
    with ThreadPoolExecutor(3) as callers:
        try:
            executing = callers.submit(
                server.http.post, "/v1/programs/qa/execute", json={"inputs": inputs}, timeout=WAIT_S
            )
            evaluating = callers.submit(_last, server, "evaluate", evaluation)
            running = callers.submit(_last, server, "batch", batch)
            assert gate.reached.wait(WAIT_S)
            server.wait_for_running(3)
            server.process.terminate()
            answer = executing.result(WAIT_S)
            assert answer.status_code == 200
            assert answer.json()["state"] == "failed"
            assert answer.json()["error"]["code"] == "interrupted"
            name, told = evaluating.result(WAIT_S)
            assert (name, told["code"], told["retryable"]) == ("error", "interrupted", True)
            name, told = running.result(WAIT_S)
            codes = {item["error"]["code"] for item in told["results"]}
            assert (name, codes) == ("result", {"interrupted", "shutting_down"})
            assert server.process.wait(WAIT_S) == 0
        finally:
            gate.opened.set()
    assert server.close() == 0
    assert "Traceback" not in "".join(server.output)
    rows = start().graphql(EXECUTIONS)["executions"]["nodes"]
    assert [(row["state"], row["error"]["code"]) for row in rows] == 3 * [("FAILED", "interrupted")]


def test_a_server_that_is_asked_to_end_does_so_under_clients_that_go_on_calling(
    start: Start, lm: ScriptedLM
) -> None:
    changed, asked, gone = threading.Condition(), 0, 0

    def answer(_prompt: Prompt) -> dict[str, str]:
        """One of the two is always under way, for as long as both go on."""
        nonlocal asked
        with changed:
            asked += 1
            number = asked
            changed.notify_all()
            assert changed.wait_for(lambda: asked > number or gone, WAIT_S)
        return {"answer": "2"}

    def call(_number: int) -> set[str]:
        nonlocal gone
        states = set()
        with httpx.Client(base_url=server.url, timeout=WAIT_S) as http:
            inputs = {"inputs": {"question": "1 + 1?"}}
            try:
                while True:
                    told = http.post("/v1/programs/qa/execute", json=inputs).json()
                    states.add(told.get("state") or told["code"])
            except httpx.TransportError:
                return states
            finally:
                with changed:
                    gone += 1
                    changed.notify_all()

    lm.always(answer)
    server = start()
    prepare(server)
    with ThreadPoolExecutor(2) as clients:
        calling = clients.map(call, range(2))
        with changed:
            assert changed.wait_for(lambda: asked > 5, WAIT_S)
        server.process.terminate()
        assert list(calling) == 2 * [{"completed"}]
    assert server.process.wait(WAIT_S) == 0


def test_streams_over_a_websocket_run_to_their_end_or_are_answered_as_interrupted(
    start: Start, lm: ScriptedLM
) -> None:
    gates = {"1 + 1?": Gate(0), "2 + 2?": Gate(0)}

    def answer(prompt: Prompt) -> dict[str, str]:
        return next(gate for text, gate in gates.items() if text in prompt.text)(prompt)

    lm.always(answer)
    server = start()
    try:
        _end_with_streams(server, prepare(server), gates)
    finally:
        for gate in gates.values():
            gate.opened.set()
    assert server.close() == 0
    assert "Traceback" not in "".join(server.output)


@on_a_loop
async def _end_with_streams(server: ServerProcess, program_id: str, gates: dict[str, Gate]) -> None:
    async def stream(question: str) -> Any:
        asked = {"program": "qa", "inputs": {"question": question}}
        async with server.subscribe(STREAM, input=asked) as events:
            return [event["executionStream"] async for event in events][-1]

    async with server.subscribe(FOLLOW, id=program_id) as following:
        first, second = (asyncio.create_task(stream(question)) for question in gates)
        for gate in gates.values():
            assert await asyncio.to_thread(gate.reached.wait, WAIT_S)
        server.process.terminate()
        gates["1 + 1?"].opened.set()
        assert (await first)["outputs"] == {"answer": "2"}
        interrupted = await second
        assert (interrupted["state"], interrupted["error"]["code"]) == ("FAILED", "interrupted")
        assert "the server ended" in interrupted["error"]["message"]
        states: list[str] = []

        async def follow() -> None:
            async for told in following:
                states.append(told["executionUpdates"]["state"])

        with pytest.raises(RuntimeError, match="shutting_down"):
            await follow()
        assert {"COMPLETED", "FAILED"} <= set(states)


def test_jobs_are_others_when_nothing_of_them_runs_here_any_more(
    start_shared: Start, lm: ScriptedLM, shared_url: str
) -> None:
    ending, other = start_shared(), start_shared("--batches", "0")
    batch_id, gate = batch_under_way(ending, lm, 10, answered=2)
    with psycopg.connect(shared_url, autocommit=True) as database:
        database.execute(WITNESS.format(pid=ending.process.pid).encode())
        try:
            assert ending.close() == 0
            seen = database.execute("SELECT children FROM witness").fetchall()
        finally:
            lm.always(solve)
            gate.opened.set()
    assert [children.strip() for (children,) in seen] == [""]
    assert "Traceback" not in "".join(ending.output)
    last = start_shared(command="worker")
    batch = other.wait(BATCH, "COMPLETED", TAKE_OVER_S, id=batch_id)
    assert (batch["completed"], batch["failed"]) == (10, 0)
    assert last.close() == 0
