"""Places for servers and workers that come back whenever they end, and are counted."""

from __future__ import annotations

import re
import signal
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from integration.server_process import ServerProcess

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Mapping, Sequence

__all__ = ["Host", "Hosts", "traceback_ends"]

# A server that is asked to end lets calls finish, and waits for the threads of its jobs.
_END_S = 120.0

_TRACEBACK = "Traceback (most recent call last):"
# What stands between the traceback of an error and that of the one that it led to.
_LED_TO = ("During handling of the above exception", "The above exception was the direct cause")
_CUT_OFF = "(cut off by a kill)"
# Identifiers, ports and times: what differs from one to the next of a kind.
_VARYING = re.compile(r"\b[0-9a-f]*\d[0-9a-f-]*\b")
_MAX_END = 200


class Host:
    """For one server or worker at a time. `exits` counts how they ended, as `Popen` says it."""

    def __init__(self, role: str, arguments: Sequence[str], changed: threading.Condition) -> None:
        self.role = role
        self.starts = 0
        self.exits: Counter[int] = Counter()
        self.tracebacks: Counter[str] = Counter()
        self.is_ready = False
        self._arguments = arguments
        self._changed = changed
        self._process: ServerProcess | None = None
        self._is_ended = False
        self._keeping = threading.Thread(target=self._keep, daemon=True)
        self._keeping.start()

    @property
    def pid(self) -> int | None:
        process = self._process
        return None if process is None else process.process.pid

    @property
    def url(self) -> str:
        """Empty where it answers nobody."""
        return self._process.url if self.is_ready and self._process is not None else ""

    @property
    def bridges(self) -> list[int]:
        """The processes that are bridges of its server."""
        pid = self.pid
        found: list[int] = []
        with suppress(OSError):
            # Each of its threads starts processes of its own.
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
        return [child for child in found if _is_bridge(child)]

    def _keep(self) -> None:
        command = "serve" if self.role == "server" else "worker"
        while True:
            with self._changed:
                if self._is_ended:
                    return
                process = ServerProcess(*self._arguments, command=command, awaited=False)
                self._process = process
                self.starts += 1
                self._changed.notify_all()
            # Where it ends while it starts, its status tells why.
            with suppress(RuntimeError):
                process.wait_until_ready()
                self._set_ready(True)
                process.process.wait()
            self._set_ready(False)
            self.exits[process.close()] += 1
            self.tracebacks.update(traceback_ends(process.output))

    def _set_ready(self, is_ready: bool) -> None:
        with self._changed:
            self.is_ready = is_ready
            self._changed.notify_all()

    def end(self) -> None:
        """Asks it to end, and waits. Raises TimeoutError where it does not."""
        with self._changed:
            self._is_ended = True
            process = self._process
        if process is not None and process.process.poll() is None:
            process.process.terminate()
        self._keeping.join(_END_S)
        if self._keeping.is_alive():
            if process is not None:
                process.process.kill()
            raise TimeoutError(f"a {self.role} has not ended {_END_S:g} s after it was asked to")


class Hosts:
    """All of them, with one command line."""

    def __init__(self, roles: Sequence[str], arguments: Sequence[str]) -> None:
        self._changed = threading.Condition()
        self._all = [Host(role, arguments, self._changed) for role in roles]

    def of(self, role: str) -> list[Host]:
        return [host for host in self._all if host.role == role]

    def wait_for_url(self, noise: random.Random, bound_s: float) -> str | None:
        """Of some server that answers; None where there is none for so long."""
        with self._changed:
            self._changed.wait_for(self._urls, bound_s)
            urls = self._urls()
        return noise.choice(urls) if urls else None

    def _urls(self) -> list[str]:
        return [host.url for host in self._all if host.url]

    def wait_for(self, role: str, bound_s: float) -> list[Host]:
        """Those that are ready; at least one, where that does not take too long."""

        def ready() -> list[Host]:
            return [host for host in self.of(role) if host.is_ready]

        with self._changed:
            self._changed.wait_for(ready, bound_s)
            return ready()

    def wait_for_starts(self, count: int, bound_s: float) -> bool:
        """Until so many of them were started, those that ended since included."""
        with self._changed:
            return self._changed.wait_for(
                lambda: sum(host.starts for host in self._all) >= count, bound_s
            )

    def wait_for_all(self, bound_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: all(host.is_ready for host in self._all), bound_s)

    @property
    def bridges(self) -> list[int]:
        return [pid for host in self._all for pid in host.bridges]

    def end(self) -> None:
        for host in self._all:
            host.end()

    @property
    def starts(self) -> dict[str, int]:
        starts: Counter[str] = Counter()
        for host in self._all:
            starts[host.role] += host.starts
        return dict(starts)

    @property
    def exits(self) -> dict[str, Counter[int]]:
        """How those of a role ended."""
        exits: dict[str, Counter[int]] = {}
        for host in self._all:
            exits.setdefault(host.role, Counter()).update(host.exits)
        return exits

    @property
    def tracebacks(self) -> dict[str, int]:
        """How often each was written, by its last line."""
        found: Counter[str] = Counter()
        for host in self._all:
            found.update(host.tracebacks)
        return dict(found.most_common())

    def faults(self, deaths: Mapping[str, int], *, may_refuse: bool) -> list[str]:
        """What the operating system says against `deaths`, by role, when all have ended: each of
        them and no other ended by SIGKILL, and the last of each place as it was asked to. A start
        may be refused where the database was away."""
        found = []
        for role, exits in self.exits.items():
            expected = Counter({-signal.SIGKILL: deaths.get(role, 0), 0: len(self.of(role))})
            if may_refuse:
                expected[1] = exits[1]
            if exits != expected:
                found.append(f"{role}: ended by status {dict(exits)}, not {dict(expected)}")
            if self.starts[role] != exits.total():
                found.append(f"{role}: {self.starts[role]} starts and {exits.total()} ends")
        return found


def traceback_ends(lines: Iterable[str]) -> list[str]:
    """The last line of each traceback; of errors that led to one another, of the last."""
    ends: list[str] = []
    is_inside = False
    for line in lines:
        # Those of a group of errors stand behind a rule.
        text = re.sub(r"^\s*[|+] ?", "", line).rstrip()
        if text.endswith(_TRACEBACK):
            is_inside = True
        elif is_inside and text and not text[0].isspace():
            ends.append(_VARYING.sub("#", text)[:_MAX_END])
            is_inside = False
        elif text.startswith(_LED_TO) and ends:
            ends.pop()
    return [*ends, _CUT_OFF] if is_inside else ends


def _is_bridge(pid: int) -> bool:
    # Before it has become one, a child has the command line of its server.
    with suppress(OSError):
        return b"dspex_bridge" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return False
