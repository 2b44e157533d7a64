"""The LM of a call, and of a program, is one of the server's own, by its name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex_bridge.params import name, quoted
from dspex_protocol.errors import InvalidParamsError, NotFoundError

if TYPE_CHECKING:
    from dspex_server.app import App

__all__ = ["lm_name", "require_lm"]


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


def require_lm(app: App, lm: Any) -> None:
    """Raises NotFoundError for the name of an LM that this server has not; what is no name is
    refused by whoever takes it. Otherwise a program with it would be made, and never run."""
    if isinstance(lm, str) and lm not in app.bridges.lms:
        raise NotFoundError(
            f"createProgram: there is no LM {quoted(lm)}; configured: "
            f"{', '.join(sorted(app.bridges.lms))}. LMs are given to a server at its start, by "
            "--lm or --lms",
            data={"kind": "lm", "name": lm, "param": "lm"},
        )
