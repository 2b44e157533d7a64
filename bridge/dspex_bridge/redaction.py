"""Keeps secrets out of everything that leaves the bridge: errors, logs, states, answers."""

from __future__ import annotations

import os

__all__ = ["MASK", "Redactor", "is_secret_name", "mask_url"]

MASK = "***"

# Shorter values are words ("test", "none"): masking those would make nonsense of other texts.
_MIN_SECRET_LENGTH = 6

# Words in the name of a variable or a parameter whose value is a secret.
_SECRET_WORDS = frozenset(
    {"key", "token", "secret", "password", "passwd", "credential", "credentials", "authorization"}
)


def is_secret_name(name: str) -> bool:
    """Whether the value of a parameter or variable of that name is a secret: OPENAI_API_KEY,
    aws_secret_access_key, X-Auth-Token; but not max_tokens."""
    words = name.lower().replace("-", "_").split("_")
    return not _SECRET_WORDS.isdisjoint(words)


def mask_url(url: str) -> str:
    """A URL without the user and password that may stand in it."""
    scheme, separator, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    if not separator or "@" not in host:
        return url
    return f"{scheme}{separator}{MASK}@{host.rpartition('@')[2]}{slash}{path}"


class Redactor:
    """Replaces every secret it knows in a text: those of the environment, and those given."""

    def __init__(self) -> None:
        self._secrets: list[str] = []
        for name, value in os.environ.items():
            if is_secret_name(name):
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
