"""The command `dspex`. Nothing heavy is imported before the subcommand is known."""

from __future__ import annotations

import os
import sys

from .environment import RECORD_VARIABLE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from .host import Options
    from .state_dir import StateDir
    from .stdio import Wire

__all__ = ["bridge", "main"]

_USAGE = """\
usage: dspex COMMAND [OPTION ...]

DSPy programs for Elixir, and for any other language, over a port.

commands:
  bridge       serve DSPy programs on stdin and stdout, for a program that spawned it
  run          run one program once and print its outputs
  evaluate     score a program on labelled examples
  optimize     make a program better by labelled examples
  dataset      write the labelled examples that come with DSPex
  serve        keep programs, executions and jobs in a database, behind GraphQL and JSON
  worker       run the jobs of servers that share a PostgreSQL
  doctor       check what DSPex needs on this machine and say what to do about it
  record       run a command, and record what the LMs of its bridges answer
  conformance  check that a bridge, or a client, keeps to the protocol

dspex COMMAND --help tells more of each.
"""

_TERMINAL = """\
dspex bridge speaks length-prefixed MessagePack on stdin and stdout: it is for a program that
spawns it (an Erlang port, or any language's subprocess), and this is a terminal.

  To try DSPex from here:      dspex run --signature "question -> answer" --input question="..."
  To check this machine:       dspex doctor
  From Elixir:                 {DSPex, name: MyApp.DSPex, lms: [main: [model: "openai/gpt-5-mini"]]}
  From Python:                 await dspex_protocol.client.Client.spawn()
"""


def main() -> NoReturn:
    arguments = sys.argv[1:]
    command = arguments[0] if arguments else None
    if command == "bridge":
        bridge(arguments[1:])
    if command == "run":
        from .commands.run import main as run

        sys.exit(run(arguments[1:]))
    if command == "evaluate":
        from .commands.evaluate import main as evaluate

        sys.exit(evaluate(arguments[1:]))
    if command == "optimize":
        from .commands.optimize import main as optimize

        sys.exit(optimize(arguments[1:]))
    if command == "dataset":
        from .commands.dataset import main as dataset

        sys.exit(dataset(arguments[1:]))
    if command in ("serve", "worker"):
        sys.exit(_serve(command, arguments[1:]))
    if command == "doctor":
        from .doctor import main as doctor

        sys.exit(doctor(arguments[1:]))
    if command == "record":
        from .record import main as record

        sys.exit(record(arguments[1:]))
    if command == "conformance":
        from .conformance import main as conformance

        sys.exit(conformance(arguments[1:]))
    if command in ("-h", "--help", "help"):
        sys.stdout.write(_USAGE)
        sys.exit(0)
    if command == "--version":
        from .catalog import VERSION

        sys.stdout.write(f"dspex {VERSION}\n")
        sys.exit(0)
    sys.stderr.write(_USAGE)
    if command is not None:
        # Last, where a client looks for why its bridge ended.
        sys.stderr.write(f"\ndspex: error: there is no command {command!r}\n")
    sys.exit(2)


def _serve(command: str, arguments: Sequence[str]) -> int:
    try:
        from dspex_server.serve import main as serve
    except ModuleNotFoundError as error:
        sys.stderr.write(
            f"dspex {command}: the package {error.name} is missing: pip install 'dspex[server]'\n"
        )
        return 1
    return serve(command, arguments)


def bridge(arguments: Sequence[str]) -> NoReturn:
    """Claims the wire, forks the guard, and only then imports what it takes to serve."""
    if "-h" in arguments or "--help" in arguments:
        _options(arguments)
    try:
        if os.isatty(0) or os.isatty(1):
            sys.stderr.write(_TERMINAL)
            sys.exit(2)
        from .stdio import claim

        wire = claim()
    except OSError as error:
        sys.stderr.write(f"dspex bridge: stdin and stdout must both be open ({error})\n")
        sys.exit(2)
    from . import guard

    options = _options(arguments) if arguments or os.environ.get(RECORD_VARIABLE) else None
    if options is not None and options.is_fork_server:
        _serve_forks(wire, options)
    guard.start(wire.read_fd, wire.write_fd)
    from . import loop
    from .host import Options

    loop.serve(loop.make_host(wire, options or Options()), wire.read_fd)


