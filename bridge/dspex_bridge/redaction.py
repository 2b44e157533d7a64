"""Keeps secrets out of everything that leaves the bridge: errors, logs, states, answers."""

from __future__ import annotations

import os

__all__ = ["MASK", "Redactor", "is_secret_name", "mask_url", "secrets_of_url"]

MASK = "***"

# Shorter values are words ("test", "none"): masking those would make nonsense of other texts.
_MIN_SECRET_LENGTH = 6

# Words in the name of a variable or a parameter whose value is a secret.
_SECRET_WORDS = frozenset(
    {
        *("key", "token", "secret", "password", "passwd", "pwd", "passphrase", "credential"),
        *("credentials", "authorization", "auth", "bearer", "apikey", "accesskey"),
    }
)


def is_secret_name(name: str) -> bool:
    """Whether the value of a parameter or variable of that name is a secret: OPENAI_API_KEY,
    aws_secret_access_key, X-Auth-Token; but not max_tokens."""
    words = name.lower().replace("-", "_").split("_")
    return not _SECRET_WORDS.isdisjoint(words)


def mask_url(url: str) -> str:
    """A URL without the user and password, and the values of the query, that may stand in it."""
    address, question, query = url.partition("?")
    scheme, separator, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    if separator and "@" in host:
        address = f"{scheme}{separator}{MASK}@{host.rpartition('@')[2]}{slash}{path}"
    return f"{address}{question}{MASK}" if query else address


def secrets_of_url(url: str) -> list[str]:
    """What `mask_url` hides."""
    address, _, query = url.partition("?")
    user_info, at, _ = address.partition("://")[2].partition("/")[0].rpartition("@")
    found = [pair.partition("=")[2] for pair in query.split("&")]
    return [user_info.partition(":")[2], user_info, *found] if at else found


# The data of an error may quote a value of the user's; Python's own recursion has an end.
_MAX_DEPTH = 100

# Far more than there are requests in flight with a key of their own.
_PASSING_KEPT = 256


class Redactor:
    """Replaces every secret it knows in a text: those of the environment, and those given."""

    def __init__(self) -> None:
        self._secrets: list[str] = []
        self._passing: list[str] = []
        for name, value in os.environ.items():
            if is_secret_name(name):
                self.add(value)

    def add(self, secret: str | None) -> None:
        if secret and len(secret) >= _MIN_SECRET_LENGTH and secret not in self._secrets:
            self._secrets.append(secret)
            # The longest first, so that one which contains another leaves no tail behind.
            self._secrets.sort(key=len, reverse=True)

    def add_passing(self, secret: str) -> None:
        """One that came with a single request: the latest of those are known, not all of them."""
        if len(secret) >= _MIN_SECRET_LENGTH and secret not in self._passing:
            self._passing = [*self._passing[-_PASSING_KEPT + 1 :], secret]

    def text(self, text: str) -> str:
        for secret in (*self._secrets, *self._passing):
            text = text.replace(secret, MASK)
        return text

    def value(self, value: object, depth: int = _MAX_DEPTH) -> object:
        """The same value with every text in its maps and lists redacted; what is nested deeper
        than anything of ours is masked whole."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (dict, list, tuple)) and not depth:
            return MASK
        if isinstance(value, dict):
            return {key: self.value(item, depth - 1) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, depth - 1) for item in value]
        return value
