"""The kinds of jobs: what each one does in its worker, by the method that asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .optimize import optimize
from .run_module import run_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex_protocol.messages import Request

    from .link import Link

__all__ = ["CHATTY", "KINDS"]

KINDS: dict[str, Callable[[Request, Link], Any]] = {"module": run_module, "optimize": optimize}

# Optimizers print what they try.
CHATTY = frozenset({"optimize"})
