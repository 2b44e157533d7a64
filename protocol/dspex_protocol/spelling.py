"""What was probably meant."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean"]

# A longer name is nobody's misspelling, and comparing one of a frame's length takes seconds.
_MAX_MISSPELT_CHARS = 256


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` where a known name is close in spelling or begins so, else empty."""
    if len(name) > _MAX_MISSPELT_CHARS:
        return ""
    wanted = name.lower()
    folded = {candidate.lower(): candidate for candidate in known}
    close = get_close_matches(wanted, folded, n=1, cutoff=0.6)
    close += [c for c in folded if len(wanted) > 2 and c.startswith(wanted)]
    return f", did you mean {folded[close[0]]!r}?" if close else ""
