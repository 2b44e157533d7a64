"""The LM of a call is one of the server's own, by its name."""

from __future__ import annotations

from typing import Any

from dspex_bridge.params import name
from dspex_protocol.errors import InvalidParamsError

__all__ = ["lm_name"]


def lm_name(value: Any, where: str) -> None:
    """Raises InvalidParamsError for the description of an LM, which repeats nothing of it.

    The protocol's `execute` takes one from the client that started the bridge. Here it would say
    whom the server's keys, and whatever else its environment holds, are sent to.
    """
    if isinstance(value, dict):
        raise InvalidParamsError(
            f"{where} must be the name of one of the server's LMs, got a map: LMs are given to a "
            "server at its start, by --lm or --lms",
            data={"param": "lm"},
        )
    name(value, where)
