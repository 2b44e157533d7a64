"""`dspex evaluate`: a program's score on examples, through a bridge of its own."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from dspex_protocol.errors import BudgetExceededError

from .examples import SOURCES, read_examples
from .options import (
    add_bridge_options,
    add_data_options,
    add_program_options,
    limits,
    metric,
    new_parser,
    positive,
)
from .progress import showing
from .report import spent
from .session import create_program, open_bridge, print_json, run_command

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

__all__ = ["main"]

_EXAMPLES = """\
examples:
  dspex evaluate --signature "message -> department" --dataset support_messages:test \\
                 --metric exact_match:department
  dspex evaluate --program best.json --dataset held_out.csv --inputs message=body \\
                 --outputs department --metric exact_match
"""


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 with the score printed, 1 where it could not be had, or where a limit
    cut it off, 2 for bad usage."""
    parser = new_parser("evaluate", "Score a program on labelled examples.", _EXAMPLES)
    add_program_options(parser)
    parser.add_argument("--dataset", required=True, metavar="SOURCE", help=SOURCES)
    parser.add_argument(
        "--metric",
        required=True,
        type=metric,
        metavar="NAME[:FIELD]",
        help="such as exact_match:answer, or the protocol's map as JSON",
    )
    parser.add_argument("--max-concurrency", type=positive, metavar="N", help="examples at once")
    add_data_options(parser)
    add_bridge_options(parser)
    return run_command("evaluate", _evaluate, parser.parse_args(arguments))


async def _evaluate(options: Namespace) -> str:
    # What fails is in the result, and the bar is not torn by it.
    async with open_bridge(options, log_level="error") as client:
        program, signature = await create_program(client, options)
        examples = read_examples(options.dataset, signature, options)
        with showing("evaluate") as show:
            result = await client.evaluate(
                program,
                examples,
                options.metric,
                max_concurrency=options.max_concurrency,
                limits=limits(options),
                timeout_ms=None if options.timeout is None else options.timeout * 1000,
                listener=lambda told: show(told.params),
            )
    text = print_json(result) if options.json else _readable(result)
    spent_up = [error for error in _errors(result) if error["code"] == "budget_exceeded"]
    if spent_up:
        # A score of what a budget cut off is none that a script should take for one.
        sys.stdout.write(text)
        raise BudgetExceededError(spent_up[0]["message"])
    return text


def _errors(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [item["error"] for item in result["results"] if "error" in item]


def _readable(result: dict[str, Any]) -> str:
    count = len(result["results"])
    lines = [f"score: {result['score']:.3f} on {count} examples"]
    errors = _errors(result)
    if errors:
        first = errors[0]
        lines.append(f"failed: {len(errors)}, the first with {first['code']}: {first['message']}")
    return "\n".join([*lines, f"({spent(result)})\n"])
