"""A process that does a round for each line of its stdin, and answers with a line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Self

from .workshop import Workshop

__all__ = ["Lines", "WrongAnswerError", "on_cpu"]


class WrongAnswerError(AssertionError):
    """What was measured is not what was asked for."""


class Lines:
    """`cpu` binds the process, and what it starts, to one processor."""

    def __init__(
        self,
        workshop: Workshop,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cpu: int | None = None,
    ) -> None:
        self._stderr = workshop.stderr()
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [*on_cpu(cpu), *command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()

    def kill(self) -> None:
        """For a process that does not end with its stdin."""
        self._process.kill()
        self._process.communicate()

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # `hear` tells why

    def hear(self) -> str:
        """The next line. Raises WrongAnswerError where the process ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self._stderr.read_bytes()[-2000:].decode(errors="replace")
            raise WrongAnswerError(f"{self._process.args!r} ended: {said}")
        return line.strip()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()


def on_cpu(cpu: int | None) -> Sequence[str]:
    """What stands before a command to bind it to a processor."""
    return () if cpu is None else ("taskset", "--cpu-list", str(cpu))
