"""A server under measurement, and the C driver that asks it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import frame

from .lines import Lines, WrongAnswerError
from .workshop import Workshop

__all__ = ["BRIDGE", "CONSTANT_BRIDGE", "Bridge", "Sample", "Server", "requests"]

BRIDGE = (sys.executable, "-P", "-m", "dspex_bridge")

#: One whose `demo/knn` has the same answer to everything.
CONSTANT_BRIDGE = (sys.executable, "-m", "integration.bench.constant_bridge")

# Of five bytes in MessagePack, as all that follow: answers then have one length.
_FIRST_ID = 0x10000

_ids = count(_FIRST_ID)


@dataclass(frozen=True)
class Sample:
    """What the driver tells of one run: nanoseconds and bytes. `p50_ns` and `p99_ns` are of single
    round trips, where there was one at a time, else 0."""

    ns: int
    p50_ns: int
    p99_ns: int
    shortest: int
    longest: int
    last: bytes


class Server(Lines):
    """A process, by its command, or what listens on a port (`tcp:PORT`), and its driver. Both are
    bound to `cpu`, where there is one."""

    def __init__(
        self,
        workshop: Workshop,
        command: Sequence[str],
        *,
        framing: str = "u32",
        cpu: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        where = "-1" if cpu is None else str(cpu)
        super().__init__(workshop, [str(workshop.driver), framing, where, *command], env=env)
        self._server_pid = int(json.loads(self.hear())["pid"])

    @property
    def pid(self) -> int:
        """The server's, not the driver's; 0 for a port."""
        return self._server_pid

    @property
    def pids(self) -> tuple[int, ...]:
        """The server's and the driver's."""
        return self._server_pid, self._process.pid

    def run(
        self,
        messages: Path,
        number: int,
        window: int = 1,
        check: Callable[[bytes], bool] | None = None,
    ) -> Sample:
        """Sends so many of the messages, that many at once. All answers must have one length, and
        the last one pass `check`: raises WrongAnswerError."""
        self.start(messages, number, window)
        return self.finish(check)

    def start(self, messages: Path, number: int, window: int = 1) -> None:
        """As `run`, whose answer `finish` waits for."""
        self.say(f"run {messages} {number} {window}")

    def finish(self, check: Callable[[bytes], bool] | None = None) -> Sample:
        told = json.loads(self.hear())
        sample = Sample(
            told["ns"],
            told["p50"],
            told["p99"],
            told["shortest"],
            told["longest"],
            bytes.fromhex(told["last"]),
        )
        if sample.shortest != sample.longest:
            raise WrongAnswerError(
                f"answers of {sample.shortest} to {sample.longest} bytes, one of which is"
                f" {sample.last[:200]!r}"
            )
        if check is not None and not check(sample.last):
            raise WrongAnswerError(repr(sample.last[:200]))
        return sample


class Bridge(Server):
    """A bridge with DSPy imported and nothing in it."""

    def __init__(
        self,
        workshop: Workshop,
        *options: str,
        cpu: int | None = None,
        command: Sequence[str] = BRIDGE,
        env: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(workshop, (*command, *options), cpu=cpu, env=env)
        self._workshop = workshop
        self.ask_for("list")

    def ask_for(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
        """The result of one request, of at most 4 kB."""
        (request,) = requests(method, [params or {}])
        last = self.run(self._workshop.messages([request]), 1).last
        _, _, error, result = decode(last)
        if error is not None:
            raise WrongAnswerError(f"{method}: {error}")
        return result


def requests(method: str, params: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Frames of requests, each with an id of its own."""
    return [frame(encode([0, next(_ids), method, own])) for own in params]
