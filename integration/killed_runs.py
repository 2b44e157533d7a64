"""Runs of optimizers that are killed and begun again: is anything paid twice, is the end the same?

A phase of `scripts/soak`; tests take single runs of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dspex_protocol.client import Client
from dspex_protocol.errors import ConnectionLostError, InternalError

from integration.openai_server import Answer, OpenAIServer, Request
from integration.optimizing import BOUND_S, EXACT, ROWS, answer, paid, with_bridge, workers

__all__ = [
    "OPTIMIZERS",
    "VICTIMS",
    "Kill",
    "Outcome",
    "broken",
    "kill_many",
    "killed_runs",
    "unbroken",
]

TRAIN, VAL = ROWS[:8], ROWS[8:16]

# One example at a time, so that a run is the same to the letter.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "bootstrap_few_shot_random_search": {"num_candidate_programs": 2, "max_labeled_demos": 4},
    "copro": {"breadth": 3, "depth": 2},
    "gepa": {"max_metric_calls": 40},
    "mipro_v2": {"num_candidates": 2, "num_trials": 3, "minibatch": False},
    "simba": {"bsize": 4, "max_steps": 2, "num_candidates": 2},
    "infer_rules": {"num_candidates": 2, "num_rules": 2},
    "variables": {
        "trials": 6,
        "variables": {
            "k": {"kind": "int", "low": 0, "high": 6, "applies_to": "demos.k"},
            "module": {
                "kind": "module",
                "choices": ["predict", "chain_of_thought"],
                "applies_to": "module",
            },
        },
    },
}

VICTIMS = ("worker", "bridge")

# The LM answers within a few milliseconds: a later kill meets other calls.
_LATEST_S = 0.05

# What a run is compared by: all that is told of it but time and money.
_SAME = ("state", "score", "base_score", "trials", "best_trial", "changes", "variables")


@dataclass(frozen=True)
class Kill:
    """Of the worker or the bridge, when the LM has been asked `at` times since the last one: while
    it thinks or, with `after_s`, so long after it was asked, whatever is going on then."""

    victim: str
    at: int
    after_s: float | None = None


@dataclass
class Outcome:
    """What came of a run: its result, how often each prompt was answered, and how many kills it
    took."""

    result: dict[str, Any]
    paid: dict[str, int]
    kills: int = 0
    replayed: int = 0
    metric_calls: Counter[str] = field(default_factory=Counter)

    @property
    def calls(self) -> int:
        return sum(self.paid.values())

    def differs(self, other: Outcome) -> list[str]:
        return [key for key in _SAME if self.result[key] != other.result[key]]

    def paid_twice(self, unbroken: Outcome) -> int:
        """How many answers more than the unbroken run needed."""
        return sum(max(0, count - unbroken.paid.get(key, 0)) for key, count in self.paid.items())


class _Script:
    """The LM, which says when a kill is due; where it thinks meanwhile, nobody has that answer."""

    def __init__(self) -> None:
        self.is_due = threading.Event()
        self._kill: Kill | None = None
        self._asked = 0

    def begin(self, kill: Kill | None) -> None:
        self._kill, self._asked = kill, 0
        self.is_due.clear()

    def __call__(self, request: Request) -> Answer:
        self._asked += 1
        kill = self._kill
        if kill is not None and self._asked == kill.at:
            self.is_due.set()
            if kill.after_s is None:
                return Answer(fault="hang")
        return answer(request)


async def _run(
    optimizer: str,
    server: OpenAIServer,
    state_dir: Path,
    metric_calls: Counter[str],
    end: Callable[[Client, asyncio.Task[Any]], Awaitable[None]] | None = None,
) -> dict[str, Any] | None:
    """One try; None where it was killed."""
    results: list[dict[str, Any]] = []

    async def call_metric(params: dict[str, Any]) -> Any:
        metric_calls[json.dumps([params["example"], params["prediction"]], sort_keys=True)] += 1
        return params["example"]["outputs"]["label"] == params["prediction"]["label"]

    async def test(client: Client) -> None:
        asked = asyncio.create_task(
            client.optimize(
                "p",
                {"name": optimizer, "params": {**OPTIMIZERS[optimizer], "num_threads": 1}},
                TRAIN,
                valset=VAL,
                metric={"callback": "right"} if optimizer == "copro" else EXACT,
                checkpoint="run",
                save_as="better",
            )
        )
        if end is not None:
            await end(client, asked)
        try:
            results.append(await asked)
        except (ConnectionLostError, InternalError) as error:
            if end is None or (isinstance(error, InternalError) and "killed" not in error.message):
                raise

    await asyncio.wait_for(
        with_bridge(
            test, server=server, state_dir=state_dir, handlers={"call_metric": call_metric}
        ),
        BOUND_S,
    )
    return results[0] if results else None


async def unbroken(optimizer: str, folder: Path) -> Outcome:
    with OpenAIServer(answer) as server:
        calls: Counter[str] = Counter()
        result = await _run(optimizer, server, folder, calls)
        assert result is not None
        return Outcome(result, paid(server), metric_calls=calls)


async def broken(optimizer: str, folder: Path, kills: list[Kill]) -> Outcome:
    """A run that is killed, and begun again, as often as `kills` come before its end."""
    script = _Script()
    with OpenAIServer(script) as server:
        calls: Counter[str] = Counter()
        for done, kill in enumerate([*kills, None]):
            script.begin(kill)

            async def end(
                client: Client, asked: asyncio.Task[Any], kill: Kill | None = kill
            ) -> None:
                if kill is not None:
                    await _end(client, asked, kill, script)

            result = await _run(optimizer, server, folder, calls, end)
            if result is not None:
                replayed = result["checkpoint"]["replayed"]
                return Outcome(result, paid(server), done, replayed, calls)
    raise AssertionError("the last try is not killed")


async def _end(client: Client, asked: asyncio.Task[Any], kill: Kill, script: _Script) -> None:
    due = asyncio.create_task(asyncio.to_thread(script.is_due.wait, BOUND_S))
    await asyncio.wait({due, asked}, return_when=asyncio.FIRST_COMPLETED)
    if not asked.done():
        await asyncio.sleep(kill.after_s or 0.0)
    script.is_due.set()  # where the run ended before, nobody waits for it
    await due
    assert client.process is not None
    found = [client.process.pid] if kill.victim == "bridge" else workers(client)
    if not asked.done():
        for pid in found:
            os.kill(pid, signal.SIGKILL)


def killed_runs(seed: int, kills: int) -> dict[str, Any]:
    """Kills runs of all optimizers at random moments until there were so many kills."""
    return asyncio.run(kill_many(seed, kills))


async def kill_many(
    seed: int, kills: int, names: Sequence[str] = tuple(OPTIMIZERS)
) -> dict[str, Any]:
    """Counts. Raises AssertionError where an answer was paid for twice, or a result differs."""
    draw = random.Random(seed)
    # An answer that was under way when the bridge was killed is nobody's, and is asked for again.
    record = {"kills": 0, "runs": 0, "paid_twice": 0, "lost_under_way": 0}
    with tempfile.TemporaryDirectory() as root:
        whole = {name: await unbroken(name, _folder(root, f"whole-{name}")) for name in names}
        while record["kills"] < kills:
            name = draw.choice(names)
            reference = whole[name]
            thinks = draw.random() < 0.5
            planned = [
                Kill(
                    draw.choice(VICTIMS),
                    draw.randint(1, max(1, reference.calls // 2)),
                    None if thinks else draw.uniform(0.0, _LATEST_S),
                )
                for _ in range(draw.randint(1, 4))
            ]
            got = await broken(name, _folder(root, f"{record['runs']}"), planned)
            record["runs"] += 1
            record["kills"] += got.kills
            more = got.paid_twice(reference)
            lost = 0 if thinks else min(more, got.kills)
            record["lost_under_way"] += lost
            record["paid_twice"] += more - lost
            case = f"seed {seed}: {name}, {planned}"
            assert more - lost == 0, f"{case}: {more - lost} answers were paid for twice"
            assert got.differs(reference) == [], case
    return {**record, "calls": {name: outcome.calls for name, outcome in whole.items()}}


def _folder(root: str, name: str) -> Path:
    folder = Path(root) / name
    folder.mkdir()
    return folder
