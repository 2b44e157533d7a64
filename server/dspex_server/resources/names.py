"""Names of resources: what a person calls them by."""

from __future__ import annotations

from dspex_bridge.params import MAX_NAME_CHARS
from dspex_protocol.errors import InvalidParamsError

__all__ = ["check_name"]


def check_name(name: str, param: str) -> str:
    """The name. PostgreSQL keeps no U+0000, and a blank name is none to find a thing by."""
    if not name.strip() or len(name) > MAX_NAME_CHARS or "\x00" in name:
        raise InvalidParamsError(
            f"{param} must be a text of 1 to {MAX_NAME_CHARS} characters that is not blank",
            data={"param": param},
        )
    return name
