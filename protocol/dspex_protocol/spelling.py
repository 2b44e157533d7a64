"""What was probably meant."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["did_you_mean", "suggestion"]

# A longer name is nobody's misspelling, and comparing one of a frame's length takes seconds.
_MAX_MISSPELT_CHARS = 256

# Names by the thousand are a client's own; looking for a close one among these takes milliseconds.
_MAX_KNOWN = 200


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`, did you mean 'x'?` where a known name is close in spelling or begins so, else empty."""
    close = _closest(name, known)
    return f", did you mean {close!r}?" if close is not None else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The same as a sentence: ` Did you mean 'x'?`."""
    close = _closest(name, known)
    return f" Did you mean {close!r}?" if close is not None else ""


def _closest(name: str, known: Iterable[str]) -> str | None:
    folded = {candidate.lower(): candidate for candidate in known}
    if len(name) > _MAX_MISSPELT_CHARS or len(folded) > _MAX_KNOWN:
        return None
    from difflib import get_close_matches

    wanted = name.lower()
    close = get_close_matches(wanted, folded, n=1, cutoff=0.6)
    close += [c for c in folded if len(wanted) > 2 and c.startswith(wanted)]
    return folded[close[0]] if close else None
