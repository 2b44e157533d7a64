"""A server that is asked to end while calls are under way: each is answered, its row true."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from integration.server_work import ROWS, WAIT_S, Gate, prepare

if TYPE_CHECKING:
    from dspex_bridge.testing.scripted_lm import ScriptedLM

    from integration.server_process import ServerProcess, Start

EXECUTIONS = "{ executions(page: {first: 500}) { nodes { state error { code } } } }"
RUNNING = "{ executions(filter: {state: [RUNNING]}) { totalCount } }"


def _last(server: ServerProcess, method: str, params: dict[str, Any]) -> tuple[str, Any]:
    """The last event of a call."""
    answer = server.http.post(f"/v1/calls/{method}", json=params, timeout=WAIT_S)
    name, data = answer.text.strip().rpartition("\n\n")[2].split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def _wait_for_running(server: ServerProcess, count: int) -> None:
    until = time.monotonic() + WAIT_S
    while server.graphql(RUNNING)["executions"]["totalCount"] != count:
        assert time.monotonic() < until
        time.sleep(0.05)


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
            _wait_for_running(server, 3)
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
