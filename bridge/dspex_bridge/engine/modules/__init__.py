"""DSPy's modules, and pipelines of them, from specifications."""

from .build import build_module
from .kinds import MODULES, Resources

__all__ = ["MODULES", "Resources", "build_module"]
