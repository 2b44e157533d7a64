"""The shape of a metric in parameters, and how a client says that it has none of a name."""

from __future__ import annotations

from dspex_protocol.errors import InvalidParamsError

from dspex_bridge.catalog import METRICS
from dspex_bridge.params import mapping, name, one_of, record, text
from dspex_bridge.shapes import PROGRAM_OR_CREATE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["NO_METRIC", "metric"]

# Codes of a client that has no such metric at all: to ask again for the next example is of no use.
NO_METRIC = ("method_not_found", "not_found")


def _judge(value: Any, where: str) -> None:
    mapping(value, where)
    PROGRAM_OR_CREATE(value, where)


_KINDS = {
    "name": record({"name": one_of(*METRICS)}, {"field": text, "params": mapping}),
    "callback": record({"callback": name}),
    "judge": record({"judge": _judge, "field": text}),
}


def metric(value: Any, where: str) -> None:
    """`{name, field?, params?}`, `{callback}` or `{judge, field}`."""
    mapping(value, where)
    kinds = [kind for kind in _KINDS if value.get(kind) is not None]
    if len(kinds) != 1:
        raise InvalidParamsError(
            f"{where} must have exactly one of {', '.join(_KINDS)}, got "
            f"{', '.join(kinds) or 'none of them'}.",
            data={"param": where.rpartition(": ")[2]},
        )
    _KINDS[kinds[0]](value, where)
