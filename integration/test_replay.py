"""A bridge records what its LMs answer, and another one gives it again, without a provider."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from integration.openai_server import Answer, OpenAIServer, Request, answering, failure
from integration.pipe import BRIDGE, Pipe

ANSWER = answering({"answer": "Paris"}, usage=(100, 20))
PROGRAM = {"signature": "question -> answer"}
INPUTS = {"program": PROGRAM, "inputs": {"question": "Where?"}}
REPLAY = {"model": "replay/qa.jsonl"}


def real(server: OpenAIServer, **options: Any) -> dict[str, Any]:
    return {
        "model": "openai/gpt-4.1-mini",
        "api_base": server.url,
        "api_key": server.api_key,
        **options,
    }


def recorded(folder: Path, server: OpenAIServer, *requests: Any, **options: Any) -> list[Any]:
    """The results of executes, recorded in qa.jsonl."""
    with Pipe("--record", str(folder / "qa.jsonl")) as pipe:
        pipe.ask("configure", {"lms": {"main": real(server, **options)}})
        return [pipe.ask("execute", request) for request in requests]


def replaying(folder: Path) -> Pipe:
    pipe = Pipe("--state-dir", str(folder))
    pipe.ask("configure", {"lms": {"main": REPLAY}})
    return pipe


def without_time(result: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in result.items() if key != "duration_ms"}


@pytest.mark.parametrize("adapter", ["chat", "json", "xml"])
@pytest.mark.parametrize("stream", [None, {}], ids=["whole", "streamed"])
def test_a_recording_gives_the_same_result_again(tmp_path: Path, adapter: str, stream: Any) -> None:
    request = {**INPUTS, "adapter": adapter, "stream": stream}
    with OpenAIServer(ANSWER) as server:
        (told,) = recorded(tmp_path, server, request)
    assert told["cost_usd"] > 0
    with replaying(tmp_path) as pipe:
        again = pipe.ask("execute", request)
        chunks = [params["text"] for _, name, params in pipe.notifications if name == "chunk"]
    assert without_time(again) == without_time(told)
    if stream is not None:
        assert "".join(chunks) == "Paris"


def test_the_parameters_of_the_lm_are_no_part_of_what_was_asked_and_those_of_the_call_are(
    tmp_path: Path,
) -> None:
    hot = {**INPUTS, "config": {"temperature": 0.9}}
    with OpenAIServer([Answer("[[ ## answer ## ]]\ncold"), Answer("[[ ## answer ## ]]\nhot")]) as s:
        recorded(tmp_path, s, INPUTS, hot, temperature=0.1, max_tokens=50)
    with replaying(tmp_path) as pipe:
        assert pipe.ask("execute", hot)["outputs"] == {"answer": "hot"}
        assert pipe.ask("execute", INPUTS)["outputs"] == {"answer": "cold"}


def test_the_nth_answer_comes_the_nth_time_and_then_the_last(tmp_path: Path) -> None:
    answers = [Answer(f"[[ ## answer ## ]]\n{word}") for word in ("one", "two", "three")]
    with OpenAIServer(answers) as server:
        recorded(tmp_path, server, INPUTS, INPUTS, INPUTS)
    with replaying(tmp_path) as pipe:
        words = [pipe.ask("execute", INPUTS)["outputs"]["answer"] for _ in range(5)]
        assert words == ["one", "two", "three", "three", "three"]
        # A test begins with a configure, and from the beginning.
        pipe.ask("configure", {"lms": {"main": REPLAY}})
        assert pipe.ask("execute", INPUTS)["outputs"]["answer"] == "one"


def test_what_was_not_recorded_is_an_error_that_says_so_and_no_other_lm_is_asked(
    tmp_path: Path,
) -> None:
    with OpenAIServer(ANSWER) as server:
        recorded(tmp_path, server, INPUTS)
        with replaying(tmp_path) as pipe:
            lms = {"spare": real(server), "main": {**REPLAY, "fallbacks": ["spare"]}}
            pipe.ask("configure", {"lms": lms, "default_lm": "main"})
            error = pipe.refusal("execute", {**INPUTS, "inputs": {"question": "Who?"}})
        assert len(server.requests) == 1
    assert (error["code"], error["retryable"]) == ("lm_error", False)
    assert "replay/qa.jsonl has no answer to this request" in error["message"]
    assert "whose last inputs are '[[ ## question ## ]] Who?' (key" in error["message"]
    assert "Record it: dspex record --file" in error["message"]


def test_a_recording_has_prompts_to_read_and_no_secret(tmp_path: Path) -> None:
    with OpenAIServer(ANSWER, api_key="sk-swordfish-and-salt") as server:
        inputs = {"question": "Is sk-swordfish-and-salt my key?"}
        recorded(tmp_path, server, {"program": PROGRAM, "inputs": inputs})
        address = server.url
    text = (tmp_path / "qa.jsonl").read_text()
    assert "swordfish" not in text
    assert address not in text
    (line,) = [json.loads(line) for line in text.splitlines()]
    assert line["lm"] == "main"
    assert "Is *** my key?" in str(line["request"]["messages"])
    with replaying(tmp_path) as pipe:
        result = pipe.ask("execute", {"program": PROGRAM, "inputs": inputs})
    assert result["outputs"] == {"answer": "Paris"}


def test_a_failure_is_not_recorded(tmp_path: Path) -> None:
    def script(request: Request) -> Answer:
        return failure(503) if request.number == 0 else ANSWER(request)

    with OpenAIServer(script) as server:
        recorded(tmp_path, server, INPUTS)
        assert len(server.requests) == 2
    assert (tmp_path / "qa.jsonl").read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("options", "model", "code"),
    [
        ((), "replay/qa.jsonl", "invalid_params"),
        (("--state-dir", "."), "replay/../qa.jsonl", "invalid_params"),
        (("--state-dir", "."), "replay//etc/passwd", "invalid_params"),
        (("--state-dir", "."), "replay/link.jsonl", "invalid_params"),
        (("--state-dir", "."), "replay/nowhere.jsonl", "not_found"),
        (("--state-dir", "."), "replay/bad.jsonl", "invalid_params"),
    ],
)
def test_a_recording_lies_inside_the_state_dir_and_is_one(
    tmp_path: Path, options: tuple[str, ...], model: str, code: str
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "qa.jsonl").write_text("")
    (tmp_path / "in" / "link.jsonl").symlink_to(tmp_path / "qa.jsonl")
    (tmp_path / "in" / "bad.jsonl").write_text('\n{"key": "x"}\n')
    where = [str(tmp_path / "in") if option == "." else option for option in options]
    with Pipe(*where) as pipe:
        error = pipe.refusal("configure", {"lms": {"main": {"model": model}}})
    assert error["code"] == code
    if "nowhere" in model:
        assert error["data"] == {"kind": "file", "name": "nowhere.jsonl"}
        assert "there is no file 'nowhere.jsonl'" in error["message"]
        assert "Record it: dspex record --file" in error["message"]
    if "bad" in model:
        assert "bad.jsonl, line 2 is no recorded exchange" in error["message"]


@pytest.mark.parametrize(
    "damage",
    [
        {"cost_usd": float("nan")},
        {"cost_usd": float("inf")},
        {"cost_usd": -5.0},
        {"cost_usd": "1"},
        {"cost_usd": True},
        {"model": ""},
        {"model": " "},
    ],
    ids=repr,
)
def test_a_line_that_says_what_no_bridge_writes_is_refused_with_its_number(
    tmp_path: Path, damage: dict[str, Any]
) -> None:
    with OpenAIServer(ANSWER) as server:
        recorded(tmp_path, server, INPUTS)
    good = (tmp_path / "qa.jsonl").read_text()
    (tmp_path / "bad.jsonl").write_text(good + json.dumps({**json.loads(good), **damage}))
    with Pipe("--state-dir", str(tmp_path)) as pipe:
        error = pipe.refusal("configure", {"lms": {"main": {"model": "replay/bad.jsonl"}}})
        assert (error["code"], error["data"]["param"]) == ("invalid_params", "model")
        assert "bad.jsonl, line 2 is no recorded exchange" in error["message"]


def test_dspex_record_records_what_the_bridges_of_a_command_answer(tmp_path: Path) -> None:
    dspex = [sys.executable, "-P", "-c", "from dspex_bridge.cli import main; main()"]
    file = tmp_path / "qa.jsonl"
    file.write_text("what was there before\n")
    run = [*dspex, "run", "--lm", "demo/knn", "--signature", "question -> answer"]
    done = subprocess.run(
        [*dspex, "record", "--file", str(file), "--", *run, "--input", "question=Where?"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "dspex record: 1 exchanges in" in done.stderr
    with replaying(tmp_path) as pipe:
        answer = pipe.ask("execute", INPUTS)["outputs"]["answer"]
    assert f"answer: {answer}\n" in done.stdout


@pytest.mark.parametrize(
    ("command", "status", "told"),
    [
        (["no-such-command"], 127, "no-such-command: No such file or directory"),
        (["/"], 126, "/: Permission denied"),
        ([sys.executable, "-c", "raise SystemExit(3)"], 3, "nothing was recorded"),
    ],
)
def test_a_recording_stays_where_nothing_was_recorded(
    tmp_path: Path, command: list[str], status: int, told: str
) -> None:
    file = tmp_path / "qa.jsonl"
    file.write_text("what was there before\n")
    script = "from dspex_bridge.cli import main; main()"
    dspex = [sys.executable, "-P", "-c", script, "record", "--file", str(file), "--"]
    done = subprocess.run(
        [*dspex, *command], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status
    assert done.stderr == f"dspex record: {told}: {file} is as it was\n"
    assert file.read_text() == "what was there before\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    done = subprocess.run(
        [*BRIDGE, "--record", str(tmp_path / "nowhere" / "qa.jsonl")],
        stdin=subprocess.PIPE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
