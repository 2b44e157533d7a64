"""`dspex run`: one program, once, from a shell, through a bridge of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from dspex_protocol.types import Scalar

from .options import (
    add_bridge_options,
    add_program_options,
    json_or_text,
    new_parser,
    pair,
    read_text,
)
from .session import create_program, open_bridge, print_json, run_command

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
"""

_DEFAULT_TIMEOUT_S = 120


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 with the outputs printed, 1 where the program failed, 2 for bad usage."""
    parser = new_parser("run", "Run one DSPy program once and print its outputs.", _EXAMPLES)
    add_program_options(parser)
    parser.add_argument(
        "--input",
        action="append",
        default=[],
        type=pair,
        metavar="NAME=VALUE",
        help="one for each input; @FILE reads the value from a file; JSON where it is not a str",
    )
    add_bridge_options(parser)
    parser.set_defaults(timeout=_DEFAULT_TIMEOUT_S)
    return run_command("run", _run, parser.parse_args(arguments))


async def _run(options: Namespace) -> str:
    texts = {name: read_text(f"--input {name}", text) for name, text in options.input}
    async with open_bridge(options) as client:
        program, signature = await create_program(client, options)
        result = await client.execute(
            program, _inputs(texts, signature), timeout_ms=options.timeout * 1000
        )
    return print_json(result) if options.json else _readable(result)


def _inputs(texts: dict[str, str], signature: SignatureSpec) -> dict[str, Any]:
    """Where a text is no JSON, the bridge says what it expected and what it got."""
    typed = {field.name for field in signature.inputs if field.type != Scalar("str")}
    return {name: json_or_text(text) if name in typed else text for name, text in texts.items()}


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
