"""`dspex run`: one program, once, from a shell, through a bridge of its own."""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_protocol.client import Client
from dspex_protocol.codec import EncodeError
from dspex_protocol.errors import DSPexError, SignatureError
from dspex_protocol.signatures import parse_signature
from dspex_protocol.types import Scalar

from .catalog import ADAPTERS, MODULES
from .environment import choose_model

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from dspex_protocol.signatures import SignatureSpec

__all__ = ["main"]

_EXAMPLES = """\
examples:
  dspex run --signature "question -> answer" --input question="What is a port?"
  dspex run --signature "text, limit: int -> points: list[str], tone: Literal['calm', 'angry']" \\
            --input text=@letter.txt --input limit=3

The LM is --lm, else the environment's DSPEX_MODEL, else openai/gpt-5-mini where OPENAI_API_KEY is
set, else the embedded demo/knn. Keys are read from the environment by the provider's usual name.
"""


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 with the outputs printed, 1 where the program failed, 2 for bad usage."""
    options = _parse(arguments)
    try:
        signature = parse_signature(options.signature)
        inputs = _inputs(options.input, signature)
    except SignatureError as error:
        _complain(f"{error}\n{_caret(options.signature, error)}")
        return 2
    except ValueError as error:
        _complain(str(error))
        return 2
    model, note = (options.lm, None) if options.lm else choose_model()
    if note:
        sys.stderr.write(f"{note}\n")
    try:
        result = asyncio.run(_run(options, model, inputs))
    except EncodeError as error:
        _complain(f"an input cannot be sent: {error}")
        return 2
    except DSPexError as error:
        _complain(f"{error.code}: {error}")
        return 1
    # A terminal that knows no such character gets its number: the answer has been paid for.
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if options.json:
        sys.stdout.write(f"{json.dumps(result, ensure_ascii=False, indent=2, default=str)}\n")
    else:
        sys.stdout.write(_readable(result))
    return 0


async def _run(options: Namespace, model: str, inputs: dict[str, Any]) -> dict[str, Any]:
    async with await Client.spawn() as client:
        await client.configure(lms={"main": {"model": model}}, adapter=options.adapter)
        return await client.execute(
            {
                "signature": options.signature,
                "module": options.module,
                **({"instructions": options.instructions} if options.instructions else {}),
            },
            inputs,
            timeout_ms=options.timeout * 1000,
        )


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = ArgumentParser(
        "dspex run",
        description="Run one DSPy program once and print its outputs.",
        epilog=_EXAMPLES,
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--signature", required=True, help='such as "question -> answer: str"')
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="one for each input; @FILE reads the value from a file; JSON where it is not a str",
    )
    parser.add_argument("--module", choices=MODULES, default="predict")
    parser.add_argument("--adapter", choices=ADAPTERS)
    parser.add_argument("--lm", metavar="MODEL", help="such as openai/gpt-5-mini, or demo/knn")
    parser.add_argument("--instructions", help="what the program is to do, in words")
    parser.add_argument("--timeout", type=_seconds, default=120, metavar="SECONDS")
    parser.add_argument("--json", action="store_true", help="print the whole result as JSON")
    return parser.parse_args(arguments)


def _pair(text: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ArgumentTypeError(f"expected NAME=VALUE, got {text!r}")
    return name, value


def _seconds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number of seconds, got {text!r}")
    return int(text)


def _inputs(pairs: list[tuple[str, str]], signature: SignatureSpec) -> dict[str, Any]:
    types = {field.name: field.type for field in signature.inputs}
    inputs: dict[str, Any] = {}
    for name, text in pairs:
        value: Any = text
        if text.startswith("@"):
            try:
                value = Path(text[1:]).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"--input {name}: cannot read {text[1:]}: {error}") from error
        if name in types and types[name] != Scalar("str"):
            # Where it is no JSON, the bridge says what it expected and what it got.
            with suppress(ValueError):
                value = json.loads(value)
        inputs[name] = value
    return inputs


def _readable(result: dict[str, Any]) -> str:
    lines = []
    for name, value in result["outputs"].items():
        shown = (
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        )
        lines.append(f"{name}: {shown}")
    model_and_cost = [f"{result['usage']['total_tokens']} tokens"]
    if result["cost_usd"]:
        model_and_cost.append(f"${result['cost_usd']:.6f}")
    model_and_cost.append(f"{result['duration_ms']:.0f} ms")
    return "\n".join(lines) + f"\n({', '.join(model_and_cost)})\n"


def _caret(signature: str, error: SignatureError) -> str:
    position = error.data.get("position")
    return "" if position is None else f"  {signature}\n  {' ' * position}^"


def _complain(text: str) -> None:
    sys.stderr.write(f"dspex run: {text.rstrip()}\n")