def _serve_forks(wire: Wire, options: Options) -> NoReturn:
    from . import fork_server, guard

    folder = fork_server.make_folder()
    guard.start(wire.read_fd, wire.write_fd, folder=folder)
    fork_server.serve(wire, options, folder)


def _options(arguments: Sequence[str]) -> Options:
    from argparse import ArgumentParser

    from dspex_protocol.framing import LARGEST_MAX_FRAME_BYTES, SMALLEST_MAX_FRAME_BYTES

    from .host import Options
    from .logs import LEVELS

    defaults = Options()
    parser = ArgumentParser(
        "dspex bridge",
        description="Serve DSPy programs on stdin and stdout: frames of MessagePack behind a "
        "4-byte big-endian length (Erlang's {packet, 4}). Logs go to stderr.",
    )
    parser.add_argument(
        "--max-frame-bytes",
        type=_integer(SMALLEST_MAX_FRAME_BYTES, LARGEST_MAX_FRAME_BYTES),
        default=defaults.max_frame_bytes,
        metavar="N",
        help="refuse longer frames (default: %(default)s)",
    )
    parser.add_argument(
        "--max-in-flight",
        type=_integer(1, 2**31),
        default=defaults.max_in_flight,
        metavar="N",
        help="answer 'overloaded' beyond this many requests at once (default: %(default)s)",
    )
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=defaults.log_level,
        help="what is written to stderr (default: %(default)s)",
    )
    parser.add_argument(
        "--state-dir",
        type=_state_dir,
        default=defaults.state_dir,
        metavar="FOLDER",
        help="where the files that clients name (saves, recordings, media) lie; without it there "
        "are none",
    )
    parser.add_argument(
        "--record",
        type=_recording,
        default=os.environ.get(RECORD_VARIABLE) or None,
        metavar="FILE",
        help="append every LM exchange to this file, for the LM replay/FILE "
        f"(default: what {RECORD_VARIABLE} says, which `dspex record` sets)",
    )
    parser.add_argument(
        "--max-memory-mb",
        type=_integer(1, 2**31),
        default=defaults.max_memory_mb,
        metavar="N",
        help="send 'unhealthy' once the process has more than so many MiB (default: never)",
    )
    parser.add_argument(
        "--max-stuck",
        type=_integer(0, 2**31),
        default=defaults.max_stuck,
        metavar="N",
        help="send 'unhealthy' once more than so many pieces of cancelled work do not end "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--fork-server",
        action="store_true",
        help="serve no programs, but fork a bridge with these options for each request `fork`",
    )
    parsed = parser.parse_args(arguments)
    return Options(
        max_frame_bytes=parsed.max_frame_bytes,
        max_in_flight=parsed.max_in_flight,
        log_level=parsed.log_level,
        state_dir=parsed.state_dir,
        record=parsed.record,
        max_memory_mb=parsed.max_memory_mb,
        max_stuck=parsed.max_stuck,
        is_fork_server=parsed.fork_server,
    )


def _state_dir(folder: str) -> StateDir:
    from argparse import ArgumentTypeError

    from .state_dir import StateDir

    try:
        return StateDir(folder)
    except OSError as error:
        raise ArgumentTypeError(f"{folder!r} cannot be used: {error.strerror}") from error


def _recording(path: str) -> str:
    """A file that can be appended to; it is made, so that one that cannot be is told at once."""
    from argparse import ArgumentTypeError

    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ArgumentTypeError(f"{path!r} cannot be written: {error.strerror}") from error
    return path


def _integer(minimum: int, maximum: int) -> Callable[[str], int]:
    from argparse import ArgumentTypeError

    def parse(text: str) -> int:
        if not text.isdecimal() or not minimum <= int(text) <= maximum:
            raise ArgumentTypeError(f"expected an integer from {minimum} to {maximum}")
        return int(text)

    return parse
