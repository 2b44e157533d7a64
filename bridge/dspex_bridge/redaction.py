"""Keeps secrets out of everything that leaves the bridge: errors, logs, states, answers."""

from __future__ import annotations

import os

__all__ = ["MASK", "Redactor"]

MASK = "***"

# Shorter values are words ("test", "none"): masking those would make nonsense of other texts.
_MIN_SECRET_LENGTH = 6

_SECRET_NAMES = ("_API_KEY", "_API_TOKEN", "_ACCESS_KEY", "_SECRET", "_SECRET_KEY", "_TOKEN")


class Redactor:
    """Replaces every secret it knows in a text: those of the environment, and those given."""

    def __init__(self) -> None:
        self._secrets: list[str] = []
        for name, value in os.environ.items():
            if name.endswith(_SECRET_NAMES):
                self.add(value)

    def add(self, secret: str | None) -> None:
        if secret and len(secret) >= _MIN_SECRET_LENGTH and secret not in self._secrets:
            self._secrets.append(secret)
            # The longest first, so that one which contains another leaves no tail behind.
            self._secrets.sort(key=len, reverse=True)

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        return text

    def value(self, value: object) -> object:
        """The same value with every text in its maps and lists redacted."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value
