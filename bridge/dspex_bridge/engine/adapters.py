"""Adapters by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dspy
from dspy.adapters import Adapter, XMLAdapter

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ADAPTERS", "Adapter"]

ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "chat": dspy.ChatAdapter,
    "json": dspy.JSONAdapter,
    "xml": XMLAdapter,
}
