"""The programs that a bridge holds, as its users come and go."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from dspex_protocol.errors import UnavailableError
from dspex_server.loaded import LoadedPrograms, Stored

from tests.server.background import on_a_loop

PROGRAM = Stored("qa", 1, {})


class Client:
    """Loads when it is told to, with what it is given: a result or an error."""

    def __init__(self) -> None:
        self.loads: list[asyncio.Future[None]] = []
        self.asked = asyncio.Event()

    async def load(self, _state: Any, **_options: Any) -> None:
        self.loads.append(asyncio.get_running_loop().create_future())
        self.asked.set()
        await self.loads[-1]


def a_bridge() -> tuple[Client, LoadedPrograms]:
    client = Client()
    return client, LoadedPrograms(cast("Any", client))


async def use(programs: LoadedPrograms, until: asyncio.Event) -> None:
    async with programs.using(PROGRAM):
        await until.wait()


@on_a_loop
async def test_a_load_that_failed_when_nobody_waited_any_more_is_tried_again() -> None:
    client, programs = a_bridge()
    left = asyncio.create_task(use(programs, asyncio.Event()))
    await client.asked.wait()
    left.cancel()
    await asyncio.wait({left})
    (copy,) = programs._copies.values()
    client.loads[0].set_exception(UnavailableError("a passing failure"))
    await asyncio.wait({copy.loading})
    client.asked.clear()
    until = asyncio.Event()
    until.set()
    later = asyncio.create_task(use(programs, until))
    await client.asked.wait()
    client.loads[1].set_result(None)
    await later


@on_a_loop
async def test_who_leaves_as_the_load_ends_takes_it_from_nobody() -> None:
    client, programs = a_bridge()
    until = asyncio.Event()
    stays = asyncio.create_task(use(programs, until))
    leaves = asyncio.create_task(use(programs, asyncio.Event()))
    await client.asked.wait()
    client.loads[0].set_result(None)
    leaves.cancel()
    await asyncio.wait({leaves})
    until.set()
    await stays
    await use(programs, until)
    assert len(client.loads) == 1


@on_a_loop
async def test_all_who_wait_are_told_why_a_load_failed() -> None:
    client, programs = a_bridge()
    waiting = [asyncio.create_task(use(programs, asyncio.Event())) for _ in range(3)]
    await client.asked.wait()
    client.loads[0].set_exception(UnavailableError("no package"))
    for task in waiting:
        with pytest.raises(UnavailableError, match="no package"):
            await task
