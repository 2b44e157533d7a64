"""`dspex optimize`: a better program by examples and a metric, through a bridge of its own."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex_bridge.catalog import OPTIMIZERS

from .examples import SOURCES, read_examples
from .html_report import html_report
from .options import (
    add_bridge_options,
    add_data_options,
    add_program_options,
    json_or_text,
    limits,
    metric,
    new_parser,
    pair,
    prepare_file,
    read_text,
)
from .progress import showing
from .report import text_report
from .session import create_program, open_bridge, print_json, run_command

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from dspex_protocol.client import Client
    from dspex_protocol.messages import Notification

__all__ = ["main"]

_EXAMPLES = """\
example:
  dspex optimize --signature "message -> department" --trainset support_messages:train \\
                 --valset support_messages:val --outputs department \\
                 --metric exact_match:department --optimizer labeled_few_shot --param k=32 \\
                 --save best.json --html report.html

Ctrl-C, --timeout and a spent --limit end with the best program so far, a second Ctrl-C at once.
"""

# Where checkpoints lie if nothing is said: beside what is being worked on.
_STATE_DIR = Path(".dspex")


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 with a program, 1 where the run failed, 2 for bad usage, 130 where it was
    interrupted and has nothing."""
    parser = new_parser("optimize", "Make a program better by labelled examples.", _EXAMPLES)
    add_program_options(parser)
    parser.add_argument("--trainset", metavar="SOURCE", help=SOURCES)
    parser.add_argument(
        "--valset", metavar="SOURCE", help="what candidates are scored on (default: the trainset)"
    )
    parser.add_argument(
        "--metric",
        type=metric,
        metavar="NAME[:FIELD]",
        help="such as exact_match:answer, or the protocol's map as JSON",
    )
    parser.add_argument("--optimizer", required=True, choices=OPTIMIZERS)
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        type=pair,
        metavar="NAME=VALUE",
        help="of the optimizer: JSON, or a text where it is none; @FILE reads it from a file",
    )
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write the program as a bundle")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a report")
    parser.add_argument(
        "--checkpoint",
        metavar="NAME",
        help=f"go on where a run of that name was broken off (in --state-dir, else {_STATE_DIR})",
    )
    add_data_options(parser)
    add_bridge_options(parser)
    return run_command("optimize", _optimize, parser.parse_args(arguments))


async def _optimize(options: Namespace) -> str:
    params = {name: json_or_text(read_text(f"--param {name}", v)) for name, v in options.param}
    prepare_file("--save", options.save)
    prepare_file("--html", options.html)
    if options.checkpoint is not None and options.state_dir is None:
        options.state_dir = _STATE_DIR
        _STATE_DIR.mkdir(exist_ok=True)
    # What fails is in the result, and the bar is not torn by it.
    async with open_bridge(options, log_level="error") as client:
        program, signature = await create_program(client, options)
        sets = {
            name: read_examples(source, signature, options)
            for name in ("trainset", "valset")
            if (source := getattr(options, name)) is not None
        }
        base = await client.dump(program)
        with showing("optimize") as show:
            result = await _until_interrupted(
                client,
                {
                    "program": program,
                    "optimizer": {"name": options.optimizer, "params": params},
                    **sets,
                    "metric": options.metric,
                    "seed": options.seed,
                    "limits": limits(options),
                    "checkpoint": options.checkpoint,
                    "on_stop": "best",
                },
                timeout_ms=None if options.timeout is None else options.timeout * 1000,
                show=lambda told: show(told.params),
            )
    written = []
    if options.save is not None:
        options.save.write_text(print_json(result["state"]), encoding="utf-8")
        written.append(f"the program: {options.save}")
    if options.html is not None:
        examples = sets.get("valset") or sets.get("trainset") or []
        options.html.write_text(
            html_report(result, base=base, examples=examples, optimizer=options.optimizer),
            encoding="utf-8",
        )
        written.append(f"the report: {options.html}")
    if options.json:
        return print_json(result)
    return text_report(result) + "".join(f"{line}\n" for line in written)


async def _until_interrupted(
    client: Client,
    params: dict[str, Any],
    *,
    timeout_ms: int | None,
    show: Callable[[Notification], None],
) -> dict[str, Any]:
    """The answer of optimize. The first interrupt asks for the best so far, a second one ends."""
    request_id: int | None = None
    is_asked = False

    def hear(told: Notification) -> None:
        nonlocal request_id
        request_id = told.params["id"]
        show(told)

    def interrupt() -> None:
        nonlocal is_asked
        if request_id is None or is_asked:
            asking.cancel()
        else:
            client.notify("cancel", {"id": request_id})
        is_asked = True

    asking = asyncio.ensure_future(
        client.request("optimize", params, timeout_ms=timeout_ms, listener=hear)
    )
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        answer: dict[str, Any] = await asking
    finally:
        loop.remove_signal_handler(signal.SIGINT)
    return answer
