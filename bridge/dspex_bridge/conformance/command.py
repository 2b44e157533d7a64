"""The command line of `dspex conformance`."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from typing import TYPE_CHECKING

from .player import play
from .sessions import load_sessions

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from .sessions import Session

__all__ = ["main"]

# Long enough for a slow machine to import DSPy, short enough to wait for once.
_DEFAULT_TIMEOUT_S = 60.0

_DESCRIPTION = """\
Does a bridge keep to the protocol? Plays scripts of whole sessions against the bridge that COMMAND
starts, one process for each. Does a client? With --serve this is a bridge on stdin and stdout that
the client spawns, and that tries what a client has to bear. protocol/CONFORMANCE.md says more.
"""

_EXAMPLES = """\
examples:
  dspex conformance -- dspex bridge
  dspex conformance handshake cancel -- ./my-bridge --stdio
  dspex conformance --list
"""


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 where all is as it should be, 1 where something is not, 2 for bad usage."""
    own, separator, command = _split(arguments)
    options = _parse(own)
    sessions = load_sessions()
    if options.list:
        for session in sessions:
            needs = f" [needs {' '.join(session.options)}]" if session.options else ""
            sys.stdout.write(f"{session.name:<22} {session.about}{needs}\n")
        return 0
    if options.serve:
        from .scripted import serve

        report: str | None = options.report
        return serve(report)
    if not command:
        _complain("say which bridge after a --" if not separator else "no COMMAND after the --")
        return 2
    known = {session.name: session for session in sessions}
    unknown = [name for name in options.session if name not in known]
    if unknown:
        _complain(f"no session {', '.join(unknown)}; dspex conformance --list has them all")
        return 2
    chosen = [known[name] for name in options.session] or sessions
    return _run(chosen, command, options)


def _split(arguments: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """What stands before and after the first `--`: an option of the bridge's is none of ours."""
    if "--" not in arguments:
        return list(arguments), False, []
    at = list(arguments).index("--")
    return list(arguments[:at]), True, list(arguments[at + 1 :])


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = ArgumentParser(
        "dspex conformance",
        usage="dspex conformance [SESSION ...] [OPTION ...] -- COMMAND ...\n"
        "       dspex conformance --list\n"
        "       dspex conformance --serve [--report FILE]",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("session", nargs="*", help="play these alone (default: all)")
    parser.add_argument("--list", action="store_true", help="say which sessions there are")
    parser.add_argument(
        "--no-options",
        action="store_true",
        help="leave out the sessions that add options to COMMAND, such as --max-in-flight 1",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=_DEFAULT_TIMEOUT_S,
        metavar="SECONDS",
        help="how long to wait for a message (default: %(default)g)",
    )
    parser.add_argument("--serve", action="store_true", help="be a bridge for a client to bear")
    parser.add_argument(
        "--report", metavar="FILE", help="with --serve: append the verdicts, a JSON line each"
    )
    return parser.parse_args(arguments)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"expected a number of seconds over 0, got {text!r}")
    return seconds


def _run(sessions: Sequence[Session], command: Sequence[str], options: Namespace) -> int:
    passed, failed, left_out = 0, 0, 0
    for session in sessions:
        if session.options and options.no_options:
            left_out += 1
            _say(f"left out  {session.name}: needs {' '.join(session.options)}")
            continue
        try:
            problem = play(session, command, options.timeout)
        except OSError as error:
            _complain(f"{command[0]} cannot be started: {error.strerror}")
            return 2
        if problem is None:
            passed += 1
            _say(f"ok        {session.name}: {session.about}")
        else:
            failed += 1
            lines = problem.replace("\n", "\n          ")
            _say(f"FAILED    {session.name}: {session.about}\n          {lines}")
    _say(f"{passed} passed, {failed} failed" + (f", {left_out} left out" if left_out else ""))
    return 1 if failed else 0


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(f"dspex conformance: {text}\n")
