"""server/README.md, followed to the letter, and the demo."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from integration.server_process import ServerProcess

ROOT = Path(__file__).resolve().parent.parent
GUIDE = (ROOT / "server" / "README.md").read_text()
TIMEOUT_S = 110


def test_the_guide_answers_what_it_shows(tmp_path: Path) -> None:
    first = GUIDE.partition("## The first program over GraphQL")[2].partition("\n## ")[0]
    blocks = re.findall(r"```(sh|json|text)\n(.*?)```", first, re.DOTALL)
    (install, said), *steps = [
        (blocks[index][1], blocks[index + 1][1]) for index in range(0, len(blocks), 2)
    ]
    assert install == "scripts/setup\n. .venv/bin/activate\ndspex serve\n"
    server = ServerProcess("--data-dir", str(tmp_path))
    try:
        line = next(line for line in server.output if line.startswith("dspex: "))
        assert re.sub(r":\d+/", ":8000/", line) == said
        assert len(steps) == 3
        for command, shown in steps:
            assert json.loads(output(server, command)) == json.loads(shown)
        try_the_batch(server)
        try_the_paths(server, tmp_path)
        (call,) = commands("### As the port protocol")
        assert output(server, call).startswith("event: ")
        assert '"category":"bug"' in output(server, call).replace(" ", "")
    finally:
        server.close()


def try_the_batch(server: ServerProcess) -> None:
    make, read = commands("### Many inputs at once")
    made, results = re.findall(r"```json\n(.*?)```", section("### Many inputs at once"), re.DOTALL)
    batch = json.loads(output(server, make))["data"]["executeBatch"]
    shown = json.loads(made)["data"]["executeBatch"]
    assert {**batch, "id": "BATCH-ID"} == shown
    server.wait("query ($id: ID!) { batch(id: $id) { state } }", "COMPLETED", id=batch["id"])
    found = output(server, read.replace("BATCH-ID", batch["id"]))
    assert json.loads(found) == json.loads(results)


def try_the_paths(server: ServerProcess, folder: Path) -> None:
    (folder / "sums.csv").write_text("question,answer\n1 + 1?,2\n")
    *lines, dataset = "".join(commands("### As JSON over HTTP")).splitlines()
    assert len(lines) == 7
    execution, statuses = "", []
    for line in lines:
        asked = line.replace("EXECUTION-ID", execution)
        answer, _, status = output(server, f"{asked} -w '\\n%{{http_code}}'").rpartition("\n")
        statuses.append(status)
        if "/execute " in line:
            execution = json.loads(answer)["id"]
    assert statuses == ["200", "201", "200", "200", "200", "409", "204"]
    assert json.loads(output(server, f"cd {folder}; {dataset}"))["size"] == 1


def section(heading: str) -> str:
    text = GUIDE.partition(f"{heading}\n")[2]
    assert text, heading
    return re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]


def commands(heading: str) -> list[str]:
    return re.findall(r"```sh\n(.*?)```", section(heading), re.DOTALL)


def output(server: ServerProcess, command: str) -> str:
    return subprocess.run(
        ["bash", "-ec", command.replace("http://127.0.0.1:8000", server.url)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=True,
    ).stdout


def test_the_demo_ends_with_an_execution_that_is_read_back() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("_KEY")}
    done = subprocess.run(
        [sys.executable, str(ROOT / "server" / "demo.py")],
        env={**environment, "DSPEX_MODEL": ""},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read = done.stdout.rpartition("execution(id: $id)")[2].partition("\n")[2]
    execution = json.loads(read)
    assert (execution["state"], execution["outputs"]) == ("COMPLETED", {"category": "billing"})
    assert "no language model" in done.stderr
