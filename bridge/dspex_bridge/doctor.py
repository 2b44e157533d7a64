"""`dspex doctor`: what DSPex needs, whether it is here, and what to do where it is not."""

from __future__ import annotations

import asyncio
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import IO, TYPE_CHECKING

from dspex_protocol.client import Client
from dspex_protocol.errors import DSPexError

from .environment import EMBEDDED_MODEL, PROVIDER_KEYS
from .installing import install_command

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["main"]

_MIN_PYTHON = (3, 11)
_PACKAGES = ("dspy", "litellm", "msgpack", "pydantic")
_COMMAND_TIMEOUT_S = 30
_BRIDGE_TIMEOUT_S = 60


@dataclass(frozen=True)
class _Finding:
    """`is_ok` None: missing, and only some things need it. `advice`: what to do about it."""

    what: str
    is_ok: bool | None
    found: str
    advice: str = ""


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 where everything that the bridge needs is here, 1 where something is not."""
    parser = ArgumentParser("dspex doctor", description=__doc__)
    parser.parse_args(arguments)
    healthy = True
    for check in _CHECKS:
        finding = check()
        mark = {True: "ok  ", False: "FAIL", None: "-   "}[finding.is_ok]
        sys.stdout.write(f"{mark}  {finding.what:<13} {finding.found}\n")
        if finding.advice:
            sys.stdout.write(f"{'':<20}{finding.advice}\n")
        sys.stdout.flush()
        healthy = healthy and finding.is_ok is not False
    return 0 if healthy else 1


def _python() -> _Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    if sys.version_info[:2] >= _MIN_PYTHON:
        return _Finding("Python", True, found)
    return _Finding("Python", False, found, "install Python 3.11 or newer and make the venv again")


def _packages() -> _Finding:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        advice = f"pip install {' '.join(missing)}"
        return _Finding("packages", False, f"missing: {', '.join(missing)}", advice)
    return _Finding("packages", True, ", ".join(found))


def _bridge() -> _Finding:
    async def try_it(log: IO[bytes]) -> tuple[float, float]:
        started = time.monotonic()
        async with await Client.spawn(stderr=log.fileno()) as client:
            answered = time.monotonic()
            await client.configure(lms={"main": {"model": EMBEDDED_MODEL}})
            await client.execute({"signature": "question -> answer"}, {"question": "Are you well?"})
            return (answered - started) * 1000, (time.monotonic() - started) * 1000

    try:
        with tempfile.TemporaryFile() as log:
            try:
                timeout = asyncio.wait_for(try_it(log), _BRIDGE_TIMEOUT_S)
                answered_ms, executed_ms = asyncio.run(timeout)
            except (DSPexError, OSError, TimeoutError) as error:
                log.seek(0)
                said = log.read().decode("utf-8", "replace").strip().splitlines()[-3:]
                advice = "its last words: " + " | ".join(said) if said else "it wrote nothing"
                return _Finding("bridge", False, f"{type(error).__name__}: {error}", advice)
    except OSError as error:
        return _Finding("bridge", False, f"no temporary file: {error}", "see write access below")
    return _Finding(
        "bridge",
        True,
        f"first answer after {answered_ms:.0f} ms, first program run after {executed_ms:.0f} ms",
    )


def _lm_key() -> _Finding:
    keys = [name for name in PROVIDER_KEYS if os.environ.get(name)]
    model = os.environ.get("DSPEX_MODEL")
    if model:
        return _Finding(
            "LM", True, f"DSPEX_MODEL={model}" + (f", {', '.join(keys)} set" if keys else "")
        )
    if keys:
        advice = ""
        if "OPENAI_API_KEY" not in keys:
            advice = f"set DSPEX_MODEL to a model of yours, such as {PROVIDER_KEYS[keys[0]]}…"
        return _Finding("LM", True, f"{', '.join(keys)} set", advice)
    return _Finding(
        "LM",
        None,
        "no provider's key in the environment: only the embedded demo/knn will answer",
        "export OPENAI_API_KEY=…, or another provider's key and DSPEX_MODEL=provider/model",
    )


def _elixir() -> _Finding:
    line = _version_line(["elixir", "--version"], "Elixir", "Erlang/OTP")
    if line is None:
        return _Finding(
            "Elixir",
            None,
            "not found: only the Elixir client needs it",
            "apt-get install elixir, brew install elixir, or see https://elixir-lang.org/install",
        )
    return _Finding("Elixir", True, line)


def _deno() -> _Finding:
    line = _version_line(["deno", "--version"], "deno")
    if line is None:
        return _Finding(
            "Deno",
            None,
            "not found: only program_of_thought, code_act, rlm and flex, which run code, need it",
            install_command("dspy[deno]"),
        )
    return _Finding("Deno", True, line)


def _write_access() -> _Finding:
    folder = tempfile.gettempdir()
    try:
        with tempfile.TemporaryFile() as file:
            file.write(b"dspex")
    except OSError as error:
        return _Finding(
            "write access",
            False,
            f"{folder}: {error.strerror}",
            "point TMPDIR at a folder to write in",
        )
    return _Finding("write access", True, folder)


def _version_line(command: list[str], *prefixes: str) -> str | None:
    """The first two words of a command's lines that begin with `prefixes`; None without any."""
    path = shutil.which(command[0])
    if path is None:
        return None
    try:
        done = subprocess.run(  # noqa: S603 - our own words, and a path that `which` gave
            [path, *command[1:]],
            capture_output=True,
            text=True,
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.splitlines()
    found = [line for prefix in prefixes for line in lines if line.startswith(prefix)]
    return ", ".join(" ".join(line.split()[:2]) for line in found) or None


_CHECKS: tuple[Callable[[], _Finding], ...] = (
    _python,
    _packages,
    _bridge,
    _lm_key,
    _elixir,
    _deno,
    _write_access,
)
