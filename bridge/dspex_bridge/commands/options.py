"""Options that several commands have, and how their values are read."""

from __future__ import annotations

import json
import re
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_bridge.catalog import ADAPTERS, MODULES

if TYPE_CHECKING:
    from argparse import Namespace

__all__ = [
    "MODELS",
    "UsageError",
    "add_bridge_options",
    "add_data_options",
    "add_program_options",
    "json_or_text",
    "limits",
    "metric",
    "new_parser",
    "pair",
    "positive",
    "prepare_file",
    "read_text",
    "seconds",
]

MODELS = """\
The LM is --lm, else the environment's DSPEX_MODEL, else openai/gpt-5-mini where OPENAI_API_KEY is
set, else the embedded demo/knn. Keys are read from the environment by the provider's usual name.
"""

_NAMED = re.compile(r"(?P<name>[A-Za-z_]\w*)=(?P<value>.+)", re.DOTALL)


class UsageError(ValueError):
    """A command cannot be run as it was given; its text says why."""


def new_parser(command: str, description: str, examples: str) -> ArgumentParser:
    return ArgumentParser(
        f"dspex {command}",
        description=description,
        epilog=f"{examples}\n{MODELS}",
        formatter_class=RawDescriptionHelpFormatter,
    )


def add_program_options(parser: ArgumentParser) -> None:
    """Which program: `signature` with what belongs to it, or `program`, a file."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--signature", help='such as "question -> answer: str"')
    which.add_argument(
        "--program",
        type=Path,
        metavar="FILE",
        help="JSON: a bundle, as save and dspex optimize --save write it, or the parameters of "
        "create",
    )
    parser.add_argument("--module", choices=MODULES, help="with --signature (default: predict)")
    parser.add_argument("--instructions", help="with --signature: what the program is to do")


def add_bridge_options(parser: ArgumentParser) -> None:
    """With what LMs and how: `lm`, `embedder`, `adapter`, `timeout`, `state_dir`, `json`."""
    parser.add_argument(
        "--lm",
        action="append",
        default=[],
        type=_configured,
        metavar="[NAME=]MODEL",
        help="such as openai/gpt-5-mini, or demo/knn, or a map as JSON; the first one is used "
        "where nothing else is said, others by their NAME",
    )
    parser.add_argument(
        "--embedder",
        action="append",
        default=[],
        type=_configured,
        metavar="[NAME=]MODEL",
        help="for knn and semantic_f1, such as openai/text-embedding-3-small (beside an embedded "
        "LM: demo/tfidf)",
    )
    parser.add_argument("--adapter", choices=ADAPTERS)
    parser.add_argument("--timeout", type=seconds, metavar="SECONDS")
    parser.add_argument(
        "--state-dir", type=Path, metavar="FOLDER", help="where replays and checkpoints lie"
    )
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")


def add_data_options(parser: ArgumentParser) -> None:
    """How examples are made of rows, and by what they are scored."""
    parser.add_argument(
        "--inputs",
        type=_columns,
        metavar="FIELD[=COLUMN],…",
        help="the inputs, and their columns where those have other names (default: the program's)",
    )
    parser.add_argument(
        "--outputs", type=_columns, metavar="FIELD[=COLUMN],…", help="the same of the outputs"
    )
    parser.add_argument(
        "--max-examples", type=positive, metavar="N", help="take the first N examples of each set"
    )
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        type=pair,
        metavar="NAME=NUMBER",
        help="max_cost_usd, max_tokens, max_calls, requests_per_minute or max_concurrency",
    )


def pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number of seconds, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def metric(text: str) -> dict[str, Any]:
    """NAME, NAME:FIELD, or the protocol's map as JSON."""
    if text.startswith("{"):
        return _json_map(text)
    name, separator, field = text.partition(":")
    if not name or (separator and not field):
        raise ArgumentTypeError(f"expected NAME, NAME:FIELD or a map as JSON, got {text!r}")
    return {"name": name, "field": field} if field else {"name": name}


def read_text(option: str, text: str) -> str:
    """The text itself, or with an @ before it what is in the file of that name."""
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option}: cannot read {text[1:]}: {error}") from error


def json_or_text(text: str) -> Any:
    """The value that a text is as JSON, and where it is none the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def prepare_file(option: str, path: Path | None) -> None:
    """Raises UsageError where a file could not be written: before anything is paid for."""
    if path is None:
        return
    if path.is_dir():
        raise UsageError(f"{option}: {path} is a folder")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{option}: there is no folder {path.absolute().parent}")


def _configured(text: str) -> tuple[str | None, dict[str, Any]]:
    """A name, where there is one, and what is configured under it."""
    named = _NAMED.fullmatch(text)
    name, value = (named["name"], named["value"]) if named else (None, text)
    return name, _json_map(value) if value.startswith("{") else {"model": value}


def _columns(text: str) -> dict[str, str]:
    columns: dict[str, str] = {}
    for part in text.split(","):
        field, separator, column = part.strip().partition("=")
        if not field or (separator and not column) or field in columns:
            raise ArgumentTypeError(f"expected FIELD or FIELD=COLUMN, each once, got {text!r}")
        columns[field] = column or field
    return columns


def _json_map(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ArgumentTypeError(f"it begins with a brace and is no JSON: {error}") from error
    assert isinstance(value, dict)  # noqa: S101 - JSON that begins with a brace
    return value


def limits(options: Namespace) -> dict[str, Any] | None:
    """The map of the protocol, None where nothing is limited."""
    return {name: json_or_text(value) for name, value in options.limit} or None
