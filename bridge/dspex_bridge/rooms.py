"""Room for LM calls: so many at once, and so many in a minute; who comes first goes first.

A call may need room in several places, and has it in all of them at once or holds none: whoever
waits for one LM keeps no other waiting. It waits where it is held up first. When that place has
room the one who came first looks again, at all of its places.

Everything here is used on the event loop's thread alone.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from itertools import count

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

__all__ = ["Entry", "Room"]

# What `per_minute` counts in.
_MINUTE_S = 60.0

_tickets = count()


class Room:
    """At most `at_once` calls under way, and `per_minute` begun in any 60 seconds; None is any
    number."""

    def __init__(self) -> None:
        self._at_once: int | None = None
        self._per_minute: int | None = None
        self._under_way = 0
        # When those of the last minute began.
        self._begun: deque[float] = deque()
        # By their tickets. Where there is room, nobody waits.
        self._waiting: list[tuple[int, Entry]] = []
        self._timer: asyncio.TimerHandle | None = None

    def change(self, at_once: int | None, per_minute: int | None) -> None:
        """Other limits, on the same account. Who waits for what there is now, goes on."""
        self._at_once, self._per_minute = at_once, per_minute
        self._admit()

    def is_full(self, now: float) -> bool:
        return self._is_busy() or self._place_s(now) > 0

    def take(self, now: float) -> None:
        self._under_way += 1
        if self._per_minute is not None:
            self._begun.append(now)

    def leave(self) -> None:
        """The call is over."""
        self._under_way -= 1
        self._admit()

    def give_back(self, taken: float) -> None:
        """The call was not made after all. A place that is out of the minute is gone anyway."""
        if taken in self._begun:
            self._begun.remove(taken)
            self._admit()

    def wait(self, entry: Entry) -> None:
        """Has an entry look again when there is room here."""
        heappush(self._waiting, (entry.ticket, entry))
        self._set_timer()

    def _admit(self) -> None:
        if not self._waiting:
            return
        import asyncio

        now = asyncio.get_running_loop().time()
        while self._waiting and not self.is_full(now):
            heappop(self._waiting)[1].look(now)
        self._set_timer()

    def _is_busy(self) -> bool:
        return self._at_once is not None and self._under_way >= self._at_once

    def _place_s(self, now: float) -> float:
        """Seconds until another call may begin, as far as the minute goes."""
        while self._begun and self._begun[0] + _MINUTE_S <= now:
            self._begun.popleft()
        if self._per_minute is None or len(self._begun) < self._per_minute:
            return 0.0
        return self._begun[-self._per_minute] + _MINUTE_S - now

    def _set_timer(self) -> None:
        """Who waits for the minute to go on is woken by a clock; for the rest somebody leaves."""
        import asyncio

        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self._is_busy():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(self._place_s(loop.time()), self._admit)


class Entry:
    """One call's way into some rooms."""

    def __init__(self, rooms: Iterable[Room]) -> None:
        self.ticket = next(_tickets)
        self._rooms = tuple(rooms)
        self._is_in = False
        self._since = 0.0
        self._admitted: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        """Until there is room in all of them, and takes it."""
        import asyncio

        loop = asyncio.get_running_loop()
        self.look(loop.time())
        if self._is_in:
            return
        self._admitted = loop.create_future()
        try:
            await self._admitted
        except BaseException:
            # It may have been let in as it was cancelled.
            self.give_back()
            self.leave()
            raise

    def look(self, now: float) -> None:
        """Goes in, or waits at the first of the rooms that is full."""
        if self._admitted is not None and self._admitted.done():
            return  # cancelled
        for room in self._rooms:
            if room.is_full(now):
                room.wait(self)
                return
        for room in self._rooms:
            room.take(now)
        self._is_in, self._since = True, now
        if self._admitted is not None:
            self._admitted.set_result(None)

    def give_back(self) -> None:
        """No call is made: its place in the minute is another's."""
        if self._is_in:
            for room in self._rooms:
                room.give_back(self._since)

    def leave(self) -> None:
        """The call is over, or was not made."""
        if self._is_in:
            self._is_in = False
            for room in self._rooms:
                room.leave()
