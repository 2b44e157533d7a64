"""The methods of the bridge: one entry in this table, and its handler, each."""

from __future__ import annotations

from . import batch, control, evaluate, execute, optimize, programs
from .method import Method

__all__ = ["METHODS", "Method"]

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        control.INITIALIZE,
        control.PING,
        control.CONFIGURE,
        programs.CREATE,
        execute.EXECUTE,
        batch.BATCH,
        evaluate.EVALUATE,
        optimize.OPTIMIZE,
        programs.DESCRIBE,
        programs.LIST,
        programs.DELETE,
        programs.DUMP,
        programs.LOAD,
        programs.SAVE,
        control.STATS,
        control.SHUTDOWN,
    )
}
