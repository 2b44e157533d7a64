"""A task to optimize, an LM that answers every optimizer's prompts, and a bridge that does it.

The LM is a script: what it says depends on the prompt alone, so that a run can be repeated. It
knows the right answer, and gives it as often as a digest of the prompt lets it: candidates differ
in their scores, and none means anything.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from dspex_protocol.client import Client
from dspex_protocol.peer import Handler

from integration import lifetime
from integration.openai_server import Answer, OpenAIServer, Request, Script, well_formed
from integration.pipe import BRIDGE

__all__ = [
    "BOUND_S",
    "EXACT",
    "KINDS",
    "ROWS",
    "SIGNATURE",
    "answer",
    "answered",
    "fickle",
    "is_of_program",
    "paid",
    "with_bridge",
    "workers",
]

BOUND_S = 90.0
EXACT = {"name": "exact_match"}

KINDS = {"fruit": ("apple", "banana", "cherry"), "tool": ("hammer", "saw", "drill")}
_LOOKS = {"fruit": ("ripe", "sweet", "sour", "fresh"), "tool": ("rusty", "heavy", "blunt", "new")}
SIGNATURE = {
    "inputs": [{"name": "text", "type": "str"}],
    "outputs": [{"name": "label", "type": "Literal['fruit', 'tool']"}],
}


def _rows() -> list[dict[str, Any]]:
    rows = [
        {"inputs": {"text": f"{word}, {look}"}, "outputs": {"label": kind}}
        for kind, words in KINDS.items()
        for look in _LOOKS[kind]
        for word in words
    ]
    random.Random(0).shuffle(rows)
    return rows


ROWS = _rows()

# Of ten prompts the LM answers so many rightly.
_RIGHT_OF_TEN = 6


class _Proposals(Mapping[str, Any]):
    """A text for every field that an optimizer's own prompt asks for."""

    def __init__(self, prompt: str) -> None:
        self._text = f"Tell fruit from tools ({sha256(prompt.encode()).hexdigest()[:8]})."

    def __getitem__(self, name: str) -> Any:
        # SIMBA wants an advice by module.
        return {"self": self._text} if name == "module_advice" else self._text

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def is_of_program(request: Request) -> bool:
    """Whether a prompt is the program's, and no optimizer's."""
    return "`label` (" in request.turns[0][1].partition("Your output fields are:")[2]


def answer(request: Request) -> Answer:
    """The LM."""
    prompt = "\n".join(text for _, text in request.turns)
    if is_of_program(request):
        asked = request.turns[-1][1].partition("[[ ## text ## ]]\n")[2]
        kind = next(kind for kind, words in KINDS.items() if asked.startswith(words))
        if sha256(prompt.encode()).digest()[0] % 10 >= _RIGHT_OF_TEN:
            kind = next(other for other in KINDS if other != kind)
        return well_formed(request, {"reasoning": "A guess.", "label": kind})
    if "[[ ##" not in prompt:  # GEPA's, which is no program of DSPy's
        return Answer(f"```\n{_Proposals(prompt)['text']}\n```")
    return well_formed(request, _Proposals(prompt))


def fickle() -> Script:
    """An LM that answers a prompt now rightly and now wrongly, in turn: in whatever order requests
    of several threads come, of two answers to a prompt one is right."""
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def answer_in_turn(request: Request) -> Answer:
        if not is_of_program(request):
            return answer(request)
        prompt = str(request.turns)
        with lock:
            asked[prompt] += 1
            turn = asked[prompt]
        return well_formed(request, {"label": sorted(KINDS)[turn % 2]})

    return answer_in_turn


def answered(server: OpenAIServer) -> list[Request]:
    """The requests that a client has got its answer to."""
    left = {request.number for request in server.left}
    return [request for request in server.requests if request.number not in left]


def paid(server: OpenAIServer) -> dict[str, int]:
    """How often each prompt has been answered."""
    counts: dict[str, int] = {}
    for request in answered(server):
        key = str(sorted(request.body.items()))
        counts[key] = counts.get(key, 0) + 1
    return counts


async def with_bridge(
    test: Callable[[Client], Awaitable[None]],
    *,
    server: OpenAIServer | None = None,
    state_dir: Path | None = None,
    handlers: Mapping[str, Handler] | None = None,
    log_level: str | None = None,
    env: Mapping[str, str] | None = None,
    is_safe_path: bool = True,
) -> str:
    """Runs `test` with a bridge that has the LM `main` (the server's, else demo/knn) and the
    program `p`. What the bridge wrote to stderr."""
    options = [] if state_dir is None else ["--state-dir", str(state_dir)]
    command = [word for word in BRIDGE if is_safe_path or word != "-P"]
    client = await Client.spawn(
        [*command, *options],
        stderr=asyncio.subprocess.PIPE,
        handlers=handlers,
        log_level=log_level,
        env={**os.environ, **(env or {})},
    )
    assert client.process is not None
    assert client.process.stderr is not None
    stderr = asyncio.create_task(client.process.stderr.read())
    async with client:
        lm: dict[str, Any] = {"model": "demo/knn"}
        if server is not None:
            lm = {"model": "openai/gpt-4.1-mini", "api_base": server.url, "num_retries": 0}
            lm["api_key"] = server.api_key
        await client.configure(lms={"main": lm})
        await client.create(SIGNATURE, program="p")
        await test(client)
    return (await stderr).decode()


def workers(client: Client) -> list[int]:
    """The pids of the processes that jobs run in: the grandchildren of the bridge."""
    assert client.process is not None
    bridge = client.process.pid
    parents = {pid: _parent(pid) for pid in lifetime.group(bridge)}
    return [pid for pid, parent in parents.items() if parents.get(parent) == bridge]


def _parent(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
