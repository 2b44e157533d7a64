"""`python -m dspex_bridge` is `dspex bridge`."""

from __future__ import annotations

import sys

from .cli import bridge

if __name__ == "__main__":
    bridge(sys.argv[1:])
