"""DSPy itself: the only package that imports it."""

from .core import Engine

__all__ = ["Engine"]
