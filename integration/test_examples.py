"""The clients in protocol/examples against the real bridge, and the Python blocks of the READMEs,
all as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from dspex_protocol.codec import decode
from dspex_protocol.framing import FrameReader, Oversized

from integration.pipe import BOUND_S, BRIDGE

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "protocol" / "examples"
README = EXAMPLES / "README.md"

COMMANDS = {
    "node": ("node", "node.mjs"),
    "ruby": ("ruby", "-w", "ruby.rb"),
    "python": (sys.executable, "python.py"),
}

MAX_LINES = 80

# Runs a bridge ($2...) and keeps a copy of what it reads in $0 and of what it writes in $1.
RECORDING = ("bash", "-o", "pipefail", "-c", 'tee "$0" | "${@:2}" | tee "$1"')


def run(command: Sequence[str], cwd: Path = EXAMPLES) -> subprocess.CompletedProcess[str]:
    """Runs to the end, within a bound, with `dspex` on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=BOUND_S,
            check=False,
        )
    except FileNotFoundError:
        pytest.fail(f"{command[0]} is not installed: run scripts/setup --example-tests")


def blocks(document: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.M | re.S)
    assert found, f"no block of {language} in {document}"
    return found


def messages(recording: Path) -> list[Any]:
    frames = FrameReader().feed(recording.read_bytes())
    return [decode(frame) for frame in frames if not isinstance(frame, Oversized)]


@pytest.mark.parametrize("language", COMMANDS)
def test_an_example_prints_what_the_readme_says(language: str) -> None:
    (expected,) = blocks(README, "text")
    finished = run([*COMMANDS[language], *BRIDGE])
    assert (finished.stdout, finished.stderr) == (expected, "")
    assert finished.returncode == 0


@pytest.mark.parametrize("language", COMMANDS)
def test_an_example_finds_the_bridge_by_itself(language: str) -> None:
    (expected,) = blocks(README, "text")
    assert run(COMMANDS[language]).stdout == expected


@pytest.mark.parametrize("language", COMMANDS)
def test_an_example_keeps_to_the_protocol(language: str, tmp_path: Path) -> None:
    sent, received = tmp_path / "sent", tmp_path / "received"
    run([*COMMANDS[language], *RECORDING, str(sent), str(received), *BRIDGE]).check_returncode()
    requests = {one[1]: one for one in messages(sent) if one[0] == 0}
    grants = [one for one in messages(sent) if one[0] == 2]
    responses = {one[1]: one for one in messages(received) if one[0] == 1}
    chunks = [one[2] for one in messages(received) if one[:2] == [2, "chunk"]]

    methods = [method for _, _, method, _ in requests.values()]
    assert list(dict.fromkeys(methods)) == [
        "initialize",
        "configure",
        "create",
        "execute",
        "shutdown",
    ]
    assert set(responses) == set(requests), "each request has one response, and no more came"
    refused = [request_id for request_id, one in responses.items() if one[2] is not None]
    assert len(refused) == 1

    (stream,) = (n for n, one in requests.items() if one[3].get("stream"))
    assert {chunk["id"] for chunk in chunks} == {stream}
    assert len(chunks) > 1
    text = "".join(chunk["text"] for chunk in chunks)
    assert text == responses[stream][3]["outputs"]["summary"]
    assert requests[stream][3]["stream"]["window"] == 1
    assert grants == [[2, "grant", {"id": stream, "n": 1}]] * len(chunks)


@pytest.mark.parametrize("language", COMMANDS)
@pytest.mark.parametrize(
    "command", [["no-such-command"], ["sh", "-c", "exit 3"]], ids=["not there", "ends at once"]
)
def test_an_example_whose_bridge_is_gone_fails_and_says_so(
    language: str, command: list[str]
) -> None:
    finished = run([*COMMANDS[language], *command])
    assert finished.returncode not in (0, 13)  # 13: Node.js, where an answer never came
    assert re.search(r"no-such-command|the bridge (exited|ended)\D+3\b", finished.stderr)


@pytest.mark.parametrize("name", ["node.mjs", "ruby.rb", "python.py"])
def test_an_example_is_short_enough_for_a_first_lesson(name: str) -> None:
    lines = (EXAMPLES / name).read_text().splitlines()
    assert len(lines) < MAX_LINES
    assert max(map(len, lines)) <= 100


def test_the_node_packages_are_locked_without_a_registry() -> None:
    lock = (EXAMPLES / "package-lock.json").read_text()
    assert "://" not in lock
    locked: Mapping[str, Any] = json.loads(lock)["packages"]
    wanted = json.loads((EXAMPLES / "package.json").read_text())["dependencies"]
    assert locked[""]["dependencies"] == wanted
    for name in wanted:
        assert locked[f"node_modules/{name}"]["version"] == wanted[name]
        assert locked[f"node_modules/{name}"]["integrity"].startswith("sha512-")


def test_the_wire_in_the_examples_readme_runs_as_it_stands(tmp_path: Path) -> None:
    (block,) = blocks(README, "python")
    finished = run([sys.executable, "-c", block], tmp_path)
    assert (finished.stdout, finished.stderr) == ("[1, 1, None, {'payload': 'hello'}]\n", "")
    assert finished.stdout.strip() in block, "the comment says what is printed"
    assert finished.returncode == 0


def test_the_python_of_the_readme_runs_as_it_stands(tmp_path: Path) -> None:
    for block in blocks(ROOT / "README.md", "python"):
        finished = run([sys.executable, "-c", block], tmp_path)
        assert finished.returncode == 0, finished.stderr
        executed, score = finished.stdout.splitlines()
        answer, tokens = executed.rsplit(" ", 1)
        assert answer
        assert int(tokens) > 0
        assert float(score) == 1.0
