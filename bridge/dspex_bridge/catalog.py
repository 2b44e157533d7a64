"""What this bridge offers by name: static, so that `initialize` is answered before DSPy is here."""

from __future__ import annotations

__all__ = ["ADAPTERS", "METRICS", "MODULES", "OPTIMIZERS", "PROTOCOL_VERSION", "VERSION"]

VERSION = "0.1.0"
PROTOCOL_VERSION = 1

MODULES = ("predict", "chain_of_thought", "react")
ADAPTERS = ("chat", "json", "xml")
OPTIMIZERS: tuple[str, ...] = ()
METRICS: tuple[str, ...] = ()
