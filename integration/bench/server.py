"""A server under measurement, and the C driver that asks it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from dspex_protocol.codec import decode, encode
from dspex_protocol.framing import frame

from .workshop import Workshop

__all__ = ["BRIDGE", "Bridge", "Sample", "Server", "WrongAnswerError", "requests"]

BRIDGE = (sys.executable, "-P", "-m", "dspex_bridge")

# Of five bytes in MessagePack, as all that follow: answers then have one length.
_FIRST_ID = 0x10000

_ids = count(_FIRST_ID)


class WrongAnswerError(AssertionError):
    """What was measured is not what was asked for."""


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


class Server:
    """A process, by its command, or what listens on a port (`tcp:PORT`)."""

    def __init__(
        self,
        workshop: Workshop,
        command: Sequence[str],
        *,
        framing: str = "u32",
        on_one_cpu: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> None:
        cpu = str(workshop.cpu) if on_one_cpu else "-1"
        self._stderr = workshop.folder / "stderr"
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [str(workshop.driver), framing, cpu, *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=None if env is None else dict(env),
            )
        self.pid = int(self._line()["pid"])

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()

    def run(
        self,
        messages: Path,
        number: int,
        window: int = 1,
        check: Callable[[bytes], bool] | None = None,
    ) -> Sample:
        """Sends so many of the messages, that many at once. All answers must have one length, and
        the last one pass `check`: raises WrongAnswerError."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"run {messages} {number} {window}\n")
        self._process.stdin.flush()
        told = self._line()
        sample = Sample(
            told["ns"],
            told["p50"],
            told["p99"],
            told["shortest"],
            told["longest"],
            bytes.fromhex(told["last"]),
        )
        if sample.shortest != sample.longest:
            raise WrongAnswerError(f"answers of {sample.shortest} to {sample.longest} bytes")
        if check is not None and not check(sample.last):
            raise WrongAnswerError(repr(sample.last[:200]))
        return sample

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WrongAnswerError(
                "the driver ended: " + self._stderr.read_bytes()[-1000:].decode(errors="replace")
            )
        return json.loads(line)


class Bridge(Server):
    """A bridge with DSPy imported and nothing in it."""

    def __init__(self, workshop: Workshop, *options: str, on_one_cpu: bool = True) -> None:
        super().__init__(workshop, (*BRIDGE, *options), on_one_cpu=on_one_cpu)
        self._workshop = workshop
        self.ask("list")

    def ask(self, method: str, params: Mapping[str, Any] | None = None) -> Any:
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
