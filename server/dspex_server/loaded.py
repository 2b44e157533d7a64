"""The programs that one bridge holds: each loaded once, and forgotten again when it is idle."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import ConnectionLostError, DSPexError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from dspex_protocol.client import Client

__all__ = ["LoadedPrograms", "Stored"]

# More idle programs than this are not kept in a bridge; each has about a hundred kilobytes.
_MAX_PROGRAMS = 1_000

_log = logging.getLogger("dspex.server")


@dataclass(frozen=True)
class Stored:
    """One revision as the database has it: `state` is what `load` takes."""

    program_id: str
    revision: int
    state: Mapping[str, Any]

    @property
    def key(self) -> str:
        return f"{self.program_id}@{self.revision}"


@dataclass(eq=False)
class _Copy:
    # A task, so that many who want a program load it once.
    loading: asyncio.Task[None]
    users: int = 0


class LoadedPrograms:
    """Belongs to one event loop, and to one bridge."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # By key; the last used last.
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._leaving: dict[str, asyncio.Task[None]] = {}

    @asynccontextmanager
    async def using(self, program: Stored) -> AsyncIterator[str]:
        """The id of a program in this bridge, where it stays meanwhile. Raises what `load` does."""
        key = program.key
        copy = self._copies.get(key)
        if copy is None:
            if len(self._copies) >= _MAX_PROGRAMS:
                self._forget_idle()
            copy = self._copies[key] = _Copy(asyncio.create_task(self._load(program)))
            copy.loading.add_done_callback(partial(self._loaded, key, copy))
        self._copies.move_to_end(key)
        copy.users += 1
        try:
            # One of those who wait may be cancelled; the others still want it.
            await asyncio.shield(copy.loading)
            yield key
        finally:
            copy.users -= 1

    async def _load(self, program: Stored) -> None:
        leaving = self._leaving.get(program.key)
        if leaving is not None:
            # The bridge does what it is asked in any order: the new one is not to be deleted.
            await asyncio.wait({leaving})
        await self._client.load(program.state, program=program.key, replace=True)

    def _loaded(self, key: str, copy: _Copy, loading: asyncio.Task[None]) -> None:
        # Whoever wants it next has it tried again.
        has_failed = loading.cancelled() or loading.exception() is not None
        if has_failed and self._copies.get(key) is copy:
            del self._copies[key]

    def _forget_idle(self) -> None:
        """Those that were not used for the longest time, so that it is not done for each."""
        idle = [
            key for key, copy in self._copies.items() if copy.users == 0 and copy.loading.done()
        ]
        for key in idle[: _MAX_PROGRAMS // 2]:
            del self._copies[key]
            self._leaving[key] = asyncio.create_task(self._delete(key))

    async def _delete(self, key: str) -> None:
        try:
            await self._client.delete(key)
        except ConnectionLostError:
            return  # it has gone with its bridge
        except DSPexError as error:
            _log.warning("a bridge keeps program %s: %s", key, error)
        finally:
            del self._leaving[key]
