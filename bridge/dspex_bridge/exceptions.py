"""Exceptions in words."""

from __future__ import annotations

from dspex_protocol.codec import sendable

__all__ = ["describe"]


def describe(error: BaseException) -> str:
    """An exception in words that can be sent, whatever it says of itself."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:  # noqa: BLE001 - its own __str__ failed
        text = type(error).__name__
    return sendable(text)
