"""A server from its start to an execution that is read back. `scripts/demo --server` runs it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

DSPEX = Path(sys.executable).with_name("dspex")

CREATE = """mutation ($input: ProgramInput!) {
  createProgram(input: $input) {
    ... on Program { name state revision }
    ... on Problem { code message }
  }
}"""
EXECUTE = """mutation ($input: ExecuteInput!) {
  executeProgram(input: $input) {
    ... on Execution { id state outputs lm totalTokens }
    ... on Problem { code message }
  }
}"""
READ = """query ($id: ID!) {
  execution(id: $id) { state inputs outputs transitions { source target } }
}"""
PROGRAM = {
    "name": "triage",
    "signature": 'text: str -> category: Literal["billing", "bug", "praise"]',
    "demos": [
        {"inputs": {"text": "I was charged twice."}, "outputs": {"category": "billing"}},
        {"inputs": {"text": "It crashes when I log in."}, "outputs": {"category": "bug"}},
        {"inputs": {"text": "I love the new search."}, "outputs": {"category": "praise"}},
    ],
}
TEXT = "Why was I charged twice this month?"

TIMEOUT_S = 120


def ask(url: str, query: str, **variables: Any) -> Any:
    """The one field of the answer. Raises where the server had an error."""
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:  # noqa: S310
        answer = json.load(response)
    if "errors" in answer:
        raise RuntimeError(answer["errors"][0]["message"])
    (found,) = answer["data"].values()
    return found


def show(query: str, found: Any) -> None:
    head = query.partition("{\n")[2].partition("\n")[0].strip().rstrip(" {")
    sys.stdout.write(f"\n{head}\n{json.dumps(found, indent=2, ensure_ascii=False)}\n")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="dspex-demo-") as folder:
        command = [str(DSPEX), "serve", "--port", "0", "--data-dir", folder]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:  # noqa: S603
            try:
                assert server.stdout is not None  # noqa: S101 - it is a pipe
                said = server.stdout.readline()
                if not said:
                    raise SystemExit(server.wait())
                sys.stdout.write(said)
                url = said.split()[3].rstrip(",")
                show(CREATE, ask(url, CREATE, input=PROGRAM))
                asked = {"program": "triage", "inputs": {"text": TEXT}}
                done = ask(url, EXECUTE, input=asked)
                show(EXECUTE, done)
                if done.get("state") != "COMPLETED":
                    raise SystemExit(1)
                show(READ, ask(url, READ, id=done["id"]))
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
