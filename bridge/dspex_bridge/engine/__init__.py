"""DSPy itself: the only package that imports it."""

from .core import Engine
from .preloading import preload

__all__ = ["Engine", "preload"]
