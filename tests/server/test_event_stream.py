"""Events for a client that reads them slowly, or not at all."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from dspex_server.api.calls import call
from dspex_server.api.event_stream import MAX_NEWS, MAX_WAITING, Outbox
from dspex_server.app import App
from dspex_server.bridges import BridgeOptions, Bridges
from dspex_server.db.models import Execution
from dspex_server.events import Events
from dspex_server.executing import Executor

from tests.server.background import on_a_loop
from tests.server.resources import make_program, opened

if TYPE_CHECKING:
    import pytest

ITEMS = 1_000
AT_ONCE = 4
# More turns of the loop than all items need.
TURNS = 20 * ITEMS


@on_a_loop
async def test_a_batch_goes_no_further_than_its_client_reads(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = 0
    has_begun, reads = asyncio.Event(), asyncio.Event()

    async def execute(*_arguments: object, **_more: object) -> Execution:
        nonlocal begun
        begun += 1
        has_begun.set()
        spent = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2, "cost_usd": 0.0}
        return Execution(state="completed", outputs={"answer": "4"}, **spent)

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            await reads.wait()

    async def receive() -> Any:
        await asyncio.Event().wait()

    async with opened(url) as database:
        await make_program(database, "many")
        events = Events()
        bridges = Bridges(BridgeOptions(size=1, lms={}, default_lm=""))
        nothing: Any = None
        app = App(database, bridges, events, Executor(database, bridges, events, "me"), nothing)
        monkeypatch.setattr(app.executor, "execute", execute)
        inputs = [{"question": "?"}] * ITEMS
        asked = {"program": "many", "inputs": inputs, "max_concurrency": AT_ONCE}
        answering = asyncio.create_task(call(app, "batch", asked, None)({}, receive, send))
        await has_begun.wait()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        assert MAX_WAITING / 2 <= begun <= MAX_WAITING + AT_ONCE
        reads.set()
        await answering
    told = [_event(message["body"]) for message in sent if message.get("body")]
    assert sorted(data["index"] for name, data in told if name == "item") == list(range(ITEMS))
    steps = [data["step"] for name, data in told if name == "progress"]
    assert steps == list(range(1, ITEMS + 1))
    assert (told[-1][0], len(told[-1][1]["results"])) == ("result", ITEMS)


def _event(body: bytes) -> tuple[str, Any]:
    name, data = body.decode().strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


@on_a_loop
async def test_of_progress_that_nobody_reads_the_newest_is_kept() -> None:
    outbox = Outbox()
    outbox.tell("chunk", {"text": "first"})
    for step in range(3 * MAX_NEWS):
        outbox.tell_newest("progress", {"step": step})
    outbox.tell("result", {})
    outbox.close()
    told = []
    while (event := await outbox.next()) is not None:
        told.append(event[:2])
    assert len(told) == MAX_NEWS + 1
    assert (told[0], told[-1]) == (("chunk", {"text": "first"}), ("result", {}))
    assert told[-2] == ("progress", {"step": 3 * MAX_NEWS - 1})
