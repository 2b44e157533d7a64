"""A bridge of a command's own, the program in it, and what becomes of errors."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from dspex_protocol.client import Client
from dspex_protocol.codec import EncodeError
from dspex_protocol.errors import DSPexError, SignatureError
from dspex_protocol.signatures import parse_signature, signature_from_wire

from dspex_bridge.environment import choose_model

from .options import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import AsyncIterator, Awaitable, Callable

    from dspex_protocol.signatures import SignatureSpec

__all__ = ["BASE_PROGRAM", "create_program", "named", "open_bridge", "print_json", "run_command"]

#: The program's id where its file has no name for it.
BASE_PROGRAM = "program"

# What a shell expects of a command that Ctrl-C ended.
_INTERRUPTED = 130


def run_command(
    command: str, work: Callable[[Namespace], Awaitable[str]], options: Namespace
) -> int:
    """Runs a command and prints what it returns.

    Exit status 0 with that printed, 1 where the bridge or the program failed, 2 for bad usage, 130
    where it was interrupted and has nothing.
    """
    try:
        printed = asyncio.run(_run(work, options))
    except SignatureError as error:
        complain(command, f"{error}\n{_caret(options.signature, error)}")
        return 2
    except UsageError as error:
        complain(command, str(error))
        return 2
    except EncodeError as error:
        complain(command, f"a value cannot be sent: {error}")
        return 2
    except DSPexError as error:
        if error.code == "cancelled":
            return _INTERRUPTED
        complain(command, f"{error.code}: {error}")
        return 1
    except OSError as error:
        complain(command, str(error))
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        return _INTERRUPTED
    # A terminal that knows no such character gets its number: the answer has been paid for.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    sys.stdout.write(printed)
    return 0


async def _run(work: Callable[[Namespace], Awaitable[str]], options: Namespace) -> str:
    # Before a process is started for it.
    if options.signature is not None:
        parse_signature(options.signature)
    return await work(options)


@asynccontextmanager
async def open_bridge(options: Namespace, log_level: str = "warning") -> AsyncIterator[Client]:
    """A bridge with the LMs, the embedders and the adapter of the options. It writes to stderr
    what is at least of that level."""
    lms = named(options.lm)
    if not lms:
        model, note = choose_model()
        if note:
            sys.stderr.write(f"{note}\n")
        lms = {"main": {"model": model}}
    embedders = named(options.embedder)
    first = next(iter(lms))
    if not embedders and str(lms[first].get("model")).startswith("demo/"):
        embedders = {"main": {"model": "demo/tfidf"}}
    folder = [] if options.state_dir is None else ["--state-dir", str(options.state_dir)]
    if options.state_dir is not None and not options.state_dir.is_dir():
        raise UsageError(f"--state-dir: there is no folder {options.state_dir}")
    bridge = [sys.executable, "-P", "-m", "dspex_bridge", "--log-level", log_level, *folder]
    async with await Client.spawn(bridge) as client:
        await client.configure(
            lms=lms, default_lm=first, adapter=options.adapter, embedders=embedders or None
        )
        yield client


async def create_program(client: Client, options: Namespace) -> tuple[str, SignatureSpec]:
    """Makes the program of `--signature` or `--program`: its id and its signature."""
    if options.program is None:
        told = await client.create(
            options.signature,
            module=options.module,
            instructions=options.instructions,
            program=BASE_PROGRAM,
        )
    else:
        state = _read_program(options)
        name = options.program.stem or BASE_PROGRAM
        if "format_version" in state:
            told = await client.load(state, program=name)
        else:
            told = await client.request("create", {"program": name, **state})
    return told["program"], signature_from_wire(told["signature"])


def print_json(value: Any) -> str:
    return f"{json.dumps(value, ensure_ascii=False, indent=2, default=str)}\n"


def complain(command: str, text: str) -> None:
    sys.stderr.write(f"dspex {command}: {text.rstrip()}\n")


def _read_program(options: Namespace) -> dict[str, Any]:
    path = options.program
    if options.module is not None or options.instructions is not None:
        raise UsageError("--module and --instructions belong to --signature, not to --program")
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--program: cannot read {path}: {error}") from error
    if not isinstance(state, dict):
        raise UsageError(f"--program: {path} holds no map, which a program is")
    return state


def named(configured: list[tuple[str | None, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """By name; the one without is `main`."""
    named: dict[str, dict[str, Any]] = {}
    for name, config in configured:
        if (name or "main") in named:
            raise UsageError(f"{config.get('model')}: give each but the first a name: NAME=MODEL")
        named[name or "main"] = config
    return named


def _caret(signature: str | None, error: SignatureError) -> str:
    position = error.data.get("position")
    return "" if position is None or signature is None else f"  {signature}\n  {' ' * position}^"
