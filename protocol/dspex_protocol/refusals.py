"""Signature errors that say where in a map they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_protocol.errors import SignatureError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["Path", "kind_of", "refused_at"]

# Of a key in a message: a person's are shorter, and a client's may be of any length.
_SHOWN_CHARS = 80

Path = list[str | int]


def refused_at(path: Path, message: str, data: Mapping[str, Any] | None = None) -> SignatureError:
    """The error to raise for a place: in its message, and in `data.path`."""
    shown = (f"[{p}]" if isinstance(p, int) else f".{p[:_SHOWN_CHARS]}" for p in path)
    where = "".join(shown).lstrip(".")
    text = f"{where}: {message}" if where else message
    return SignatureError(text, data={**(data or {}), "path": list(path)})


def kind_of(value: object) -> str:
    """What a value is, in JSON's words."""
    if value is None:
        return "nothing (null)"
    names = {bool: "a boolean", int: "an integer", float: "a number", str: "a string"}
    names |= {list: "a list", dict: "a map", bytes: "bytes"}
    return names.get(type(value), type(value).__name__)
