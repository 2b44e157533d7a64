"""`dspex conformance`: our bridge and our client pass it, and what breaks a rule does not."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from dspex_bridge.conformance.player import play
from dspex_bridge.conformance.sessions import Session, load_sessions
from dspex_protocol.client import Client
from dspex_protocol.errors import InvalidParamsError

from integration.conformance_driver import Driver
from integration.pipe import BRIDGE, Pipe
from tests.protocol.spec_page import code, headings, table

ROOT = Path(__file__).parents[1]
CONFORMANCE = (sys.executable, "-m", "dspex_bridge.conformance")
SERVE = (*CONFORMANCE, "--serve")
TIMEOUT_S = 60.0
SILENCE_S = 15.0
SESSIONS = load_sessions()


def conformance(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CONFORMANCE, *arguments], capture_output=True, text=True, timeout=100, check=False
    )


def bridge_that(*lines: str) -> tuple[str, ...]:
    """A bridge in which one thing is broken: Python lines that run before it does."""
    serve = "from dspex_bridge.cli import bridge; import sys; bridge(sys.argv[1:])"
    return (sys.executable, "-c", "\n".join([*lines, serve]))


# Sessions against bridges


@pytest.mark.parametrize("session", SESSIONS, ids=[session.name for session in SESSIONS])
def test_the_bridge_passes_the_session(session: Session) -> None:
    assert play(session, BRIDGE, TIMEOUT_S) is None


# What is broken -> the session that has to notice, what it has to say, and the patch.
BREAKS = {
    "a second answer": (
        "split_frames",
        "step 3: [1]: expected 2, got 1",
        "from dspex_protocol.connection import Connection as C",
        "send = C.send_at_once",
        "def twice(self, *answer):\n    send(self, *answer); send(self, *answer)",
        "C.send_at_once = twice",
    ),
    "no answer to a bad frame": (
        "bad_frames",
        "step 2: nothing came",
        "from dspex_protocol.connection import Connection as C, Refused",
        "C._answer_bad_frame = lambda self, request_id, error: Refused(request_id, error)",
    ),
    "an id that is not recovered": (
        "bad_frames",
        "step 6: [1]: expected 10, got null",
        "from dspex_protocol import connection",
        "connection.recover_id = lambda head, kind: None",
    ),
    "a limit that is ignored": (
        "frame_limit_option",
        "step 6: [2]: expected a map",
        "from dspex_protocol.framing import FrameReader as F",
        "init = F.__init__",
        "F.__init__ = lambda self, limit: init(self, 2**31)",
        "from dspex_protocol.connection import Connection as C",
        "C.max_frame_bytes = property(lambda self: 5000)",
    ),
    "a client's limit that is ignored": (
        "client_limit",
        "step 8: [2]: expected a map",
        "from dspex_protocol.connection import Connection as C",
        "C.peer_max_frame_bytes = property(lambda self: 2**31, lambda self, limit: None)",
    ),
    "an unknown notification that is answered": (
        "never_answered",
        "step 6: the message: expected a list of 4",
        "from dspex_bridge.dispatch import Dispatcher as D",
        "D.notification = lambda self, _: self._host.connection.send_notification('what', {})",
    ),
    "a cancel that is ignored": (
        "cancel",
        "step 6: [1]: expected 5, got 6",
        "from dspex_bridge.dispatch import Dispatcher as D",
        "D.notification = lambda self, notification: None",
    ),
    "a deadline that is ignored": (
        "cancel",
        "step 9: [2]: expected a map",
        "from dspex_bridge.dispatch import Dispatcher as D",
        "D._time_out = lambda self, call, timeout_ms: None",
    ),
    "a window that is ignored": (
        "stream",
        "step 4: the number of chunks: expected max 2",
        "from dspex_bridge import streams",
        "send = streams.ChunkStream._send_pending",
        "streams.ChunkStream._send_pending = lambda self, limited: send(self, limited=False)",
    ),
    "a grant that is ignored": (
        "stream",
        "step 6: the number of chunks: expected min 3, got 2",
        "from dspex_bridge.dispatch import Call",
        "Call.grant = lambda self, credit: None",
    ),
    "chunks of which one is lost": (
        "stream",
        "step 4: the chunks of 'answer', joined",
        "from dspex_bridge import streams",
        "put = streams.ChunkStream.put",
        "def lossy(self, field, text, done=False):\n    put(self, field, text[1:], done=done)",
        "streams.ChunkStream.put = lossy",
    ),
    "a limit of requests in flight that is ignored": (
        "overloaded",
        "step 8: [1]: expected 5, got 6",
        "from dspex_bridge.host import Host",
        "Host.max_in_flight = property(lambda self: 1 if self.dispatcher.in_flight == 0 else 99)",
    ),
    "a shutdown that does not wait": (
        "shutdown_drains",
        "step 7: [2]: expected null",
        "from dspex_bridge.dispatch import Dispatcher as D",
        "shut = D.shut_down",
        "D.shut_down = lambda self, drain_ms, *rest: shut(self, 100, *rest)",
    ),
    "a shutdown that does not cut off": (
        "shutdown_cuts_off",
        "step 4: [2]: expected a map",
        "from dspex_bridge.dispatch import Dispatcher as D",
        "D._cut_off = lambda self: None",
    ),
    "a process that stays": (
        "shutdown_cuts_off",
        "step 6: nothing came",
        "from dspex_bridge.host import Host",
        "Host.leave = lambda self: self.writer.flush()",
    ),
    "something printed on the wire": (
        "no_handshake",
        "step 2: its stdout holds what is no frame",
        "import os; os.write(1, b'Loading...')",
    ),
    "an id in flight that is taken": (
        "duplicate_id",
        "step 4: [1]: expected null, got 7",
        "from dspex_protocol.connection import Connection as C",
        "class Last(dict):\n"
        "    def setdefault(self, key, value):\n"
        "        self[key] = value\n"
        "        return value",
        "init = C.__init__",
        "def with_the_last(self, *args, **options):\n"
        "    init(self, *args, **options)\n"
        "    self._incoming = Last()",
        "C.__init__ = with_the_last",
    ),
    "unknown parameters that are let through": (
        "parameters",
        "step 4: [2]: expected a map",
        "from dspex_bridge.methods import METHODS",
        "METHODS['ping'].check = lambda value, where: None",
    ),
}


@pytest.mark.parametrize("broken", BREAKS)
def test_a_bridge_that_breaks_the_rule_fails_the_session(broken: str) -> None:
    name, said, *lines = BREAKS[broken]
    session = next(session for session in SESSIONS if session.name == name)
    # What is noticed by silence alone takes as long as that: long enough for the import of DSPy.
    timeout_s = SILENCE_S if "nothing" in said else TIMEOUT_S
    problem = play(session, bridge_that(*lines), timeout_s)
    assert problem is not None
    assert problem.startswith(said)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("cat",), "expected 1, got 0"),
        (("true",), "closed its std"),
        (("sleep", "100"), "nothing came within 1.0 s\n"),
        (("sh", "-c", "echo hello; sleep 100"), "within 1.0 s but the beginning of a frame"),
        (("sh", "-c", "printf '\\000\\000\\000\\001\\301'; sleep 100"), "a frame of its"),
        (("sh", "-c", "printf '\\000\\000'; head -c 1 > /dev/null"), "in the middle of a frame"),
    ],
)
def test_what_is_no_bridge_fails_and_the_account_says_why(
    command: tuple[str, ...], said: str
) -> None:
    session = next(session for session in SESSIONS if session.name == "no_handshake")
    problem = play(session, command, timeout_s=1.0)
    assert problem is not None
    assert said in problem


# The specification


def test_every_result_has_the_keys_that_the_specification_lists(tmp_path: Path) -> None:
    example = {"inputs": {"q": "?"}, "outputs": {"a": "!"}}
    labelled = {"program": "p", "trainset": [example], "optimizer": {"name": "labeled_few_shot"}}
    include = ["trace", "prompt", "completions"]
    line = {
        "inputs": [{"name": "q", "type": "str"}],
        "steps": [{"name": "one", "signature": "q -> a"}],
        "outputs": ["one.a"],
    }
    with Pipe("--state-dir", str(tmp_path)) as pipe:
        pipe.ask("create", {"program": "line", **line})
        results = {
            "initialize": pipe.ask("initialize", {"protocol_version": 1}),
            "ping": pipe.ask("ping"),
            "configure": pipe.ask("configure", {"lms": {"main": {"model": "demo/knn"}}}),
            "create": pipe.ask("create", {"signature": "q -> a", "program": "p"}),
            "execute": pipe.ask(
                "execute", {"program": "p", "inputs": {"q": "?"}, "include": include}
            ),
            "batch": pipe.ask("batch", {"program": "p", "inputs": [{"q": "?"}]}),
            "evaluate": pipe.ask(
                "evaluate", {"program": "p", "devset": [example], "metric": {"name": "f1"}}
            ),
            "optimize": pipe.ask("optimize", labelled),
            "save": pipe.ask("save", {"program": "p", "path": "p.json"}),
            "describe": {
                **pipe.ask("describe", {"program": "p", "include": ["function_schemas"]}),
                **pipe.ask("describe", {"program": "line"}),
            },
            "list": pipe.ask("list"),
            "dump": pipe.ask("dump", {"program": "p"}),
            "stats": pipe.ask("stats"),
            "delete": pipe.ask("delete", {"program": "p"}),
        }
        results["load"] = pipe.ask("load", {"state": results["dump"]["state"]})
        results["shutdown"] = pipe.ask("shutdown")
    for method in headings("7. Methods"):
        told = [code(row[0]) for row in table("result", method).rows]
        assert sorted(told) == sorted(results[method]), method
    listed = results["list"]["programs"][0]
    inner = {
        ("initialize", "server"): results["initialize"]["server"],
        ("initialize", "limits"): results["initialize"]["limits"],
        ("execute", "usage"): results["execute"]["usage"],
        ("describe", "counters"): results["describe"]["counters"],
        ("list", "programs"): listed,
        ("stats", "requests"): results["stats"]["requests"]["execute"],
        ("stats", "lms"): results["stats"]["lms"]["main"],
    }
    for (method, key), found in inner.items():
        cell = next(row[2] for row in table("result", method).rows if code(row[0]) == key)
        assert f"{{{', '.join(found)}}}" in cell, f"{method}: {key}"


# The command


def test_the_command_runs_named_sessions_and_counts_them() -> None:
    done = conformance("version", "overloaded", "--no-options", "--", *BRIDGE)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok        version: ")
    assert lines[1] == "left out  overloaded: needs --max-in-flight 1"
    assert lines[2] == "1 passed, 0 failed, 1 left out"


def test_the_command_says_what_was_expected_and_exits_with_1() -> None:
    done = conformance("version", "--timeout", "5", "--", "cat")
    assert done.returncode == 1
    assert "FAILED    version" in done.stdout
    assert "step 2: [0]: expected 1, got 0" in done.stdout
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed"


def test_the_command_lists_the_sessions() -> None:
    done = conformance("--list")
    assert done.returncode == 0
    listed = [line.split()[0] for line in done.stdout.splitlines()]
    assert listed == [session.name for session in SESSIONS]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "which bridge after a --"),
        (("--",), "no COMMAND after the --"),
        (("no_such", "--", "cat"), "no session no_such"),
        (("version", "--", "/no/such/command"), "cannot be started"),
        (("--timeout", "0", "--", "cat"), "a number of seconds over 0"),
    ],
)
def test_wrong_usage_is_explained_with_exit_status_2(arguments: tuple[str, ...], said: str) -> None:
    done = conformance(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


def test_the_command_works_from_a_wheel(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    (wheel,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path))
    with ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "site")
    done = subprocess.run(
        [*CONFORMANCE, "version", "--", sys.executable, "-m", "dspex_bridge"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    names = {path.name for path in (tmp_path / "site/dspex_protocol/vectors").rglob("*.json")}
    assert names == {path.name for path in (ROOT / "protocol/vectors").rglob("*.json")}


# Cases for clients


def test_the_python_client_passes_every_case() -> None:
    driver = Driver(SERVE)
    status = asyncio.run(driver.run())
    failed = {name: verdict for name, verdict in driver.verdicts.items() if not verdict["ok"]}
    assert failed == {}
    assert len(driver.verdicts) == 30
    assert status == 0


def test_a_client_that_reports_nonsense_fails_and_the_report_says_so(tmp_path: Path) -> None:
    report = tmp_path / "report"
    driver = Driver((*SERVE, "--report", str(report)))
    outcome = driver._outcome

    async def wrong(case: dict[str, object], call: dict[str, object]) -> dict[str, object]:
        told = await outcome(case, call)
        return {"outputs": {"n": 0}} if case["case"] in ("twice", "dies") else told

    driver._outcome = wrong  # type: ignore[method-assign]
    status = asyncio.run(driver.run())
    assert {name for name, verdict in driver.verdicts.items() if not verdict["ok"]} == {
        "twice",
        "dies",
    }
    lines = [json.loads(line) for line in report.read_text("utf-8").splitlines()]
    assert {line["case"] for line in lines if not line["ok"]} == {"twice", "dies"}
    assert status == 0, "the last bridge saw nothing wrong"


@pytest.mark.parametrize(
    ("case", "change", "problem"),
    [
        (
            "values",
            lambda inputs: {**inputs, "floats": [0.1, 1, *inputs["floats"][2:]]},
            "inputs.floats[1]: expected 1.0, got 1",
        ),
        ("values", lambda inputs: {**inputs, "new": 1}, "keys that are not the case's"),
        ("out_of_order", lambda _inputs: {}, "not what the case asks for (KeyError: 'n')"),
    ],
    ids=["altered", "added", "missing"],
)
def test_a_client_that_alters_inputs_is_answered_at_once_with_what_differs(
    case: str, change: Callable[[dict[str, Any]], dict[str, Any]], problem: str
) -> None:
    async def play() -> tuple[list[Any], dict[str, Any]]:
        client = await Client.spawn(SERVE)
        try:
            cases = (await client.execute("conformance/cases", {}))["outputs"]["cases"]
            (calls,) = [told["calls"] for told in cases if told["case"] == case]
            answers = await asyncio.gather(
                *(client.execute(f"conformance/{case}", change(call["inputs"])) for call in calls),
                return_exceptions=True,
            )
            saw = await client.execute("conformance/saw", {"case": case, "outcomes": []})
            return answers, saw["outputs"]
        finally:
            await client.close()

    answers, verdict = asyncio.run(asyncio.wait_for(play(), TIMEOUT_S))
    for answer in answers:
        assert isinstance(answer, InvalidParamsError)
        assert problem in str(answer)
    assert not verdict["ok"]
    assert problem in verdict["problems"][0]
