"""Ensembles: programs that answer together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex_protocol.errors import InvalidParamsError

from .spec import ENSEMBLE, EnsembleSpec, ProgramSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MAX_PROGRAMS", "ensemble"]

# Each is at least one LM call of every execution.
MAX_PROGRAMS = 100


def ensemble(programs: Sequence[ProgramSpec], reduce: str, size: int | None = None) -> ProgramSpec:
    """The program of programs. Raises InvalidParamsError where these are not alike."""
    if not 0 < len(programs) <= MAX_PROGRAMS:
        raise InvalidParamsError(
            f"an ensemble has 1 to {MAX_PROGRAMS} programs, got {len(programs)}",
            data={"param": "programs"},
        )
    if size is not None and size > len(programs):
        raise InvalidParamsError(
            f"an ensemble of {len(programs)} programs cannot draw {size} of them",
            data={"param": "size"},
        )
    first = programs[0].signature
    for index, program in enumerate(programs):
        for side in ("inputs", "outputs"):
            wanted = {item.name: item.type for item in getattr(first, side)}
            found = {item.name: item.type for item in getattr(program.signature, side)}
            if found != wanted:
                raise InvalidParamsError(
                    f"the programs of an ensemble have the same inputs and outputs: programs[0] "
                    f"is {first.to_string()!r}, programs[{index}] "
                    f"{program.signature.to_string()!r}",
                    data={"param": "programs", "index": index},
                )
    return ProgramSpec(
        signature=first,
        module=ENSEMBLE,
        ensemble=EnsembleSpec(tuple(programs), reduce, size),
    )
