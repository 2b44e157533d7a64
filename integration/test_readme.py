"""The README's Elixir and its picture of the demo are what a user gets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "elixir_client"
ENV = {
    **{name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")},
    "DSPEX_BRIDGE": f"{sys.executable} -m dspex_bridge",
    "DSPEX_MODEL": "",
    "LC_ALL": "C.UTF-8",
    "MIX_ENV": "test",
}
TIMEOUT_S = 110


def block(language: str) -> str:
    """The README's first block in a language."""
    found = re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found.group(1)


def mix_run(*arguments: str) -> str:
    done = subprocess.run(
        ["mix", "run", *arguments],
        cwd=CLIENT,
        env=ENV,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_elixir_of_the_readme_runs() -> None:
    printed = mix_run("-e", block("elixir"))
    assert "category: :billing" in printed
    assert re.search(r"urgency: [01]\.\d", printed)


def test_the_demo_prints_what_the_readme_shows() -> None:
    printed = mix_run("demo/demo.exs").partition("No OPENAI_API_KEY")
    shown = block("text").partition("No OPENAI_API_KEY")
    without_time = re.compile(r", \d+ ms")
    assert without_time.sub("", printed[2]) == without_time.sub("", shown[2])
