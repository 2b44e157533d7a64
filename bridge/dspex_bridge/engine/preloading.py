"""What otherwise comes with the first calls, for a process that is forked before them."""

from __future__ import annotations

from .core import Engine

__all__ = ["preload"]


def preload() -> None:
    """Imports and reads it: it is then there at once, and shared by all forks."""
    # Of DSPy's memory cache, and of the spelling of a name that is almost right.
    import difflib

    import cachetools

    # DSPy's native engine, with the first call over HTTP.
    from dspy._vendor.lm15 import cloud

    del cachetools, cloud, difflib
    Engine.versions()
