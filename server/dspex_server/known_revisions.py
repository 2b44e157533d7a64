"""The revisions that were read before: what a bridge takes of each, and what its inputs must be."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dspex_bridge.programs import bundles
from dspex_bridge.programs.converters import InputConverter
from dspex_bridge.programs.json_forms import from_json
from dspex_protocol.errors import DSPexError

from .loaded import Stored
from .resources.programs import read_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

__all__ = ["KnownRevision", "KnownRevisions"]

# A few kilobytes each.
_MAX_KNOWN = 1_000


@dataclass(frozen=True)
class KnownRevision:
    stored: Stored
    _inputs: InputConverter

    def problem(self, inputs: Mapping[str, Any]) -> DSPexError | None:
        """What is wrong with inputs (JSON), told before a bridge is asked."""
        try:
            self._inputs.convert({key: from_json(item, "inputs") for key, item in inputs.items()})
        except DSPexError as error:
            return error
        return None


class KnownRevisions:
    """A revision never changes, so that each is read once. For any thread."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int], KnownRevision] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, connection: Connection, program_id: str, revision: int) -> KnownRevision:
        """Reads it, or has it still: those used last are kept. Raises NotFoundError where there is
        none."""
        key = (program_id, revision)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        state = read_state(connection, program_id, revision)
        inputs = InputConverter(bundles.load(state).signature)
        known = KnownRevision(Stored(program_id, revision, state), inputs)
        with self._lock:
            self._known[key] = known
            if len(self._known) > _MAX_KNOWN:
                self._known.popitem(last=False)
        return known
