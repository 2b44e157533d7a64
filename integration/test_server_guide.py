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


def test_the_first_program_of_the_guide_answers_what_the_guide_shows(tmp_path: Path) -> None:
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
            done = subprocess.run(
                ["bash", "-ec", command.replace("http://127.0.0.1:8000", server.url)],
                capture_output=True,
                text=True,
                timeout=TIMEOUT_S,
                check=True,
            )
            assert json.loads(done.stdout) == json.loads(shown)
    finally:
        server.close()


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
