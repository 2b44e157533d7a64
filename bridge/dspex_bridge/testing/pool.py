"""The bridges of a test run: one a command, shared by the tests, and replaced when it is unfit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .background import Background
from .bridge import Bridge

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BridgePool"]


class BridgePool:
    """Starts a bridge when it is first needed: that takes a second, of which most is DSPy's."""

    def __init__(self) -> None:
        self._background = Background()
        self._shared: dict[tuple[str, ...], Bridge] = {}

    def take(self, command: Sequence[str], *, fresh: bool) -> Bridge:
        """A bridge for one test: the shared one, or a fresh one. Raises as Bridge does."""
        bridge = None if fresh else self._shared.pop(tuple(command), None)
        if bridge is not None and not bridge.is_alive:
            bridge.close()
            bridge = None
        return bridge or Bridge(self._background, command)

    def give_back(self, bridge: Bridge, *, fresh: bool) -> None:
        """The test has ended, and with it a fresh bridge."""
        if bridge.end() and not fresh:
            self._shared[bridge.command] = bridge
        else:
            bridge.close()

    def close(self) -> None:
        for bridge in self._shared.values():
            bridge.close()
        self._background.close()
