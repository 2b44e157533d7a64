"""A BEAM that runs one of elixir_client/bench's scripts and does a round for each line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from dspex_protocol.codec import encode

from .server import BRIDGE, WrongAnswerError
from .workshop import Workshop

__all__ = ["Beam", "server_commands"]

_CLIENT = Path(__file__).parents[2] / "elixir_client"

# Beside others on one processor a scheduler must not wait by computing.
_ONE_CPU_FLAGS = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"


class Beam:
    """`cpu` binds it, and what it starts, to one processor."""

    def __init__(
        self,
        workshop: Workshop,
        script: str,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        cpu: int | None = None,
        flags: str = "",
    ) -> None:
        if cpu is not None:
            flags = f"{_ONE_CPU_FLAGS} {flags}"
        self._stderr = workshop.folder / "beam-stderr"
        with self._stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                [
                    *on_cpu(cpu),
                    *("elixir", "--erl", flags, "-pa", str(_compiled())),
                    *(str(_CLIENT / "bench" / script), *arguments),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, "LC_ALL": "C.UTF-8", **(env or {})},
            )

    def __enter__(self) -> Beam:
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.communicate()

    def ask(self, line: str) -> str:
        """The answer to a line. Raises WrongAnswerError where the BEAM ends instead."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # what it wrote before says why
        answer = self._process.stdout.readline()
        if not answer:
            said = self._stderr.read_bytes()[-2000:].decode(errors="replace")
            raise WrongAnswerError(f"the BEAM ended at {line!r}: {said}")
        return answer.strip()


def on_cpu(cpu: int | None) -> Sequence[str]:
    """What stands before a command to bind it to a processor."""
    return () if cpu is None else ("taskset", "--cpu-list", str(cpu))


def server_commands(workshop: Workshop, cpu: int | None = None) -> dict[str, str]:
    """The environment of calls.exs. The answerer greets as a bridge does."""
    hello = workshop.folder / "hello"
    limits = {"max_frame_bytes": 2**24, "max_in_flight": 4096}
    hello.write_bytes(encode({"protocol_version": 1, "ready": True, "limits": limits}))
    commands = {
        "FLOOR": [str(workshop.floor)],
        "ANSWERER": [str(workshop.answerer), str(hello)],
        "BRIDGE": list(BRIDGE),
    }
    return {
        f"DSPEX_BENCH_{name}": "\n".join([*on_cpu(cpu), *command])
        for name, command in commands.items()
    }


@cache
def _compiled() -> Path:
    """The client's byte code, as an application has it."""
    subprocess.run(
        ["mix", "compile"],
        cwd=_CLIENT,
        env={**os.environ, "MIX_ENV": "prod", "LC_ALL": "C.UTF-8"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return _CLIENT / "_build" / "prod" / "lib" / "dspex" / "ebin"
