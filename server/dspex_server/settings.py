"""What `dspex serve` and `dspex worker` are told on their command lines, and by the environment."""

from __future__ import annotations

import argparse
import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_bridge.shapes import LMS
from dspex_protocol.errors import InvalidParamsError

from .db.database import parse_url

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Settings", "bridge_environment", "read_settings"]

_DEFAULT_PORT = 8000

# A bridge keeps one core busy; more of them than this are asked for by name.
_MAX_DEFAULT_BRIDGES = 4

_DEMO_LM = "demo/knn"

# A token is guessed as fast as the server answers: shorter ones are not taken for one.
_MIN_TOKEN_CHARS = 16

_TOKEN_VARIABLE = "DSPEX_SERVER_TOKEN"  # noqa: S105 - its name
_DATABASE_VARIABLE = "DSPEX_DATABASE_URL"

# What is the server's alone; PGPASSWORD is read by its database driver.
_NOT_FOR_BRIDGES = (_TOKEN_VARIABLE, _DATABASE_VARIABLE, "PGPASSWORD")

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Settings:
    """`serves`: over HTTP; a worker runs jobs alone. `notice` is for the person who started it."""

    serves: bool
    host: str
    port: int
    token: str | None = field(repr=False)
    data_dir: Path
    database_url: str
    bridges: int
    optimizations: int
    batches: int
    lms: Mapping[str, Any]
    default_lm: str
    notice: str | None


def read_settings(command: str, arguments: Sequence[str]) -> Settings:
    """Ends the process with status 2, and what is wrong, where the arguments cannot be."""
    parser = _parser(command)
    parsed = parser.parse_args(arguments)
    data_dir = Path(parsed.data_dir or _default_folder()).expanduser().resolve()
    url = parsed.database_url or os.environ.get(_DATABASE_VARIABLE)
    url = url or f"sqlite:///{data_dir / 'dspex.sqlite'}"
    try:
        backend = parse_url(url).get_backend_name()
    except ValueError as error:
        parser.error(str(error))
    if command == "worker" and backend == "sqlite":
        parser.error("a worker shares a PostgreSQL with a server: --database-url postgresql://…")
    try:
        lms, default_lm, notice = _lms(parsed.lm, parsed.lms)
        token = _token(parsed.token_file) if command == "serve" else None
    except (ValueError, OSError, InvalidParamsError) as error:
        parser.error(str(error))
    host = getattr(parsed, "host", "")
    if command == "serve" and host not in _LOOPBACK and token is None:
        parser.error(
            f"--host {host} lets in whoever can reach it: say which token they have to show, by "
            "--token-file or DSPEX_SERVER_TOKEN"
        )
    return Settings(
        serves=command == "serve",
        host=host,
        port=getattr(parsed, "port", 0),
        token=token,
        data_dir=data_dir,
        database_url=url,
        bridges=parsed.bridges,
        optimizations=parsed.optimizations,
        batches=parsed.batches,
        lms=lms,
        default_lm=default_lm,
        notice=notice,
    )


def bridge_environment() -> dict[str, str]:
    """This process's, with the keys of its LMs, without what lets one into it and its database."""
    return {name: value for name, value in os.environ.items() if name not in _NOT_FOR_BRIDGES}


def _parser(command: str) -> argparse.ArgumentParser:
    serves = command == "serve"
    parser = argparse.ArgumentParser(
        f"dspex {command}",
        description="Keep programs, executions and jobs in a database, behind GraphQL and JSON."
        if serves
        else "Run the jobs of servers that share a PostgreSQL.",
    )
    if serves:
        parser.add_argument("--host", default="127.0.0.1", help="default: %(default)s")
        parser.add_argument(
            "--port",
            type=_integer(0, 65535),
            default=_DEFAULT_PORT,
            metavar="N",
            help="0 takes a free one (default: %(default)s)",
        )
        parser.add_argument(
            "--token-file",
            metavar="FILE",
            help="a file with the token that every request has to show (default: "
            "$DSPEX_SERVER_TOKEN, else none is needed; a --host that others reach needs one)",
        )
    parser.add_argument(
        "--data-dir",
        metavar="FOLDER",
        help="where the database and the checkpoints of jobs lie (default: dspex in "
        "$XDG_DATA_HOME, which is ~/.local/share)",
    )
    parser.add_argument(
        "--database-url",
        metavar="URL",
        help="postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or sqlite:///FILE (default: "
        "$DSPEX_DATABASE_URL, else a file in the data folder)",
    )
    parser.add_argument(
        "--lm",
        action="append",
        default=[],
        metavar="[NAME=]MODEL",
        help="a language model, as LiteLLM names it; the first one is the default. Its key is "
        "read from its provider's environment variable",
    )
    parser.add_argument(
        "--lms",
        metavar="FILE",
        help="a TOML file with a table for each LM, its keys those of `configure`",
    )
    parser.add_argument(
        "--bridges",
        type=_integer(1, 256),
        default=min(os.cpu_count() or 1, _MAX_DEFAULT_BRIDGES),
        metavar="N",
        help="processes that run programs, all but the first started when needed (default: "
        "%(default)s)",
    )
    for name, default in (("optimizations", 2), ("batches", 4)):
        parser.add_argument(
            f"--{name}",
            type=_integer(0, 1_000),
            default=default,
            metavar="N",
            help=f"{name} that run here at once; 0 leaves them to others (default: %(default)s)",
        )
    return parser


def _lms(named: Sequence[str], file: str | None) -> tuple[dict[str, Any], str, str | None]:
    lms: dict[str, Any] = {}
    if file is not None:
        lms = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    for text in named:
        name, is_named, model = text.partition("=")
        lms[name if is_named else "main"] = {"model": model if is_named else name}
    notice = None
    if not lms:
        model = os.environ.get("DSPEX_MODEL") or ""
        if not model and os.environ.get("OPENAI_API_KEY"):
            model = "openai/gpt-5-mini"
        if not model:
            model = _DEMO_LM
            notice = (
                f"No --lm, DSPEX_MODEL or OPENAI_API_KEY: programs are answered by the embedded "
                f"{_DEMO_LM}, which repeats its nearest demonstration and is no language model."
            )
        lms = {"main": {"model": model}}
    LMS(lms, "lms")
    default = "main" if "main" in lms else next(iter(lms))
    if named:
        first, is_named, _ = named[0].partition("=")
        default = first if is_named else "main"
    return lms, default, notice


def _token(file: str | None) -> str | None:
    """Raises ValueError, which does not repeat it, and OSError."""
    token = os.environ.get(_TOKEN_VARIABLE) or None
    if file is not None:
        token = Path(file).read_text(encoding="utf-8").strip()
    if token is None:
        return None
    is_one = token.isascii() and token.isprintable() and " " not in token
    if not is_one or len(token) < _MIN_TOKEN_CHARS:
        raise ValueError(
            f"the token must have {_MIN_TOKEN_CHARS} characters or more, of ASCII and without "
            "spaces: `openssl rand -hex 32` makes one"
        )
    return token


def _default_folder() -> str:
    return str(Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share") / "dspex")


def _integer(minimum: int, maximum: int) -> Any:
    def parse(text: str) -> int:
        if not text.isdecimal() or not minimum <= int(text) <= maximum:
            raise argparse.ArgumentTypeError(f"expected an integer from {minimum} to {maximum}")
        return int(text)

    return parse
