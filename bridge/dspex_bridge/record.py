"""`dspex record`: a command, a test suite for instance, whose bridges record their LMs' answers."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from argparse import REMAINDER, ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING

from .environment import RECORD_VARIABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_EXAMPLES = """\
example:
  dspex record --file test/fixtures/qa.jsonl -- mix test

The file is made anew when the command has ended and something was recorded; else it stays as it is.
Afterwards the same tests run without a provider, with the LM
{"model": "replay/qa.jsonl"} and bridges that are started with --state-dir test/fixtures.
"""


def main(arguments: Sequence[str]) -> int:
    """The command's own exit status; 2 for bad usage, 127 where there is no such command,
    126 where it cannot be run."""
    parser = ArgumentParser(
        "dspex record",
        description="Run a command, and record what the LMs of every bridge that it starts "
        "answer. Keys and addresses are not recorded, prompts and answers are.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--file", required=True, type=Path, help="where to: lines of JSON")
    parser.add_argument("command", nargs=REMAINDER, metavar="-- COMMAND", help="what to run")
    options = parser.parse_args(arguments)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not command:
        parser.error("there is no command to run: dspex record --file FILE -- COMMAND")
    path: Path = options.file.absolute()
    if path.is_dir():
        sys.stderr.write(f"dspex record: {options.file} is a folder, and has to be a file\n")
        return 2
    try:
        # Beside it, to take its place in one step: what was recorded before is worth more than a
        # command that could not run. It is made with 0600.
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        sys.stderr.write(f"dspex record: {options.file} cannot be written: {error.strerror}\n")
        return 2
    os.close(handle)
    made = Path(name)
    try:
        return _record(command, options.file, made)
    finally:
        made.unlink(missing_ok=True)


def _record(command: Sequence[str], file: Path, made: Path) -> int:
    """Runs it; what it recorded in `made` becomes `file`, where that is something."""
    kept = f"{file} is as it was" if file.exists() else f"{file} is not made"
    try:
        status = subprocess.call(command, env={**os.environ, RECORD_VARIABLE: str(made)})  # noqa: S603 - the user's own command
    except OSError as error:
        sys.stderr.write(f"dspex record: {command[0]}: {error.strerror}: {kept}\n")
        return 127 if isinstance(error, FileNotFoundError) else 126
    count = made.read_bytes().count(b"\n")
    if count:
        made.replace(file)
        told = f"{count} exchanges in {file}"
    else:
        told = f"nothing was recorded: {kept}"
    sys.stderr.write(f"dspex record: {told}\n")
    return status
