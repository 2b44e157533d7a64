"""A bridge whose `demo/knn` is the LM that costs nothing: what is left is the bridge and DSPy."""

from __future__ import annotations

import sys

from dspex_bridge.cli import bridge
from dspex_bridge.engine import lms

from integration.bench.constant_lm import AsyncConstant

lms.AsyncKnnEngine = AsyncConstant  # type: ignore[attr-defined, assignment]

if __name__ == "__main__":
    bridge(sys.argv[1:])
