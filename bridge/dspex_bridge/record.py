"""`dspex record`: a command, a test suite for instance, whose bridges record their LMs' answers."""

from __future__ import annotations

import os
import subprocess
import sys
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

The file is made anew. Afterwards the same tests run without a provider, with the LM
{"model": "replay/qa.jsonl"} and bridges that are started with --state-dir test/fixtures.
"""


def main(arguments: Sequence[str]) -> int:
    """The command's own exit status; 2 for bad usage, 127 where there is no such command."""
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
    try:
        path.write_bytes(b"")
        path.chmod(0o600)
        status = subprocess.call(command, env={**os.environ, RECORD_VARIABLE: str(path)})  # noqa: S603 - the user's own command
    except OSError as error:
        sys.stderr.write(f"dspex record: {error}\n")
        return 127 if isinstance(error, FileNotFoundError) and path.exists() else 2
    count = path.read_bytes().count(b"\n")
    sys.stderr.write(f"dspex record: {count} exchanges in {options.file}\n")
    return status
