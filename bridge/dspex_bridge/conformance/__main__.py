"""`python -m dspex_bridge.conformance`: the same as `dspex conformance`."""

from __future__ import annotations

import sys

from . import main

sys.exit(main(sys.argv[1:]))
