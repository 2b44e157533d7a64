"""What a method is."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from dspex_bridge.dispatch import Call
    from dspex_bridge.host import Host
    from dspex_bridge.params import Check

__all__ = ["Method"]


class Method:
    """A name, the shape of its parameters and its handler.

    The handler is a plain function. It returns the result, or an async function where there is
    something to wait for: what it does before that happens in the order in which requests came.
    An inline one runs on the reader's thread, is answered even while DSPy is being imported, and
    takes microseconds; one that returns None answers by itself, later.
    """

    __slots__ = ("check", "handler", "is_inline", "name")

    def __init__(
        self,
        name: str,
        handler: Callable[[Host, Call], Any],
        check: Check,
        *,
        is_inline: bool = False,
    ) -> None:
        self.name = name
        self.handler = handler
        self.check = check
        self.is_inline = is_inline
