"""What erlport's Python side needs to be imported by Python 3.11 and later.

Its module `erlang` imports `inspect.getargspec`, which Python 3.11 removed, and calls it only where
an encoder, a decoder or a handler of messages is set. Python imports this module as it starts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

__all__: list[str] = []


def _getargspec(function: Callable[..., object]) -> tuple[Any, ...]:
    """Names of the arguments, of `*` and of `**`, and the defaults."""
    return inspect.getfullargspec(function)[:4]


if not hasattr(inspect, "getargspec"):
    inspect.getargspec = _getargspec  # type: ignore[attr-defined]
