"""A BEAM that runs one of elixir_client/bench's scripts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

from dspex_protocol.codec import encode

from .lines import Lines, on_cpu
from .server import BRIDGE, CONSTANT_BRIDGE
from .workshop import Workshop

__all__ = ["Beam", "server_commands"]

_CLIENT = Path(__file__).parents[2] / "elixir_client"

# Beside others on one processor a scheduler must not wait by computing.
_ONE_CPU_FLAGS = "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"


class Beam(Lines):
    """With the client's byte code. On one processor (`cpu`) it has one scheduler."""

    def __init__(
        self,
        workshop: Workshop,
        script: str,
        *,
        env: Mapping[str, str] | None = None,
        cpu: int | None = None,
    ) -> None:
        flags = () if cpu is None else ("--erl", _ONE_CPU_FLAGS)
        command = ["elixir", *flags, "-pa", str(_compiled()), str(_CLIENT / "bench" / script)]
        super().__init__(workshop, command, env={"LC_ALL": "C.UTF-8", **(env or {})}, cpu=cpu)


def server_commands(workshop: Workshop, cpu: int | None = None) -> dict[str, str]:
    """The environment of calls.exs. The answerer greets as a bridge does."""
    hello = workshop.folder / "hello"
    limits = {"max_frame_bytes": 2**24, "max_in_flight": 4096}
    hello.write_bytes(encode({"protocol_version": 1, "ready": True, "limits": limits}))
    commands: dict[str, Sequence[str]] = {
        "FLOOR": [str(workshop.floor)],
        "ANSWERER": [str(workshop.answerer), str(hello)],
        "BRIDGE": BRIDGE,
        "CONSTANT": CONSTANT_BRIDGE,
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
