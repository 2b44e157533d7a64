"""`dspex dataset`: the labelled examples that come with the project, for other programs."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from typing import TYPE_CHECKING

from dspex_bridge.datasets import NAMES, SPLITS, load

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Exit status 0 with the examples written to stdout."""
    parser = ArgumentParser(
        "dspex dataset",
        description="Write the labelled examples of a data set that comes with DSPex as JSON, one "
        "{inputs, outputs} a line.",
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("split", choices=tuple(SPLITS))
    options = parser.parse_args(arguments)
    try:
        for example in load(options.name, options.split):
            sys.stdout.write(f"{json.dumps(example, ensure_ascii=False)}\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # Who reads, `head` for instance, has enough; nor is the rest to be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
